"""Whether a worker has gone beyond a limit. Pure: what was seen goes in, a verdict comes out."""

from __future__ import annotations

from dataclasses import dataclass

from mosaic_cluster.supervision.order import Limits
from mosaic_cluster.supervision.verdict import Verdict


@dataclass(frozen=True)
class Seen:
    """What a supervisor sees of its worker.

    Attributes:
        ran: seconds of running, earlier attempts included, pauses left out.
        silent: running seconds since the last telemetry line.
        step: last environment step reported.
        log: bytes printed; memory: bytes held by its processes.
    """

    ran: float
    silent: float
    step: int | None
    log: int
    memory: int


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
            f"was silent for {seen.silent:.1f} s (no telemetry line); "
            f"limits.no_heartbeat is {limits.no_heartbeat:g} s"
        )
        return Verdict("FAILED", "no_heartbeat", text, True)
    if limits.max_log is not None and seen.log > limits.max_log:
        return Verdict("FAILED", "max_log", f"printed {seen.log:,} bytes; limits.max_log is {limits.max_log:,}")
    if limits.memory is not None and seen.memory > limits.memory:
        text = (
            f"its processes held {seen.memory >> 20:,} MiB of memory; resources.memory grants "
            f"{limits.memory >> 20:,} MiB: declare more, or make the run smaller"
        )
        return Verdict("FAILED", "out_of_memory", text)
    return None
