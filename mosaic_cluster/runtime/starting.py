"""Starting Ray on a machine that may be busy."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

from mosaic_cluster.worker.errors import BackendError

TRIES = 3
"""Ray gives its own processes half a minute to be there, and no way to say more."""

_TIMED_OUT = "timed out during startup"
_HOME = Path(ray.__file__).parent
_PROGRAMS = (
    *(f"{_HOME / part}{os.sep}" for part in ("core", "_private", "dashboard", "autoscaler", "cpp")),
    "ray.util.client.server",
)
"""How words of the command lines of Ray's own processes begin."""


def start_ray(options: Mapping[str, Any]) -> None:
    """``ray.init``, tried again where Ray's processes were only too slow to start.

    Args:
        options: for ``ray.init``.

    Raises:
        BackendError: they were too slow each time.
        Exception: whatever else ``ray.init`` raises.
    """
    for number in range(1, TRIES + 1):
        before = _children()
        try:
            ray.init(**options)
            return
        except Exception as error:
            if _TIMED_OUT not in str(error):  # Ray has no class of its own for it
                raise
            _end({process for process in _children() - before if _is_ray(process)})
            logging.getLogger(__name__).warning("Ray took too long to start, try %d of %d", number, TRIES)
    load, cpus = os.getloadavg()[0], os.cpu_count()
    raise BackendError(
        f"Ray could not be started here: {TRIES} times its processes were not there within 30 s. The machine is busy "
        f"(load {load:.0f} on {cpus} CPUs) or short of memory; try again when it is less so, or use --backend inline"
    )


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _is_ray(process: psutil.Process) -> bool:
    """Whether Ray has started it: other threads of this process may have started children of their own meanwhile."""
    try:
        return any(word.startswith(_PROGRAMS) for word in process.cmdline())
    except psutil.Error:
        return False


def _end(processes: set[psutil.Process]) -> None:
    """What a start that failed leaves running would be in the way of the next."""
    for process in list(processes):
        try:
            processes.update(process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


__all__ = ["TRIES", "start_ray"]
