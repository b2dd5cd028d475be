"""Crafter: an open world of gathering, building and staying alive, told as a list of what is near."""

from __future__ import annotations

import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import crafter
import numpy as np

from barlog_worker.config import BarlogConfig
from barlog_worker.worlds.base import Action, Demonstration, Observation, Step

MAX_STEPS = 2000
PICTURE = 288
"""Pixels, height and width: 32 for a cell."""

ACTIONS = (
    Action("do nothing"),
    Action("move left", "or turn left, where the way is blocked"),
    Action("move right", "or turn right, where the way is blocked"),
    Action("move up", "or turn up, where the way is blocked"),
    Action("move down", "or turn down, where the way is blocked"),
    Action("interact", "with what you face: gather it, drink, eat, or hit it"),
    Action("sleep", "until your energy is back; dangerous in the open"),
    Action("place stone", "before you; needs 1 stone"),
    Action("place table", "before you; needs wood"),
    Action("place furnace", "before you; needs stone and a table nearby"),
    Action("place plant", "before you on grass; needs a sapling"),
    Action("make wood pickaxe", "needs wood and a table nearby"),
    Action("make stone pickaxe", "needs wood, stone and a table nearby"),
    Action("make iron pickaxe", "needs wood, coal, iron, and a table and a furnace nearby"),
    Action("make wood sword", "needs wood and a table nearby"),
    Action("make stone sword", "needs wood, stone and a table nearby"),
    Action("make iron sword", "needs wood, coal, iron, and a table and a furnace nearby"),
)
"""In the order of Crafter's numbers."""

_VITALS = ("health", "food", "drink", "energy")
_GROUND = ("grass", "sand", "path")
"""What one walks on; told only where it is under the agent or right before it."""


class Crafter:
    """The open world; there is one task, ``default``."""

    has_images = True

    def __init__(self, config: BarlogConfig, folder: Path) -> None:
        self.version = f"crafter {version('crafter')}"

    def make(self, task: str, seed: int, *, vision: bool = False) -> CrafterGame:
        """A world of its own."""
        return CrafterGame(seed, vision)

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        """Nothing plays Crafter well by itself."""
        return None


class _Env(crafter.Env):  # type: ignore[misc]
    """Crafter, repeatable."""

    pictures = False

    def _obs(self) -> Any:
        # The noise of the night is drawn from the world's own generator: without this, a world would go on
        # differently for who looks at it, and at what size.
        if not self.pictures:
            return None
        state = self._world.random.get_state()
        image = self.render()
        self._world.random.set_state(state)
        return image

    # Creatures are kept in sets, and drawn from them in the order of memory addresses.
    def _balance_chunk(self, chunk: Any, objs: Any) -> None:
        super()._balance_chunk(chunk, sorted(objs, key=lambda each: (tuple(each.pos), type(each).__name__)))


class CrafterGame:
    """One life."""

    actions = ACTIONS
    keys = ()
    fallback = "do nothing"
    max_steps = MAX_STEPS

    def __init__(self, seed: int, vision: bool) -> None:
        self._env = _Env(size=(PICTURE, PICTURE), length=None, seed=seed)
        self._env.pictures = vision
        self._vision = vision
        names = ", ".join(name.replace("_", " ") for name in self._achievements())
        self.instruction = (
            "You live in an open world, seen from above on a grid: gather, build, eat, drink, sleep, and stay alive. "
            "Your energy, food and drink go down with time, and at 0 they cost health; at night zombies come. "
            f"What counts is how many different ones of these you achieve: {names}. "
            "Places are told as steps from where you stand; you act on what you face, one step before you."
        )

    def reset(self) -> Observation:
        """Begin."""
        return self._observe(self._env.reset())

    def step(self, action: str) -> Step:
        """Do something."""
        number = next(n for n, each in enumerate(ACTIONS) if each.name == action)
        image, reward, done, _ = self._env.step(number)
        return Step(self._observe(image), float(reward), bool(done))

    def progression(self) -> float:
        """Share of the 22 achievements."""
        return 100.0 * len(self._unlocked()) / len(self._achievements())

    def details(self) -> dict[str, Any]:
        """Which achievements."""
        return {"achievements": self._unlocked()}

    def draw(self, rng: random.Random, observation: Observation) -> str:
        """One of the seventeen."""
        return rng.choice(ACTIONS).name

    def close(self) -> None:
        """Nothing to let go of."""

    def _achievements(self) -> list[str]:
        return sorted(crafter.constants.achievements)

    def _unlocked(self) -> list[str]:
        counts = self._env._player.achievements
        return sorted(name for name, count in counts.items() if count > 0)

    def _observe(self, image: Any) -> Observation:
        return Observation(describe(self._env), np.ascontiguousarray(image) if self._vision else None)


