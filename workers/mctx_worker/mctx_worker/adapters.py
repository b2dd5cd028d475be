"""From PettingZoo's observations to positions of pgx.

A network wants observations as pgx makes them, a search wants whole states. Both are rebuilt from one PettingZoo
observation; a game where that cannot be done exactly is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Adapter:
    """How a PettingZoo game is seen by pgx. Actions are the same numbers in both, for all games here.

    Attributes:
        game: PettingZoo's name.
        observations: from PettingZoo's, shape ``(batch, ...)``, to pgx's.
        legal: from PettingZoo's observations to legal moves ``(batch, actions)``, or ``None`` where an observation
            alone does not tell.
        states: from PettingZoo's observations to fields of pgx states (see there), or ``None`` where an observation
            alone does not tell.
        why_no_states: what a state needs and an observation does not tell.
    """

    game: str
    observations: Callable[[np.ndarray], np.ndarray]
    legal: Callable[[np.ndarray], np.ndarray] | None
    states: Callable[[np.ndarray], dict[str, Any]] | None
    why_no_states: str = ""


def two_planes(observations: np.ndarray) -> np.ndarray:
    """The planes of tictactoe_v3 and connect_four_v3 are those of pgx: stones of the mover, then the opponent's.

    Raises:
        ValueError: not a position in which the one who sees it is to move.
    """
    planes = observations.astype(bool)
    mine, theirs = (planes[..., side].reshape(len(planes), -1) for side in (0, 1))
    behind = theirs.sum(axis=1) - mine.sum(axis=1)
    bad = (mine & theirs).any(axis=1) | ~np.isin(behind, (0, 1))
    if bad.any():
        number = int(np.argmax(bad))
        own, other = int(mine[number].sum()), int(theirs[number].sum())
        raise ValueError(
            f"observation {number} has {own} own and {other} opposing stones: in no position of this game is the "
            "player to move who sees that; give the observation of the agent whose turn it is"
        )
    return planes


def _stones(observations: np.ndarray) -> dict[str, Any]:
    """Fields of a state: ``color`` to move (0 began), and ``board`` with -1, or the color of a cell's stone."""
    planes = two_planes(observations)
    color = (planes.sum(axis=(1, 2, 3)) % 2).astype(np.int32)
    mine, theirs = (planes[..., side].reshape(len(planes), -1) for side in (0, 1))
    board = np.full(mine.shape, -1, np.int32)
    board = np.where(mine, color[:, None], np.where(theirs, 1 - color[:, None], board)).astype(np.int32)
    return {"color": color, "board": board}


def go_planes(observations: np.ndarray) -> np.ndarray:
    """From go_v5's 17 planes to those of pgx.

    Both hold the last 8 boards, two planes each, and whether the mover is white. go_v5 writes each board from the
    side of the player who had just moved, so that sides alternate; in pgx, the first plane of each is the mover's.
    """
    planes = observations.astype(bool).copy()
    for newer in range(0, 16, 4):  # boards that the opponent has just made
        planes[..., [newer, newer + 1]] = planes[..., [newer + 1, newer]]
    return planes


ADAPTERS = {
    "tic_tac_toe": Adapter(
        "tictactoe_v3",
        two_planes,
        lambda seen: ~seen.astype(bool).any(axis=-1).reshape(len(seen), -1),
        _stones,
    ),
    "connect_four": Adapter(
        "connect_four_v3",
        two_planes,
        lambda seen: ~seen.astype(bool).any(axis=-1)[:, 0, :],
        _stones,
    ),
    "go_9x9": Adapter(
        "go_v5", go_planes, None, None, "which boards there were before the last 8 (no board may come again)"
    ),
    "go_19x19": Adapter(
        "go_v5", go_planes, None, None, "which boards there were before the last 8 (no board may come again)"
    ),
}
"""By game of pgx."""


__all__ = ["ADAPTERS", "Adapter", "go_planes", "two_planes"]
