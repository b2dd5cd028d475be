"""Whether a worker has gone beyond a limit. Pure: what was seen goes in, a verdict comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mosaic_cluster.supervision.order import Limits
from mosaic_cluster.supervision.verdict import NAMES, Verdict
from mosaic_cluster.units import format_bytes


@dataclass(frozen=True)
class Seen:
    """What a supervisor sees of its worker.

    Attributes:
        ran: seconds of running, earlier attempts included, pauses left out.
        silent: running seconds since the last telemetry line.
        step: last environment step reported.
        log: bytes printed; memory: bytes held by its processes.
        gpu_memory: bytes held by them on the GPU where it is most; ``None``: nobody can say.
    """

    ran: float
    silent: float
    step: int | None
    log: int
    memory: int
    gpu_memory: int | None = None


def over_limit(limits: Limits, seen: Seen) -> Verdict | None:
    """How the worker must end now; ``None`` while it is within all its limits."""
    if limits.max_steps is not None and seen.step is not None and seen.step >= limits.max_steps:
        text = f"reached limits.max_steps ({limits.max_steps:,}) at step {seen.step:,}"
        return Verdict("COMPLETED", "max_steps", text)
    if limits.max_duration is not None and seen.ran >= limits.max_duration:
        text = f"ran for {seen.ran:.1f} s; limits.max_duration is {limits.max_duration:g} s"
        return Verdict("FAILED", "max_duration", text)
    if limits.no_heartbeat is not None and seen.silent >= limits.no_heartbeat:
        text = (
            f"was silent for {seen.silent:.1f} s (no telemetry line); limits.no_heartbeat is {limits.no_heartbeat:g} s"
        )
        return Verdict("FAILED", "no_heartbeat", text, True)
    if limits.max_log is not None and seen.log > limits.max_log:
        return Verdict("FAILED", "max_log", f"printed {seen.log:,} bytes; limits.max_log is {limits.max_log:,}")
    if limits.on_excess == "stop":
        for what, used, limit in _limited(limits, seen):
            if used > limit:
                text = f"{_used(what, used, limit)} (resources.{what}): declare more, or make the run smaller"
                return Verdict("FAILED", "out_of_memory", text, exhausted=what)
    return None


def excesses(limits: Limits, seen: Seen) -> dict[str, str]:
    """What it holds more of than declared although nothing is to follow: a sentence for each kind of memory."""
    found = {}
    if limits.on_excess == "warn":
        for what, used, limit in _limited(limits, seen):
            if used > limit:
                found[what] = f"{_used(what, used, limit)} (limits.on_excess: warn)"
    for what, used, expected in _present(
        ("memory", seen.memory, limits.expected_memory), ("gpu_memory", seen.gpu_memory, limits.expected_gpu_memory)
    ):
        if used > expected:
            found[what] = f"{_used(what, used, expected)} (by its worker; resources.{what} would say otherwise)"
    return found


def with_figures(verdict: Verdict, limits: Limits, peaks: dict[str, int | None]) -> Verdict:
    """A verdict on memory that ran out by itself, with what was seen of it.

    Args:
        peaks: most that was seen in use, by kind of memory.
    """
    what = verdict.exhausted
    peak = peaks.get(what) if what is not None else None
    if what is None or not peak:
        return verdict
    declared = getattr(limits, what) or getattr(limits, f"expected_{what}")
    text = f"it was seen to use {format_bytes(peak)} of {NAMES[what]}"
    text += f", declared {format_bytes(declared)}" if declared else ""
    return replace(verdict, message=f"{verdict.message}; {text}")


def _limited(limits: Limits, seen: Seen) -> list[tuple[str, int, int]]:
    return _present(("memory", seen.memory, limits.memory), ("gpu_memory", seen.gpu_memory, limits.gpu_memory))


def _present(*each: tuple[str, int | None, int | None]) -> list[tuple[str, int, int]]:
    return [(what, used, limit) for what, used, limit in each if used is not None and limit is not None]


def _used(what: str, used: int, declared: int) -> str:
    figures = format_bytes(used), format_bytes(declared)
    if figures[0] == figures[1]:
        figures = f"{used:,} bytes", f"{declared:,} bytes"
    return f"used {figures[0]} of {NAMES[what]}, declared {figures[1]}"
