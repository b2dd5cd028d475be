"""BabyAI: small rooms, and a mission in words. What the agent sees is told from its own point of view.

The levels are minigrid's, unchanged. The text holds what minigrid's partial view (7 by 7 cells, the agent at the
middle of the near edge, looking up) shows, and nothing else.
"""

from __future__ import annotations

import random
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers the levels

from barlog_worker.config import BarlogConfig
from barlog_worker.worlds.base import Action, Demonstration, Observation, Step
from mosaic_cluster.worker import ConfigError, Problem

ACTIONS = (
    Action("turn left", "a quarter turn"),
    Action("turn right", "a quarter turn"),
    Action("go forward", "one step, if nothing is in the way"),
    Action("pick up", "the object one step ahead; only with empty hands"),
    Action("drop", "what you carry, onto the free floor one step ahead"),
    Action("toggle", "open or close the door or box one step ahead; a locked door needs the key of its colour"),
)
"""In the order of minigrid's numbers."""

FACING = ("east", "south", "west", "north")
_STATES = ("open", "closed", "locked")
_OBJECTS = ("key", "ball", "box", "door", "goal", "lava")
_TILE = 32
"""Pixels of a cell in a picture."""

INSTRUCTION = """You are in a world of rooms on a grid, and have a mission. You see only what lies ahead of you, up to 6
steps ahead and 3 steps to each side; walls and closed doors hide what is behind them. Places are told as steps from
where you stand, as you face now. Objects are in the way: you go around them. To be at an object means to stand right
before it and to face it: it is then 1 step ahead. To put one object next to another, drop it on a cell beside the
other one."""


class BabyAI:
    """Levels of BabyAI."""

    has_images = True

    def __init__(self, config: BarlogConfig, folder: Path) -> None:
        self.version = f"minigrid {version('minigrid')}"
        self._lock = threading.Lock()
        known = sorted(name for name in gymnasium.registry if name.startswith("BabyAI-"))
        unknown = [
            Problem(f"babyai_tasks[{number}]", f"{self.version} has no {task}; it has {', '.join(known)}")
            for number, task in enumerate(config.babyai_tasks)
            if task not in known
        ]
        if unknown:
            raise ConfigError(unknown)

    def make(self, task: str, seed: int, *, vision: bool = False) -> BabyAIGame:
        """A level."""
        with self._lock:
            return BabyAIGame(gymnasium.make(task), seed, vision)

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        """Played by minigrid's bot; the first of ten seeds in which it succeeds."""
        for attempt in range(10):
            turns = self._shown(task, (seed + attempt) % 2**31)
            if turns is not None:
                return Demonstration(task, tuple(turns))
        return None

    def _shown(self, task: str, seed: int) -> list[tuple[str, str]] | None:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        game = self.make(task, seed)
        try:
            observation = game.reset()
            bot = BabyAIBot(game.env)
            turns = []
            for _ in range(game.max_steps):
                number = int(bot.replan())
                if number >= len(ACTIONS):
                    break
                action = ACTIONS[number].name
                turns.append((observation.text, action))
                step = game.step(action)
                observation = step.observation
                if step.terminated or step.truncated:
                    break
        except Exception:  # noqa: BLE001 - the bot gives up on some layouts in many ways; another seed will do
            return None
        finally:
            game.close()
        return turns if game.progression() == 100.0 else None


class BabyAIGame:
    """One level."""

    actions = ACTIONS
    keys = ()
    fallback = "go forward"
    instruction = INSTRUCTION

    def __init__(self, env: Any, seed: int, vision: bool) -> None:
        self.env = env
        self.max_steps = 1
        self._seed = seed
        self._vision = vision
        self._mission = ""
        self._success = False

    def reset(self) -> Observation:
        """Begin."""
        seen, _ = self.env.reset(seed=self._seed)
        self._mission = str(seen["mission"])
        self.max_steps = int(self.env.unwrapped.max_steps)
        return self._observe()

    def step(self, action: str) -> Step:
        """Do something."""
        number = next(n for n, each in enumerate(ACTIONS) if each.name == action)
        _, reward, terminated, truncated, _ = self.env.step(number)
        self._success = self._success or float(reward) > 0
        return Step(self._observe(), float(reward), bool(terminated), bool(truncated))

    def progression(self) -> float:
        """100 for a mission that is accomplished, else 0."""
        return 100.0 if self._success else 0.0

    def details(self) -> dict[str, Any]:
        """The mission, and whether it was accomplished."""
        return {"mission": self._mission, "success": self._success}

    def draw(self, rng: random.Random, observation: Observation) -> str:
        """One of the six."""
        return rng.choice(ACTIONS).name

    def close(self) -> None:
        """Let go of everything."""
        self.env.close()

    def _observe(self) -> Observation:
        env = self.env.unwrapped
        image = env.get_frame(highlight=True, tile_size=_TILE, agent_pov=True) if self._vision else None
        return Observation(f"Your mission: {self._mission}.\n{describe(env)}", image)


def describe(env: Any) -> str:
    """What the agent of a minigrid environment sees, carries and faces."""
    grid, seen = env.gen_obs_grid()
    here, near = grid.width // 2, grid.height - 1
    things = []
    for ahead in range(grid.height):
        for side in sorted(range(-here, here + 1), key=abs):
            column, row = here + side, near - ahead
            cell = grid.get(column, row)
            if (ahead, side) != (0, 0) and seen[column, row] and cell is not None and cell.type in _OBJECTS:
                things.append(f"- {_thing(cell)}: {_place(ahead, side)}")
    walls = []
    for words, (across, along) in (("ahead", (0, -1)), ("to the left", (-1, 0)), ("to the right", (1, 0))):
        distance = _wall(grid, seen, here, near, across, along)
        walls.append(f"{_steps(distance)} {words}" if distance else f"none in sight {words}")
    lines = [
        f"You face {FACING[env.agent_dir]}. One step ahead: {_front(grid, here, near)}.",
        "You see:" if things else "You see no objects.",
        *things,
        f"Nearest wall: {', '.join(walls)}.",
        f"You carry {'a ' + _thing(env.carrying) if env.carrying else 'nothing'}.",
    ]
    return "\n".join(lines)


def _front(grid: Any, here: int, near: int) -> str:
    cell = grid.get(here, near - 1)
    if cell is None or cell.type == "floor":
        return "free floor"
    return "a wall" if cell.type == "wall" else f"a {_thing(cell)}"


def _thing(cell: Any) -> str:
    if cell.type == "door":
        state = 0 if cell.is_open else 2 if cell.is_locked else 1
        return f"{_STATES[state]} {cell.color} door"
    return f"{cell.color} {cell.type}"


def _place(ahead: int, side: int) -> str:
    words = [f"{_steps(ahead)} ahead"] if ahead else []
    if side:
        words.append(f"{_steps(abs(side))} to the {'left' if side < 0 else 'right'}")
    return ", ".join(words)


def _wall(grid: Any, seen: Any, column: int, row: int, across: int, along: int) -> int:
    """Steps to the first wall that is seen in a direction; 0: none."""
    distance = 0
    while True:
        column, row, distance = column + across, row + along, distance + 1
        if not (0 <= column < grid.width and 0 <= row < grid.height and seen[column, row]):
            return 0
        cell = grid.get(column, row)
        if cell is not None and cell.type == "wall":
            return distance


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


__all__ = ["ACTIONS", "BabyAI", "BabyAIGame", "describe"]
