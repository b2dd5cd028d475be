"""Which trial is best, and how sure that is. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Two-sided 95 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL95 = 1.960


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean: mean ± t s / sqrt(n), Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed; taken as independent and roughly normal.

    Returns:
        Its ends; ``None`` for fewer than two values.
    """
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL95
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def ranked(trials: Iterable[Mapping[str, Any]], mode: str) -> list[Mapping[str, Any]]:
    """Trials with a score, the best first.

    One that was stopped early or is still under way comes after all that went further: a score at an early rung
    says nothing about the last one.

    Args:
        trials: entries of a status document.
        mode: ``max`` or ``min``.
    """
    sign = -1.0 if mode == "max" else 1.0
    scored = [trial for trial in trials if trial["score"] is not None and trial["state"] != "FAILED"]
    return sorted(
        scored,
        key=lambda trial: (trial["state"] != "COMPLETED", -trial["rung"], sign * trial["score"], trial["trial"]),
    )


def summary(trials: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any]:
    """Best trial, runner-up, what failed and why."""
    order = ranked(trials, mode)
    failed = [{"trial": trial["trial"], "reason": trial["reason"]} for trial in trials if trial["state"] == "FAILED"]
    return {
        "best": _standing(order[0]) if order else None,
        "runner_up": _standing(order[1]) if len(order) > 1 else None,
        "failed": failed,
    }


def _standing(trial: Mapping[str, Any]) -> dict[str, Any]:
    values = [value for value in trial["values"] if value is not None]
    ends = interval(values)
    return {
        "trial": trial["trial"],
        "worker": trial["worker"],
        "params": trial["params"],
        "state": trial["state"],
        "score": trial["score"],
        "values": trial["values"],
        "seeds": trial["seeds"],
        "interval": None if ends is None else list(ends),
        "runs": trial["runs"],
    }
