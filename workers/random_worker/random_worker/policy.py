"""The baselines as policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from mosaic_cluster.worker import ConfigError, Problem
from random_worker import envs

FORMAT = 1


class BaselinePolicy:
    """Acts without looking: uniformly, or by a script.

    Args:
        game: its name.
        space: the action space.
        script: ``None``: uniformly; else the actions of its turns, over and over. An empty one is the first legal
            action, always.
    """

    def __init__(self, game: str, space: spaces.Space[Any], script: Sequence[Any] | None = None) -> None:
        self.games = (game,)
        self._space = space
        self._script = None if script is None else [_action(space, each) for each in script]
        self._random = np.random.default_rng()
        self._turns: list[int] = []

    def reset(self, seed: int | None = None) -> None:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
            self._space.seed(int(self._random.integers(2**31)))
        self._turns = []

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        del observation
        return self._next(0, action_mask)

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        count = _length(observations)
        masks = [None] * count if action_masks is None else action_masks
        if self._script is None and action_masks is None and isinstance(self._space, spaces.Discrete):
            return self._random.integers(self._space.n, size=count) + self._space.start
        return np.stack([np.asarray(self._next(row, masks[row])) for row in range(count)])

    def _next(self, row: int, mask: Any) -> Any:
        if self._script is None:
            return self._uniform(mask)
        self._turns += [0] * (row + 1 - len(self._turns))
        turn = self._turns[row]
        self._turns[row] += 1
        wanted = self._script[turn % len(self._script)] if self._script else None
        return _first_legal(self._space, mask) if wanted is None or not _legal(self._space, wanted, mask) else wanted

    def _uniform(self, mask: Any) -> Any:
        if not isinstance(self._space, spaces.Discrete):
            return self._space.sample()
        if mask is None:
            return int(self._random.integers(self._space.n) + self._space.start)
        legal = np.flatnonzero(mask)
        if not len(legal):
            raise ValueError("the action mask allows no action")
        return int(legal[self._random.integers(len(legal))] + self._space.start)


def load_policy(
    checkpoint: str,
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    policy: str | None = None,
    script: Sequence[Any] | None = None,
) -> BaselinePolicy:
    """A baseline for any game: the entry point of the group ``mosaic.policies``.

    Args:
        checkpoint: one of this worker's; ``""``: none is needed if a game is given.
        game: what it is to play; default: what the checkpoint's run played.
        agent: as which of the game's agents; default: its first.
        device: no matter.
        policy, script: as in the config, instead of what the checkpoint has.

    Raises:
        ConfigError: there is no such game, agent or checkpoint, or the script does not fit the game.
    """
    del device
    saved = read_checkpoint(Path(checkpoint))["config"] if checkpoint else {}
    name = game or saved.get("env_id")
    if name is None:
        raise ConfigError([Problem("game", "is needed where there is no checkpoint")])
    mine = name == saved.get("env_id")
    api, kwargs = (saved["api"], saved["env_kwargs"]) if mine else ("auto", {})
    environment = envs.make(name, api, kwargs)
    try:
        chosen = agent or environment.agents[0]
        if environment.api == "gymnasium":
            chosen = envs.ONLY_AGENT
        if chosen not in environment.agents:
            known = ", ".join(environment.agents)
            raise ConfigError([Problem("agent", f"{name} has no agent {agent!r}; it has {known}")])
        kind = policy or saved.get("policy", "uniform")
        steps = script if script is not None else saved.get("script", [])
        return BaselinePolicy(name, environment.action_space(chosen), steps if kind == "scripted" else None)
    finally:
        environment.close()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint: ``step``, ``episodes``, ``seed`` and ``config``.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, and this is for {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([Problem("checkpoint", f"{path} is no checkpoint of this worker: {error}")]) from error
    return dict(found)


def _length(observations: Any) -> int:
    """Environments in a batch, of arrays or of dicts and tuples of them."""
    while isinstance(observations, (dict, tuple)):
        observations = next(iter(observations.values() if isinstance(observations, dict) else observations))
    return len(observations)


def _action(space: spaces.Space[Any], value: Any) -> Any:
    """An item of a script as an action."""
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        value = np.asarray(value, dtype=space.dtype)
    elif isinstance(space, spaces.Discrete) and isinstance(value, (int, float)) and int(value) == value:
        value = int(value)
    if not space.contains(value):
        raise ConfigError([Problem("script", f"{value!r} is no action of {space}")])
    return value


def _legal(space: spaces.Space[Any], action: Any, mask: Any) -> bool:
    return mask is None or not isinstance(space, spaces.Discrete) or bool(mask[action - int(space.start)])


def _first_legal(space: spaces.Space[Any], mask: Any) -> Any:
    """The smallest action that is legal; of continuous ones zero, or what is next to it."""
    if isinstance(space, spaces.Discrete):
        legal = np.flatnonzero(mask) if mask is not None else np.zeros(1, int)
        if not len(legal):
            raise ValueError("the action mask allows no action")
        return int(legal[0] + space.start)
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        return np.zeros(space.shape, space.dtype)
    raise ConfigError([Problem("policy", f"there is no first action of {space}: use uniform")])


__all__ = ["BaselinePolicy", "load_policy", "read_checkpoint"]
