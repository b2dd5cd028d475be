"""How a worker's own process is started: its command and its environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mosaic_cluster.catalog.contract_folder import contract_folder

# Variables with which Ray steers its own processes. A worker whose library uses Ray must not join ours by accident.
_OURS = ("RAY_", "__RAY", "MOSAIC_SUPERVISES", "MOSAIC_RUN_ID", "MOSAIC_ATTEMPT", "MOSAIC_RESUME_FROM")


def worker_command(package: str, has_cli: bool, config_path: str, python: str) -> list[str]:
    """The command that runs a worker with a config file.

    Args:
        package: top package of the worker.
        has_cli: whether it has a module ``<package>.cli``; without one, our runner runs its runtime class.
        config_path: its config file.
        python: interpreter of the worker's environment.
    """
    if has_cli:
        return [python, "-m", f"{package}.cli", "--config", config_path]
    return [python, "-m", "mosaic_cluster.worker.runner", "--package", package, "--config", config_path]


def is_ours(name: str) -> bool:
    """Whether an environment variable steers Ray or us, and is not for a worker's process."""
    return name.startswith(_OURS)


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for a worker's process, from those of the process that starts it.

    The contract comes first on ``PYTHONPATH``; what steers Ray is left out.

    Args:
        base: usually ``os.environ``.
    """
    kept = {name: value for name, value in base.items() if not is_ours(name)}
    folder = str(contract_folder())
    others = [part for part in base.get("PYTHONPATH", "").split(os.pathsep) if part and part != folder]
    kept["PYTHONPATH"] = os.pathsep.join([folder, *others])
    return kept
