"""A planner for BabyAI that knows only what the conversation says.

From the turns that the prompt still shows it draws a map, by dead reckoning: each turn tells what was seen and what was
done then, and a step forward succeeds exactly when the cell ahead was free. On the map it searches the shortest way
to a cell that faces what the mission wants; while that is out of sight, the way to where most is unknown.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Cell = tuple[int, int]
Pose = tuple[int, int, int]
"""Column, row, and quarter turns to the right; the map begins at (0, 0, 0), looking towards smaller rows."""

AHEAD: tuple[Cell, ...] = ((0, -1), (1, 0), (0, 1), (-1, 0))
SIGHT, ASIDE = 6, 3
"""Cells that are seen ahead and to each side."""

_MISSION = re.compile(
    r"Your mission: (go to|pick up|open) (?:the|a|an) (?:(\w+) )?(ball|box|key|door|object)\b([^.,]*)\."
)
_THING = re.compile(r"^- (?:(open|closed|locked) )?(\w+) (ball|box|key|door|goal|lava): (.*)$", re.MULTILINE)
_STEPS = re.compile(r"(\d+) steps? (ahead|to the left|to the right)")
_WALL = re.compile(r"Nearest wall: (.*)\.")
_FRONT = re.compile(r"One step ahead: (.*)\.")


@dataclass
class _Map:
    """What is known of the cells.

    Attributes:
        things: kind, colour and state of objects.
        walls: cells known to be walls.
        seen: cells that were looked at.
    """

    things: dict[Cell, tuple[str, str, str]] = field(default_factory=dict)
    walls: set[Cell] = field(default_factory=set)
    seen: set[Cell] = field(default_factory=set)

    def free(self, cell: Cell) -> bool:
        """Whether one can step there, as far as known."""
        if cell in self.walls or cell not in self.seen:
            return False
        kind, _, state = self.things.get(cell, ("", "", ""))
        return not kind or state == "open" or kind == "goal"


def plan_babyai(messages: Sequence[tuple[str, str]]) -> str | None:
    """The next action.

    Args:
        messages: role and text of each.

    Returns:
        an action's name; ``None`` where this is no mission that it knows.
    """
    mission = _MISSION.search(messages[-1][1])
    if mission is None:
        return None
    deed, colour, kind, _ = mission.groups()
    pose, known = _reckon(messages)
    wanted = [
        cell
        for cell, (each, its, _) in known.things.items()
        if kind in (each, "object") and (colour is None or its == colour)
    ]
    if wanted:
        way = _search(pose, known, lambda at: _before(at) in wanted)
        if way is not None:
            return way[0] if way else {"go to": "go forward", "pick up": "pick up", "open": "toggle"}[deed]
    way = _search(pose, known, lambda at: _news(at, known) > 0)
    if way:
        return way[0]
    front = known.things.get(_before(pose))
    if front is not None and front[0] == "door" and front[2] == "closed":
        return "toggle"
    door = _search(pose, known, lambda at: known.things.get(_before(at), ("", "", ""))[::2] == ("door", "closed"))
    return door[0] if door else "turn right"


def _reckon(messages: Sequence[tuple[str, str]]) -> tuple[Pose, _Map]:
    """Where the agent is now, and what it has seen in the turns that are shown."""
    known = _Map()
    x, y, turns = 0, 0, 0
    last = ""
    for role, text in messages[1:]:
        if role == "user" and "Your mission:" in text:
            last = text
            _look(known, (x, y, turns), text)
        elif role == "assistant" and last:
            action = _action(text)
            if action == "turn right":
                turns = (turns + 1) % 4
            elif action == "turn left":
                turns = (turns - 1) % 4
            elif action == "go forward" and _passable(last):
                x, y = x + AHEAD[turns][0], y + AHEAD[turns][1]
    return (x, y, turns), known


def _action(text: str) -> str:
    """Of an answer in any of the agents' forms."""
    tagged = re.search(r"<action>(.*?)</action>", text)
    return tagged.group(1).strip() if tagged else text.rsplit("Action:", 1)[-1].strip()


