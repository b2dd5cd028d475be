"""Which trial is best, and how sure that is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mosaic_cluster.reports import interval


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
