"""What an exit status means, in words a person can act on."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|OutOfMemoryError|\bMemoryError\b|std::bad_alloc|Cannot allocate memory"
    r"|can't allocate memory|RESOURCE_EXHAUSTED|Out of memory|CUDA_ERROR_OUT_OF_MEMORY",
)
_GPU = re.compile(r"CUDA|GPU|HIP|RESOURCE_EXHAUSTED", re.IGNORECASE)
NAMES = {"memory": "memory", "gpu_memory": "GPU memory"}
"""What can run out, for people."""
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Exit)\b")


@dataclass(frozen=True)
class Verdict:
    """State, code and reason of an end; see :class:`mosaic_cluster.supervision.Outcome`."""

    state: str
    code: str
    message: str
    retryable: bool = False
    exhausted: str | None = None


def judge(
    exit_code: int | None,
    signal_number: int | None,
    stderr: Sequence[str],
    ending: str | None,
    said: Mapping[str, Any],
    killed_for_memory: bool,
) -> Verdict:
    """What became of a worker that ended by itself.

    Args:
        exit_code: of its process, or ``None`` if a signal killed it; signal_number: which one did.
        stderr: its last lines.
        ending: the last lifecycle ending it announced; said: with which payload.
        killed_for_memory: whether the kernel killed a process of this control group meanwhile.
    """
    words = _last_words(stderr, said)
    memory = _memory(exit_code, signal_number, stderr, killed_for_memory)
    if memory is not None:
        return memory
    if signal_number is not None:
        name = signal_name(signal_number)
        return Verdict("FAILED", "signal", f"the worker was killed by {name}, not by us{words}", True)
    if exit_code == 2:
        message = f"the worker refused its config or arguments (exit code 2){words}"
        return Verdict("FAILED", "bad_config", message)
    if exit_code != 0:
        return Verdict("FAILED", "exit_code", f"the worker exited with code {exit_code}{words}", True)
    if ending == "run_failed":
        return Verdict("FAILED", "exit_code", f"the worker reported run_failed, then exited with code 0{words}", True)
    if ending == "run_cancelled":
        return Verdict("CANCELLED", "cancelled", "the worker reported run_cancelled by itself, and exited with code 0")
    return Verdict("COMPLETED", "completed", "the worker exited with code 0")


def _memory(
    exit_code: int | None, signal_number: int | None, stderr: Sequence[str], killed_for_memory: bool
) -> Verdict | None:
    if signal_number == signal.SIGKILL and killed_for_memory:
        return Verdict(
            "FAILED",
            "out_of_memory",
            "the kernel killed the worker because the machine (or its container) ran out of memory: "
            "declare more under resources.memory, or make the run smaller",
            exhausted="memory",
        )
    if not exit_code and signal_number != signal.SIGABRT:
        return None
    named = next((line for line in reversed(stderr) if _OUT_OF_MEMORY.search(line)), None)
    if named is None:
        return None
    what = "gpu_memory" if _GPU.search(named) else "memory"
    words = f"{named.strip()[:300]} (declare more under resources.{what}, or make it smaller)"
    message = f"the worker ran out of {NAMES[what]}: {words}"
    return Verdict("FAILED", "out_of_memory", message, exhausted=what)


def _last_words(stderr: Sequence[str], said: Mapping[str, Any]) -> str:
    raised = [line.strip() for line in stderr if _RAISED.match(line.strip())]
    words = raised[-1] if raised else (stderr[-1].strip() if stderr else "")
    if not words and said:
        words = str(said.get("error") or said.get("message") or said.get("reason") or "")
    return f"; it said: {words[:300]}" if words else ""


def signal_name(number: int) -> str:
    """``"SIGKILL"`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills() -> int | None:
    """How many processes the kernel has killed for memory in this process's control group; ``None``: not known."""
    try:
        group = next(
            line.partition("::")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
        )
        events = Path("/sys/fs/cgroup", group.lstrip("/"), "memory.events").read_text()
        return int(next(line.split()[1] for line in events.splitlines() if line.startswith("oom_kill ")))
    except (OSError, ValueError, StopIteration, IndexError):
        return None
