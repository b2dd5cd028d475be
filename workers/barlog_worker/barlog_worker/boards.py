"""Board games as text: from PettingZoo's observation to a prompt.

Both games' observations are two planes: the stones of who is to move, then the other's. The one who is to move is
always X here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from barlog_worker.endpoint import Message


@dataclass(frozen=True)
class Board:
    """A game that can be told.

    Attributes:
        shape: of an observation.
        moves: number of actions.
        rules: for the prompt.
        render: from an observation to lines.
    """

    shape: tuple[int, ...]
    moves: int
    rules: str
    render: Callable[[Any], str]


def tictactoe(observation: Any) -> str:
    """Nine cells; an empty one shows the number of the move that takes it.

    PettingZoo numbers cells along the first axis last: action ``3 * i + j`` is ``observation[i][j]``, which it draws
    as column ``i`` and row ``j``. So it is drawn here.
    """
    rows: list[str] = []
    for row in range(3):
        cells = [_cell(observation[column][row], str(3 * column + row)) for column in range(3)]
        rows.append(" " + " | ".join(cells))
    return "\n---+---+---\n".join(rows)


def connect_four(observation: Any) -> str:
    """Six rows, the top one first, above the numbers of the columns."""
    lines = [" ".join(_cell(observation[row][column], ".") for column in range(7)) for row in range(6)]
    return "\n".join([*lines, " ".join(str(column) for column in range(7))])


BOARDS: dict[str, Board] = {
    "tictactoe_v3": Board(
        (3, 3, 2),
        9,
        "You play tic-tac-toe. You are X, your opponent is O; it is your turn. Three of one's own in a row, in a "
        "column or on a diagonal win. An empty cell shows its number: your move is the number of an empty cell.",
        tictactoe,
    ),
    "connect_four_v3": Board(
        (6, 7, 2),
        7,
        "You play connect four. You are X, your opponent is O; it is your turn. A stone falls to the lowest free "
        "place of its column; four of one's own in line, across, down or on a diagonal, win. Your move is the number "
        "of a column that is not full, as below the board.",
        connect_four,
    ),
}
_FORMS = {
    "naive": "Answer with the number of your move and nothing else.",
    "cot": "Think first, briefly. Then end your answer with a line of its own:\nAction: <number>",
    "robust_naive": "Answer in exactly this form, and nothing else:\n<action>number</action>",
    "robust_cot": "Answer in exactly this form:\n<thought>what you see, what follows</thought>\n"
    "<action>number</action>",
}


def conversation(board: Board, observation: Any, legal: Sequence[int], agent: str) -> list[Message]:
    """What a model is asked: rules, then the position."""
    system = f"{board.rules}\n\n{_FORMS.get(agent, _FORMS['naive'])}"
    moves = ", ".join(map(str, legal))
    user = f"{board.render(observation)}\n\nLegal moves: {moves}.\nYour move:"
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _cell(planes: Any, empty: str) -> str:
    return "X" if planes[0] else "O" if planes[1] else empty


__all__ = ["BOARDS", "Board", "connect_four", "conversation", "tictactoe"]
