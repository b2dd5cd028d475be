"""Games of a user's own, for tests: they need pettingzoo and gymnasium, nothing of XuanCe."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Turns(ParallelEnv):
    """Each agent sees a number and is paid for saying it; only two numbers are allowed at a time.

    Args:
        leave: the second agent leaves after so many steps; 0: it stays.
        length: steps of an episode.
        endless: whether the length of an episode is kept to itself.
    """

    metadata = {"name": "turns"}  # noqa: RUF012 - as PettingZoo has it

    def __init__(self, leave: int = 0, length: int = 10, endless: bool = False) -> None:
        self.possible_agents = ["left", "right"]
        self.agents: list[str] = []
        self._leave, self._length = leave, length
        if not endless:
            self.max_steps = length

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """What is seen, and what is allowed."""
        return spaces.Dict({
            "observation": spaces.Box(0, 1, (4,), np.float32),
            "action_mask": spaces.Box(0, 1, (4,), np.int8),
        })  # fmt: skip

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """One of four numbers."""
        return spaces.Discrete(4)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next episode."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self._steps = 0
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[Any, ...]:
        """Illegal answers are an error: nobody keeps to a mask by chance."""
        for agent, action in actions.items():
            assert action in (self._numbers[agent], (self._numbers[agent] + 1) % 4), "an illegal action"
        paid = {agent: float(action == self._numbers[agent]) for agent, action in actions.items()}
        self._steps += 1
        over = self._steps >= self._length
        gone = {agent: agent == "right" and self._steps == self._leave for agent in self.agents}
        cut = dict.fromkeys(self.agents, over)
        seen = {agent: each for agent, each in self._see().items() if agent in self.agents}
        self.agents = [] if over else [agent for agent in self.agents if not gone[agent]]
        return seen, paid, gone, cut, {agent: {} for agent in seen}

    def _see(self) -> dict[str, Any]:
        self._numbers = {agent: int(self._random.integers(4)) for agent in self.possible_agents}
        found = {}
        for agent, number in self._numbers.items():
            mask = np.zeros(4, np.int8)
            mask[[number, (number + 1) % 4]] = 1
            found[agent] = {"observation": np.eye(4, dtype=np.float32)[number], "action_mask": mask}
        return found


def turns(**options: Any) -> Turns:
    """The game, as a function of a module."""
    return Turns(**options)


class Corridor(gymnasium.Env[Any, Any]):
    """One agent walks to the right: a Discrete observation, a reward at the end."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        """At the left end."""
        super().reset(seed=seed)
        self._place = 0
        return self._place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """One step to the left or to the right."""
        self._place = max(0, self._place + (1 if action else -1))
        done = self._place == 4
        return self._place, float(done), done, False, {}


def corridor() -> Corridor:
    """The game, as a function of a module."""
    return Corridor()
