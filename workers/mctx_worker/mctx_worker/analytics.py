"""What a run's summary and manifest say of its results, beyond what every worker's say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def results(metrics: Mapping[str, Any], *, parameters: int, device: str) -> dict[str, Any]:
    """The numbers that a run ended with.

    Args:
        metrics: those of the last heartbeat. ``episodic_return`` is of the last evaluation: of two players the mean
            result against a random player (1 won, 0 drawn, -1 lost; a backgammon up to 3), of one the mean return.
        parameters: how many numbers the network has.
        device: where it was trained.
    """
    return {**metrics, "parameters": parameters, "device": device}


def score(metrics: Mapping[str, Any], step: int) -> float:
    """What a checkpoint of this step is judged by: its evaluation's ``episodic_return``.

    Not a number where its network has not been evaluated: then it is better than no other, and the session must not
    take the returns of self-play, which say nothing of its strength.
    """
    return float(metrics["episodic_return"]) if metrics.get("evaluated_at") == step else math.nan


__all__ = ["results", "score"]
