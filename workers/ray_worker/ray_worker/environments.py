"""Games, as RLlib is given them: every observation one Box, action masks in front.

An observation with a mask becomes ``[mask, observation]`` in one vector: so any connector, buffer and encoder takes it,
and :mod:`ray_worker.modules` finds the mask again. Images stay images; anything else is flattened.

Nothing of mosaic_cluster is imported here: env runners use it on whatever node they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from ray.rllib.env.multi_agent_env import MultiAgentEnv

FAMILIES = ("pettingzoo.classic", "pettingzoo.butterfly", "pettingzoo.sisl", "mpe2", "pettingzoo.mpe")
"""Where PettingZoo's games are looked for."""


class UnknownGame(ValueError):
    """No such game is installed here, or it cannot be made as wanted."""


class Encoder:
    """Turns canonical observations of one agent into what the networks take.

    Args:
        space: PettingZoo's or Gymnasium's observation space.

    Attributes:
        space: what comes out: a Box.
        masked: number of actions, if observations bring a mask; else 0.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.masked = 0
        if isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", "action_mask"}:
            self.masked = int(np.prod(space["action_mask"].shape))
            space = space["observation"]
        self._inner = space
        self._image = isinstance(space, spaces.Box) and len(space.shape) == 3 and not self.masked
        if self._image:
            self.space: spaces.Box = space
            return
        flat = spaces.flatten_space(space)
        if not isinstance(flat, spaces.Box):
            raise UnknownGame(f"observations of {space} have no fixed size: RLlib's networks cannot take them")
        low, high = flat.low.astype(np.float32).ravel(), flat.high.astype(np.float32).ravel()
        low = np.concatenate([np.zeros(self.masked, np.float32), low])
        high = np.concatenate([np.ones(self.masked, np.float32), high])
        self.space = spaces.Box(low, high, dtype=np.float32)

    def __call__(self, observation: Any, mask: Any = None) -> np.ndarray:
        """One observation; its mask may come beside it."""
        if self.masked and isinstance(observation, Mapping):
            mask = observation["action_mask"] if mask is None else mask
            observation = observation["observation"]
        if self._image:
            return np.asarray(observation)
        flat = np.asarray(spaces.flatten(self._inner, observation), dtype=np.float32).ravel()
        if not self.masked:
            return flat
        legal = np.ones(self.masked, np.float32) if mask is None else np.asarray(mask, np.float32).ravel()
        return np.concatenate([legal, flat])


class EncodedEnv(gym.ObservationWrapper):
    """A Gymnasium environment whose observations are encoded."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._encode = Encoder(env.observation_space)
        self.seen_spaces = {"": env.observation_space}
        self.observation_space = self._encode.space
        self.masked = self._encode.masked

    def observation(self, observation: Any) -> np.ndarray:
        """See :class:`Encoder`."""
        return self._encode(observation)


