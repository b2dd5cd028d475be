"""TextWorld: text adventures, made anew for each episode by TextWorld's own generators (those of ``tw-make``)."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import textworld
from textworld.challenges import CHALLENGES
from textworld.generator import compile_game
from textworld.generator.inform7 import world2inform7

from barlog_worker.config import BarlogConfig
from barlog_worker.worlds.base import Action, Demonstration, Observation, Step

MAX_STEPS = 80

_LINE_ART = re.compile(r"^[\s$|\\/_>]*$")

_COOKING: dict[int, dict[str, Any]] = {
    1: {"recipe": 1, "take": 1, "go": 1},
    2: {"recipe": 1, "take": 1, "go": 1, "open": True, "cook": True},
    3: {"recipe": 2, "take": 2, "go": 6, "open": True, "cook": True, "cut": True},
    4: {"recipe": 3, "take": 3, "go": 9, "open": True, "cook": True, "cut": True},
    5: {"recipe": 3, "take": 3, "go": 12, "open": True, "cook": True, "cut": True, "drop": True},
}
"""Settings of the cooking game by level."""

GOALS = {
    "treasure_hunter": "You are in a house of several rooms. Find and take the one object that your task names.",
    "cooking": "You are hungry. Find the cookbook in the kitchen and read it, gather the ingredients, prepare them as "
    "it says (cutting needs a knife; burnt or wrongly prepared food is lost), prepare the meal, and eat it.",
    "coin_collector": "You are in a house of several rooms. Find the coin and take it.",
}
_INSTRUCTION = """You play a text adventure, by short commands such as: look, inventory, go north, open fridge,
take key from table, examine cookbook, drop key, cook apple with stove, chop carrot with knife, prepare meal, eat meal.
{goal} What counts is the score of the game. A game that is lost cannot be taken back."""


class TextWorld:
    """Games of three kinds; each episode's is made for its seed, in ``<folder>/textworld``."""

    has_images = False

    def __init__(self, config: BarlogConfig, folder: Path) -> None:
        self.version = f"textworld {version('textworld')}"
        self._folder = folder / "textworld"
        self._level = config.textworld_level
        self._tell = config.textworld_commands
        self._lock = threading.RLock()  # the generators share state, and so does the parser of games

    def make(self, task: str, seed: int, *, vision: bool = False) -> TextWorldGame:
        """A game."""
        with self._lock:
            return TextWorldGame(self._game(task, seed), task, self._tell, self._lock)

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        """The walkthrough that the generator knows."""
        with self._lock:
            game = self.make(task, seed)
            try:
                observation = game.reset()
                turns: list[tuple[str, str]] = []
                for command in game.walkthrough():
                    turns.append((observation.text, command))
                    observation = game.step(command).observation
                won = game.progression() == 100.0
            finally:
                game.close()
        return Demonstration(task, tuple(turns)) if won else None

    def _game(self, task: str, seed: int) -> Path:
        """The file of a game; made if it is not there yet."""
        path = self._folder / f"{task}-{self._level}-{seed}.z8"
        if path.exists() and path.with_suffix(".json").exists():
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        options = textworld.GameOptions()
        options.seeds = seed
        # Else the game's first words give away the whole way to the goal.
        options.grammar.only_last_action = True
        part = self._folder / f"part-{task}-{self._level}-{seed}.z8"
        options.path, options.force_recompile = str(part), True
        _, make, _ = CHALLENGES[f"tw-{task}"]
        with _home(self._folder / "home"):
            # Two of the three compile while they make, too: they try the walkthrough in the game itself.
            compile_game(make(self._settings(task, seed), options), options)
        for suffix in (".json", ".z8"):  # the game itself last: it is there only when all of it is
            os.replace(part.with_suffix(suffix), path.with_suffix(suffix))
        part.with_suffix(".ni").unlink(missing_ok=True)
        return path

    def _settings(self, task: str, seed: int) -> dict[str, Any]:
        if task != "cooking":
            return {"level": self._level}
        found = {"open": False, "cook": False, "cut": False, "drop": False, "split": None, "recipe_seed": seed}
        return {**found, **_COOKING[min(self._level, max(_COOKING))]}


class _AtHome:
    """``subprocess``, for processes whose home is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def check_output(self, *args: Any, **options: Any) -> Any:
        return subprocess.check_output(*args, env={**os.environ, "HOME": str(self._folder)}, **options)


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Inform, the compiler, puts 32 files into the home folder; ``os.environ`` alone does not reach it everywhere."""
    before = world2inform7.subprocess
    folder.mkdir(parents=True, exist_ok=True)
    world2inform7.subprocess = _AtHome(folder)
    try:
        yield
    finally:
        world2inform7.subprocess = before
        shutil.rmtree(folder, ignore_errors=True)


class TextWorldGame:
    """One game."""

    actions: tuple[Action, ...] = ()
    keys = ()
    fallback = "look"
    max_steps = MAX_STEPS

    def __init__(self, path: Path, task: str, tell: bool, lock: Any) -> None:
        wanted = textworld.EnvInfos(
            admissible_commands=True, score=True, max_score=True, won=True, lost=True, extras=["walkthrough"]
        )
        self._lock = lock
        self._env = textworld.start(str(path), request_infos=wanted)
        self._tell = tell
        self._state: Any = None
        self._score = 0
        self.instruction = _INSTRUCTION.format(goal=GOALS[task])

    def reset(self) -> Observation:
        """Begin."""
        with self._lock:
            self._state = self._env.reset()
        self._score = int(self._state.score or 0)
        return self._observe()

    def step(self, action: str) -> Step:
        """Do something; the reward is what it adds to the score."""
        with self._lock:
            self._state, _, done = self._env.step(action)
        score = int(self._state.score or 0)
        gained, self._score = score - self._score, score
        return Step(self._observe(), float(gained), bool(done or self._state.won or self._state.lost))

    def progression(self) -> float:
        """Share of the highest score."""
        return 100.0 * max(0, self._score) / max(1, int(self._state.max_score or 1))

    def details(self) -> dict[str, Any]:
        """Score, and whether it was won or lost."""
        state = self._state
        return {
            "score": self._score,
            "max_score": int(state.max_score or 0),
            "won": bool(state.won),
            "lost": bool(state.lost),
        }

    def draw(self, rng: random.Random, observation: Observation) -> str:
        """One of the possible commands."""
        return rng.choice(list(observation.possible) or ["look"])

    def walkthrough(self) -> list[str]:
        """Commands that win it from the start."""
        return list(self._state.get("extra.walkthrough") or [])

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._env.close()

    def _observe(self) -> Observation:
        state = self._state
        possible = sorted(state.admissible_commands or [])
        text = f"{tidy(state.feedback)}\nScore: {self._now()} of {state.max_score}."
        if self._tell and possible:
            text += "\nPossible commands:\n" + "\n".join(f"- {command}" for command in possible)
        return Observation(text, possible=possible)

    def _now(self) -> int:
        return int(self._state.score or 0)


def tidy(feedback: str | None) -> str:
    """What the game says, without its title picture, its prompt, its status line and empty lines."""
    text = re.sub(r"\n>[^\n]*\Z", "", (feedback or "").rstrip())
    lines = [line.strip() for line in text.splitlines() if not _LINE_ART.match(line)]
    return "\n".join(line for line in lines if line and line != ">")


__all__ = ["TextWorld", "TextWorldGame", "tidy"]
