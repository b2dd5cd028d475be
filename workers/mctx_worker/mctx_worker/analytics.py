"""What a run's manifest and summary say of its results, beyond what every worker's say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEANINGS = {
    "episodic_return": "mean over the games of the last evaluation: of two players, of the result against a random "
    "player (1 won, 0 drawn, -1 lost; a backgammon up to 3), both seats alike; of one player, of the return",
    "win_rate": "share of the games of the last evaluation that were won against a random player",
    "past_score": "share of points against the network of the evaluation before, a draw counting half",
}
"""Names of results, and what they mean."""


def results(metrics: Mapping[str, Any], *, parameters: int, device: str) -> dict[str, Any]:
    """The numbers that a run ended with, for the summary and the manifest."""
    told = {name: meaning for name, meaning in MEANINGS.items() if name in metrics}
    return {**metrics, "parameters": parameters, "device": device, "meanings": told}


__all__ = ["MEANINGS", "results"]
