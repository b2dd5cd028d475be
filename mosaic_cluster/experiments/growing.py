"""How much memory a run should have: what to declare once it was seen, what it gets once it ran out. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from mosaic_cluster.placement import Placement, Request
from mosaic_cluster.supervision import Limits, Outcome
from mosaic_cluster.units import MIB, format_bytes

MARGIN = 1.2
"""What is suggested is so many times the largest use that was seen."""

_STEPS = ((1 << 30, 64 * MIB), (8 << 30, 256 * MIB), (64 << 30, 1 << 30))
_LAST_STEP = 4 << 30
_NAMES = {"memory": "memory", "gpu_memory": "GPU memory"}


@dataclass(frozen=True)
class Growth:
    """What a run that ran out of memory gets.

    Attributes:
        times: so many times what it had.
        most: how often at most.
    """

    times: float
    most: int


@dataclass(frozen=True)
class Grown:
    """A request that is larger than what was not enough.

    Attributes:
        words: what it gets instead of what, for people.
    """

    request: Request
    limits: Limits
    words: str


def nice(size: float) -> int:
    """Bytes, rounded up to what a person would write."""
    step = next((step for upto, step in _STEPS if size <= upto), _LAST_STEP)
    return max(1, math.ceil(size / step)) * step


def suggested(peak: int) -> int:
    """What to declare for a run that used ``peak`` bytes at most."""
    return nice(peak * MARGIN)


def grow(
    request: Request, limits: Limits, had: Placement | None, outcome: Outcome, growth: Growth
) -> Grown | str | None:
    """What a run gets after an attempt.

    Args:
        request: its request so far; limits: its limits so far.
        had: the place of the attempt.
        outcome: how the attempt ended.

    Returns:
        ``None`` if it did not run out of memory; why it cannot have more, if so.
    """
    what = outcome.exhausted
    if outcome.code != "out_of_memory" or what is None:
        return None
    if what == "gpu_memory" and not request.gpus:
        return "it has no GPU that it could have more of"
    granted: int | None = getattr(had, what) if had is not None else None
    declared: int | None = getattr(request, what)
    peak = outcome.peak_gpu_memory if what == "gpu_memory" else outcome.peak_rss
    before = granted or declared or peak
    if not before:
        return f"nothing says how much {_NAMES[what]} it had: give resources.{what}"
    more = math.ceil(before * growth.times)
    if not (granted or declared):
        more = nice(more)
    more = max(more, declared or 0)
    wanted: dict[str, Any] = {what: more}
    limit: dict[str, Any] = {what if getattr(limits, what) is not None else f"expected_{what}": more}
    words = f"{format_bytes(more)} instead of {format_bytes(before)} of {_NAMES[what]}"
    return Grown(replace(request, **wanted), replace(limits, **limit), words)
