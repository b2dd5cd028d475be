"""Processes and their descendants, read from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")
PAGE = os.sysconf("SC_PAGE_SIZE")
LABEL = "MOSAIC_SUPERVISES"
"""Environment variable of a supervisor process: ``<run id>/<attempt>``."""

SWEEP_SECONDS = 10.0


def parents() -> dict[int, int]:
    """Parent of every process, by pid."""
    found = {}
    for entry in os.listdir(PROC):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None:
                found[int(entry)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` from the state on; the name before it may hold anything."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def descendants(pid: int) -> list[int]:
    """All living descendants, nearest first; zombies left out."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = list(children.get(pid, ()))
    while waiting:
        current = waiting.pop(0)
        found.append(current)
        waiting += children.get(current, ())
    return [each for each in found if not is_zombie(each)]


def family(pid: int) -> list[int]:
    """Descendants, zombies included, for who only wants to measure them.

    Far cheaper than :func:`descendants` on a machine with many processes, where the kernel lists children. While
    one of them ends, a sibling may be missed: who kills or freezes needs the other one.
    """
    try:
        found = _children(pid)
    except OSError:
        return descendants(pid)
    for each in found:  # grows as we go
        with contextlib.suppress(OSError):
            found += _children(each)
    return found


def _children(pid: int) -> list[int]:
    """Children of all threads of a process.

    Raises:
        OSError: it is gone, or this kernel keeps no such lists.
    """
    found: list[int] = []
    tasks = PROC / str(pid) / "task"
    for thread in os.listdir(tasks):
        found += map(int, (tasks / thread / "children").read_text().split())
    return found


def is_zombie(pid: int) -> bool:
    """Whether a process is dead but not yet waited for, or gone."""
    fields = _stat(pid)
    return fields is None or fields[0] in ("Z", "X")


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to those that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def freeze_descendants(pid: int) -> None:
    """SIGSTOP for all: again and again while some appear that were forked between the listing and the signal."""
    frozen: set[int] = set()
    while True:
        new = [each for each in descendants(pid) if each not in frozen]
        if not new:
            return
        send(new, signal.SIGSTOP)
        frozen.update(new)


def kill_descendants(pid: int, reap: Callable[[], None], timeout: float = SWEEP_SECONDS) -> list[int]:
    """SIGKILL until none is left.

    Args:
        pid: a subreaper, so that no descendant can get away from it.
        reap: waits for dead children, without blocking.
        timeout: seconds after which to give up on those that the kernel does not let go.

    Returns:
        Those that were still there at the end.
    """
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        left = descendants(pid)
        # Frozen first, none can fork while we go through the others.
        send(left, signal.SIGSTOP)
        send(left, signal.SIGKILL)
        reap()
        if not left or time.monotonic() > end:
            return left
        time.sleep(pause)
        pause = min(0.05, pause * 2)


def rss(pids: Iterable[int]) -> int:
    """Resident bytes of some processes together; what they share is counted in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            total += int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE
    return total


def pss(pids: Iterable[int]) -> int:
    """Resident bytes of some processes together, shared pages counted once. Slower than :func:`rss`."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def find(run_id: str, attempt: int | None = None) -> list[int]:
    """Processes of a run on this machine, its supervisors included, by what their environment says.

    Args:
        run_id: whose.
        attempt: only this attempt's.
    """
    own = {os.getpid(), os.getppid()}
    found = []
    for entry in os.listdir(PROC):
        if entry.isdigit() and int(entry) not in own and _belongs(int(entry), run_id, attempt):
            found.append(int(entry))
    return found


def _belongs(pid: int, run_id: str, attempt: int | None) -> bool:
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    if run_id.encode() not in raw:
        return False
    pairs = (item.partition(b"=") for item in raw.split(b"\0"))
    values = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}
    if LABEL in values:
        owner, _, number = values[LABEL].partition("/")
    else:
        owner, number = values.get("MOSAIC_RUN_ID", ""), values.get("MOSAIC_ATTEMPT", "")
    return owner == run_id and (attempt is None or number == str(attempt)) and not is_zombie(pid)


def sweep(run_id: str, attempt: int | None = None, timeout: float = SWEEP_SECONDS) -> list[int]:
    """Kill what is left of a run on this machine: what its supervisor's own death left behind.

    Args:
        run_id: whose processes.
        attempt: only this attempt's.
        timeout: seconds to wait until they are gone.

    Returns:
        The processes that were killed.
    """
    killed: set[int] = set()
    end = time.monotonic() + timeout
    while True:
        left = find(run_id, attempt)
        if not left or time.monotonic() > end:
            return sorted(killed)
        killed.update(left)
        send(left, signal.SIGKILL)
        time.sleep(0.01)
