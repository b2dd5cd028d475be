"""What a world is: it makes games; a game is played with words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Action:
    """Something that can be done.

    Attributes:
        name: what the model answers.
        meaning: a few words for the prompt; empty where the name says it all.
    """

    name: str
    meaning: str = ""


@dataclass(frozen=True)
class Observation:
    """What is perceived.

    Attributes:
        text: for the prompt.
        image: of shape (height, width, 3), bytes, where the game has pictures and was asked for them.
        possible: commands that are possible now, where actions are free text.
    """

    text: str
    image: Any | None = None
    possible: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """What came of an action.

    Attributes:
        reward: the world's own.
        terminated: the game is over.
        truncated: the world's own time limit ended it.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool = False


@dataclass(frozen=True)
class Demonstration:
    """A good episode of a task.

    Attributes:
        turns: pairs of what was perceived and what was done then.
    """

    task: str
    turns: Sequence[tuple[str, str]] = field(default_factory=tuple)


class Game(Protocol):
    """One episode of a task. Not thread-safe; several games are played in several threads.

    Attributes:
        instruction: what the game is about and what counts, for the prompt.
        actions: all that the prompt names; empty: actions are free text.
        keys: further ones that the prompt does not list one by one.
        fallback: what is done where an answer names no action.
        max_steps: the world's own limit; known after :meth:`reset`.
    """

    instruction: str
    actions: Sequence[Action]
    keys: Sequence[str]
    fallback: str
    max_steps: int

    def reset(self) -> Observation:
        """Begin. The game was made for one seed: it begins the same every time."""
        ...

    def step(self, action: str) -> Step:
        """Do something.

        Args:
            action: a name among ``actions`` or ``keys``, or free text.
        """
        ...

    def progression(self) -> float:
        """How far it has come, in percent: 0 to 100."""
        ...

    def details(self) -> Mapping[str, Any]:
        """What else is worth knowing of the episode; plain JSON values."""
        ...

    def draw(self, rng: random.Random, observation: Observation) -> str:
        """An action, uniformly among those possible."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class World(Protocol):
    """Makes games. Thread-safe.

    Attributes:
        has_images: whether observations can have pictures.
        version: of the library behind it.
    """

    has_images: bool
    version: str

    def make(self, task: str, seed: int, *, vision: bool = False) -> Game:
        """A game of a task: same seed, same game."""
        ...

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        """A good episode, played by what the library has for that; ``None`` where it has nothing."""
        ...


def list_actions(actions: Sequence[Action]) -> str:
    """One line for each, for a prompt."""
    lines: list[str] = [
        f"- {action.name}: {action.meaning}" if action.meaning else f"- {action.name}" for action in actions
    ]
    return "\n".join(lines)


__all__ = ["Action", "Demonstration", "Game", "Observation", "Step", "World", "list_actions"]