def _passable(text: str) -> bool:
    front = _FRONT.search(text)
    return front is not None and (front.group(1) == "free floor" or front.group(1).startswith(("a open", "an open")))


def _look(known: _Map, pose: Pose, text: str) -> None:
    """Add what one turn says."""
    limits = {"ahead": SIGHT, "to the left": ASIDE, "to the right": ASIDE}
    walls = _WALL.search(text)
    for number, where in _STEPS.findall(walls.group(1) if walls else ""):
        limits[where] = int(number)
        side = {"ahead": 0, "to the left": -int(number), "to the right": int(number)}[where]
        known.walls.add(_cell(pose, int(number) if where == "ahead" else 0, side))
    for ahead in range(limits["ahead"] + 1):
        for side in range(-limits["to the left"], limits["to the right"] + 1):
            cell = _cell(pose, ahead, side)
            known.seen.add(cell)
            known.things.pop(cell, None)  # told again below if it is still there
            if ahead == limits["ahead"] < SIGHT or side in (-limits["to the left"], limits["to the right"]):
                _edge(known, cell, walls.group(1) if walls else "", ahead, side, limits)
    for state, colour, kind, place in _THING.findall(text):
        steps = {where: int(number) for number, where in _STEPS.findall(place)}
        side = steps.get("to the right", 0) - steps.get("to the left", 0)
        cell = _cell(pose, steps.get("ahead", 0), side)
        known.things[cell] = (kind, colour, state)
        known.seen.add(cell)
        known.walls.discard(cell)


def _edge(known: _Map, cell: Cell, told: str, ahead: int, side: int, limits: dict[str, int]) -> None:
    """A wall that is told for one cell goes on along the room: rooms are rectangles."""
    if ahead == limits["ahead"] and f"{_steps(ahead)} ahead" in told:
        known.walls.add(cell)
    if side and abs(side) == limits["to the left" if side < 0 else "to the right"]:
        where = "to the left" if side < 0 else "to the right"
        if f"{_steps(abs(side))} {where}" in told:
            known.walls.add(cell)


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _cell(pose: Pose, ahead: int, side: int) -> Cell:
    (ax, ay), (sx, sy) = AHEAD[pose[2]], AHEAD[(pose[2] + 1) % 4]
    return (pose[0] + ahead * ax + side * sx, pose[1] + ahead * ay + side * sy)


def _before(pose: Pose) -> Cell:
    return _cell(pose, 1, 0)


def _news(pose: Pose, known: _Map) -> int:
    """Cells that would be seen for the first time from a pose, as far as known walls let one see."""
    ahead = _reach(pose, known, SIGHT, (1, 0))
    left, right = _reach(pose, known, ASIDE, (0, -1)), _reach(pose, known, ASIDE, (0, 1))
    cells = (_cell(pose, far, side) for far in range(ahead + 1) for side in range(-left, right + 1))
    return sum(cell not in known.seen for cell in cells)


def _reach(pose: Pose, known: _Map, most: int, way: Cell) -> int:
    """Cells to the last one before a wall."""
    for number in range(1, most + 1):
        if _cell(pose, number * way[0], number * way[1]) in known.walls:
            return number - 1
    return most


def _search(pose: Pose, known: _Map, good: Callable[[Pose], bool]) -> list[str] | None:
    """Actions of a shortest way to a pose that is good; empty: this one is; ``None``: there is none."""
    waiting: deque[tuple[Pose, list[str]]] = deque([(pose, [])])
    been = {pose}
    while waiting:
        here, way = waiting.popleft()
        if good(here):
            return way
        x, y, turns = here
        moves = [("turn left", (x, y, (turns - 1) % 4)), ("turn right", (x, y, (turns + 1) % 4))]
        if known.free(_before(here)):
            moves.insert(0, ("go forward", (*_before(here), turns)))
        for action, there in moves:
            if there not in been:
                been.add(there)
                waiting.append((there, [*way, action]))
    return None


__all__ = ["plan_babyai"]
