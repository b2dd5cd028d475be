"""A worker's own dry run on this machine: finds what its config class cannot know, such as a misspelt environment."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mosaic_cluster.catalog import make_ready
from mosaic_cluster.catalog.environments import BuildProgress
from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.attempt import supervision_order, write_config
from mosaic_cluster.runtime.backend import AttemptOrder, WorkerLaunch
from mosaic_cluster.runtime.environment import attempt_environment
from mosaic_cluster.supervision import Limits
from mosaic_cluster.supervision.verdict import judge
from mosaic_cluster.worker.errors import EnvironmentFailed

LONGEST = 600.0
"""Seconds that a dry run may take."""
_OWN_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class DryRun:
    """What a worker said of a config.

    Attributes:
        worker: its name; config: what it was given.
        fine: whether it took it; message: why not, or that it did.
        stderr: its last lines, where it did not.
    """

    worker: str
    config: Mapping[str, Any]
    fine: bool
    message: str
    stderr: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def dry_run(
    worker: WorkerLaunch,
    config: Mapping[str, Any],
    *,
    run_id: str,
    seed: int | None,
    environment: Mapping[str, str],
    report: Callable[[BuildProgress], None] | None = None,
) -> DryRun:
    """Have a worker check a config on this machine, with the GPUs that this process sees. It trains nothing.

    Args:
        environment: variables that the spec sets.
        report: told how far the building of the worker's environment is, where that is missing here.
    """

    def found(fine: bool, message: str, stderr: str = "") -> DryRun:
        lines = [line for line in stderr.splitlines() if line.strip()]
        return DryRun(worker.name, dict(config), fine, message, () if fine else tuple(lines[-15:]))

    try:
        ready = make_ready(worker.name, worker.distribution, worker.package, worker.environment, report=report)
    except EnvironmentFailed as error:
        return found(False, error.summary, str(error))
    with tempfile.TemporaryDirectory(prefix="mosaic-dry-run-") as folder:
        place = Placement(run_id, "", "here", float(os.cpu_count() or 1))
        order = AttemptOrder(
            "dry-run", folder, run_id, 1, worker, config, seed, place, Limits(), environment=environment
        )
        write_config(order)
        variables = attempt_environment(order, os.environ, None, ready)
        if _OWN_GPUS not in environment:
            variables.pop(_OWN_GPUS, None)
            variables.update({name: os.environ[name] for name in (_OWN_GPUS,) if name in os.environ})
        command = supervision_order(order, variables, ready).command
        try:
            done = subprocess.run(
                [*command, "--dry-run"],
                cwd=order.run_dir,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LONGEST,
                check=False,
            )
        except OSError as error:
            return found(False, f"its process cannot be started: {error}")
        except subprocess.TimeoutExpired:
            return found(False, f"was not done after {LONGEST:.0f} s")
    if done.returncode == 2 and "unrecognized arguments: --dry-run" in done.stderr:
        return found(True, "has no dry run: nothing was checked")
    code, number = (done.returncode, None) if done.returncode >= 0 else (None, -done.returncode)
    verdict = judge(code, number, done.stderr.splitlines(), *_ending(done.stdout), killed_for_memory=False)
    fine = verdict.state == "COMPLETED"
    return found(fine, "takes it" if fine else verdict.message, done.stderr)


def _ending(stdout: str) -> tuple[str | None, Mapping[str, Any]]:
    """The last lifecycle ending that was announced, and its payload."""
    ending: tuple[str | None, Mapping[str, Any]] = (None, {})
    for line in stdout.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("event") in ("run_completed", "run_failed", "run_cancelled"):
            payload = said.get("payload")
            ending = (said["event"], payload if isinstance(payload, dict) else {})
    return ending


__all__ = ["DryRun", "dry_run"]