class ParallelGame(MultiAgentEnv):
    """A PettingZoo game in which all agents act at once.

    Args:
        game: a ``ParallelEnv``.
    """

    def __init__(self, game: Any) -> None:
        super().__init__()
        self.game = game
        self.possible_agents = list(game.possible_agents)
        self.agents = list(self.possible_agents)
        self.seen_spaces = {agent: game.observation_space(agent) for agent in self.possible_agents}
        self._encoders = {agent: Encoder(space) for agent, space in self.seen_spaces.items()}
        self.observation_spaces = {agent: each.space for agent, each in self._encoders.items()}
        self.action_spaces = {agent: game.action_space(agent) for agent in self.possible_agents}
        self.masked = max(each.masked for each in self._encoders.values())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """A new episode."""
        observations, infos = self.game.reset(seed=seed, options=options)
        self.agents = list(self.game.agents)
        return self._encoded(observations), infos or {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[Any, ...]:
        """All agents act."""
        observations, rewards, terminated, truncated, infos = self.game.step(dict(action_dict))
        over = not self.game.agents
        terminated, truncated = dict(terminated), dict(truncated)
        terminated["__all__"] = over and all(terminated.values())
        truncated["__all__"] = over and not terminated["__all__"]
        self.agents = list(self.game.agents)
        return self._encoded(observations), rewards, terminated, truncated, infos

    def _encoded(self, observations: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {agent: self._encoders[agent](each) for agent, each in observations.items()}

    def close(self) -> None:
        """Let go of it."""
        self.game.close()


class TurnGame(MultiAgentEnv):
    """A PettingZoo game in which one agent acts after another.

    Each step gives an observation to the agent whose turn is next only, and rewards to all. When the game is over,
    every agent gets its last observation.

    Args:
        game: an ``AECEnv``.
    """

    def __init__(self, game: Any) -> None:
        super().__init__()
        self.game = game
        self.possible_agents = list(game.possible_agents)
        self.agents = list(self.possible_agents)
        self.seen_spaces = {agent: game.observation_space(agent) for agent in self.possible_agents}
        self._encoders = {agent: Encoder(space) for agent, space in self.seen_spaces.items()}
        self.observation_spaces = {agent: each.space for agent, each in self._encoders.items()}
        self.action_spaces = {agent: game.action_space(agent) for agent in self.possible_agents}
        self.masked = max(each.masked for each in self._encoders.values())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """A new episode."""
        self.game.reset(seed=seed, options=options)
        self.agents = list(self.game.agents)
        agent = self.game.agent_selection
        return {agent: self._look(agent)}, {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[Any, ...]:
        """The agent whose turn it is acts; agents that are out are passed over."""
        game = self.game
        game.step(action_dict[game.agent_selection])
        rewards = {agent: float(value) for agent, value in game.rewards.items()}
        terminated = {agent: True for agent, done in game.terminations.items() if done}
        truncated = {agent: True for agent, done in game.truncations.items() if done and agent not in terminated}
        seen: dict[str, np.ndarray] = {}
        for agent in [*terminated, *truncated]:
            seen[agent] = self._look(agent)
        while game.agents and (game.terminations[game.agent_selection] or game.truncations[game.agent_selection]):
            game.step(None)
        self.agents = list(game.agents)
        if game.agents:
            seen[game.agent_selection] = self._look(game.agent_selection)
        over = not game.agents
        terminated["__all__"] = over and not truncated
        truncated["__all__"] = over and not terminated["__all__"]
        return seen, rewards, terminated, truncated, {}

    def _look(self, agent: str) -> np.ndarray:
        return self._encoders[agent](self.game.observe(agent))

    def close(self) -> None:
        """Let go of it."""
        self.game.close()


def make_env(settings: Mapping[str, Any]) -> Any:
    """The environment of a run, as RLlib takes it.

    Args:
        settings: ``env_id``, ``env_kwargs`` and ``api`` of the config.

    Raises:
        UnknownGame: there is none of that name, or it cannot be made with these arguments.
    """
    env_id, kwargs, api = settings["env_id"], settings["env_kwargs"], settings["api"]
    try:
        if api == "gymnasium":
            return EncodedEnv(gym.make(env_id, **kwargs))
        module = _module_of(env_id)
        parallel = hasattr(module, "parallel_env") if api == "pettingzoo" else api == "pettingzoo_parallel"
        return ParallelGame(module.parallel_env(**kwargs)) if parallel else TurnGame(module.env(**kwargs))
    except UnknownGame:
        raise
    except Exception as error:  # whatever a game raises at its arguments
        raise UnknownGame(f"{env_id} cannot be made: {type(error).__name__}: {error}") from error


def _module_of(env_id: str) -> Any:
    places = [env_id] if "." in env_id else [f"{family}.{env_id}" for family in FAMILIES]
    for place in places:
        if _exists(place):
            return import_module(place)
    raise UnknownGame(f"there is no game {env_id!r} here; looked for {', '.join(places)}")


def _exists(place: str) -> bool:
    try:
        return find_spec(place) is not None
    except ImportError:
        return False


__all__ = ["EncodedEnv", "Encoder", "ParallelGame", "TurnGame", "UnknownGame", "make_env"]
