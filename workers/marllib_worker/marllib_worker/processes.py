"""Child processes that start others: whatever they leave behind is ours, and is ended.

Ray 1.8 starts a dozen processes. This process becomes the one that orphans are handed to (Linux: a *subreaper*), so
that none gets away, and ends what is left. ``/proc`` is read directly: the old interpreter has no psutil of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Dict, List, Optional

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> bool:
    """From now on, processes whose parents end become children of this one. Returns whether that is possible here."""
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def descendants(pid: Optional[int] = None) -> List[int]:
    """Ids of all processes below one (default: this one), zombies excepted."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name, in parentheses, may hold anything: what counts stands behind its last one.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found: List[int] = []
    queue = [os.getpid() if pid is None else pid]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return found


def end_descendants(patience: float = 2.0) -> List[int]:
    """End all processes below this one: SIGTERM, ``patience`` seconds, SIGKILL. Returns those that had to be killed."""
    _send(descendants(), signal.SIGTERM)
    deadline = time.monotonic() + patience
    while descendants() and time.monotonic() < deadline:
        _reap()
        time.sleep(0.05)
    killed = descendants()
    _send(killed, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while descendants() and time.monotonic() < deadline:
        _reap()
        time.sleep(0.02)
    _reap()
    return killed


def _send(pids: List[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _reap() -> None:
    """Take note of ended children, so that none stays a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


__all__ = ["adopt_orphans", "descendants", "end_descendants"]