def describe(env: Any) -> str:
    """What the player of a Crafter environment sees, faces and has."""
    world, player = env._world, env._player
    lines = []
    if player.sleeping:
        lines.append("You are asleep.")
    elif world.daylight < 0.4:
        lines.append("It is night.")
    ground, _ = world[tuple(player.pos)]
    lines.append(
        f"You stand on {ground}, facing {_direction(player.facing)}: {_at(world, player.pos + player.facing)}."
    )
    seen = _seen(world, player, env._local_view._grid)
    lines.append("You see, the nearest of each kind:" if seen else "You see nothing but the ground.")
    lines += [
        f"- {kind}: {_place(dx, dy)}" + (f" ({number} in sight)" if number > 1 else "")
        for kind, (dx, dy), number in seen
    ]
    vitals = ", ".join(f"{name} {player.inventory[name]}" for name in _VITALS)
    lines.append(f"Out of 9 you have: {vitals}.")
    things = [
        f"{count} {name.replace('_', ' ')}" for name, count in player.inventory.items() if count and name not in _VITALS
    ]
    lines.append(f"You carry: {', '.join(things) if things else 'nothing'}.")
    done = sorted(name.replace("_", " ") for name, count in player.achievements.items() if count > 0)
    lines.append(f"Achieved so far: {', '.join(done) if done else 'nothing'}.")
    return "\n".join(lines)


_Seen = list[tuple[str, tuple[int, int], int]]


def _seen(world: Any, player: Any, view: Any) -> _Seen:
    """Kinds of things in view, nearest first: where the nearest is, and how many there are."""
    found: dict[str, list[tuple[int, int]]] = {}
    wide, high = int(view[0]) // 2, int(view[1]) // 2
    for dx in range(-wide, wide + 1):
        for dy in range(-high, high + 1):
            if (dx, dy) == (0, 0):
                continue
            material, thing = world[tuple(player.pos + np.array((dx, dy)))]
            kind = _named(thing) if thing is not None else material
            if kind is not None and kind not in _GROUND:
                found.setdefault(kind, []).append((dx, dy))
    seen = [
        (kind, min(places, key=lambda each: (abs(each[0]) + abs(each[1]), each)), len(places))
        for kind, places in found.items()
    ]
    return sorted(seen, key=lambda each: (abs(each[1][0]) + abs(each[1][1]), each[0]))


def _named(thing: Any) -> str:
    name = type(thing).__name__.lower()
    if name == "plant":
        return "ripe plant" if thing.ripe else "young plant"
    return name


def _at(world: Any, pos: Any) -> str:
    material, thing = world[tuple(pos)]
    if thing is not None:
        return _named(thing)
    return str(material) if material else "the end of the world"


def _direction(facing: Any) -> str:
    return {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}[tuple(int(each) for each in facing)]


def _place(dx: int, dy: int) -> str:
    words = []
    for number, less, more in ((dx, "left", "right"), (dy, "up", "down")):
        if number:
            words.append(f"{abs(number)} {less if number < 0 else more}")
    return ", ".join(words)


__all__ = ["ACTIONS", "Crafter", "CrafterGame", "describe"]
