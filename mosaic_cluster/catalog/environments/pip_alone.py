"""pip where an interpreter comes without it, and what an interrupted pip leaves behind."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mosaic_cluster.catalog.environments.commands import run_command
from mosaic_cluster.catalog.environments.interpreters import Interpreter
from mosaic_cluster.catalog.environments.surroundings import plain_variables
from mosaic_cluster.worker.errors import EnvironmentFailed


def pip_wheel(interpreter: Interpreter, folder: Path, log: Path, watch: Callable[[str], None]) -> Path:
    """A wheel of pip that runs on an interpreter: the one that our Python carries, else one from the package index.

    Args:
        folder: where a downloaded one goes.

    Raises:
        EnvironmentFailed: there is none to be had.
    """
    for wheel in sorted(_bundled(), reverse=True):
        if _runs_on(wheel, interpreter):
            return wheel
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += ["--python-version", interpreter.minor, "--dest", str(folder), "pip"]
    variables = plain_variables(os.environ)
    ended = run_command(command, cwd=folder, variables=variables, log=log, building=str(folder), watch=watch)
    found = sorted(folder.glob("pip-*.whl"))
    if ended.code != 0 or not found:
        words = "\n".join(f"  | {line}" for line in ended.tail)
        message = (
            f"{interpreter.path} has no ensurepip, this Python carries no pip that runs on {interpreter.minor}, and "
            f"none could be downloaded with `{sys.executable} -m pip`:\n{words}"
        )
        raise EnvironmentFailed(message, network=ended.network)
    return found[-1]


def _bundled() -> list[Path]:
    spec = find_spec("ensurepip")
    if spec is None or spec.origin is None:
        return []
    return list((Path(spec.origin).parent / "_bundled").glob("pip-*.whl"))


def _runs_on(wheel: Path, interpreter: Interpreter) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            text = archive.read(name).decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile, StopIteration):
        return False
    least = re.search(r"^Requires-Python: >=(\d+)\.(\d+)", text, re.MULTILINE)
    return least is not None and tuple(map(int, interpreter.minor.split("."))) >= (int(least[1]), int(least[2]))


def clear_half_installed(folder: Path) -> None:
    """Remove what a pip that was killed left: it would take a package without its record for installed."""
    for site in folder.glob("lib/python*/site-packages"):
        for entry in site.iterdir():
            half = entry.name.endswith(".dist-info") and not (entry / "RECORD").exists()
            if half or entry.name.startswith("~"):
                shutil.rmtree(entry, ignore_errors=True)
