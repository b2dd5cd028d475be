"""Environments as XuanCe wants them: Gymnasium's, PettingZoo's particle worlds, and the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space
from pettingzoo.utils.conversions import aec_to_parallel
from xuance.environment import DummyVecEnv, DummyVecMultiAgentEnv, RawEnvironment, RawMultiAgentEnv
from xuance.environment.utils import XuanCeEnvWrapper, XuanCeMultiAgentEnvWrapper

from mosaic_cluster.worker import ConfigError, Problem
from xuance_worker.algorithms import CONTINUOUS, DISCRETE, MULTI
from xuance_worker.config import XuanCeConfig

NO_LIMIT = 100_000
"""What XuanCe is told of the length of episodes where the environment does not say; it only sizes recurrent buffers."""


class GymnasiumEnvironment(RawEnvironment):
    """A Gymnasium environment. Observations are flattened to vectors, continuous actions clipped to their bounds.

    Args:
        env: the environment.
        seed: of its episodes and of random actions.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().__init__()
        self.env = env
        self._raw = env.observation_space
        self.observation_space = _vector_space(self._raw)
        self.action_space = env.action_space
        self.action_space.seed(seed)
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self.max_episode_steps = getattr(env.spec, "max_episode_steps", None) or NO_LIMIT
        env.reset(seed=seed)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """The next episode."""
        observation, info = self.env.reset()
        return _vector(self._raw, observation), dict(info)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step."""
        if isinstance(self.action_space, spaces.Box):
            action = np.clip(action, self.action_space.low, self.action_space.high).reshape(self.action_space.shape)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _vector(self._raw, observation), float(reward), terminated, truncated, dict(info)

    def render(self, *args: Any, **options: Any) -> None:
        """Nothing is drawn."""

    def close(self) -> None:
        """Let it go."""
        self.env.close()


class ParallelEnvironment(RawMultiAgentEnv):
    """A PettingZoo parallel environment.

    Agents may leave before an episode ends: from then on their observation is zeros, their reward 0, and XuanCe is told
    that they are gone. Observations ``{"observation": ..., "action_mask": ...}`` are taken apart.

    Args:
        env: the environment.
        seed: of its episodes and of random actions.
        limit: longest episode, in steps; longer ones are cut off there.
        own_state: whether the environment's own ``state()`` is taken, where it has one.
    """

    def __init__(self, env: Any, seed: int, limit: int | None = None, own_state: bool = True) -> None:
        super().__init__()
        self.env = env
        env.reset(seed=seed)
        self.agents = list(getattr(env, "possible_agents", None) or env.agents)
        self.num_agents = len(self.agents)
        self.agent_groups = [self.agents]
        self._raw = {agent: env.observation_space(agent) for agent in self.agents}
        self.masked = all(_is_masked(space) for space in self._raw.values())
        self.observation_space = {agent: _vector_space(_bare(space)) for agent, space in self._raw.items()}
        self.action_space = {agent: env.action_space(agent) for agent in self.agents}
        for number, agent in enumerate(self.agents):
            self.action_space[agent].seed(seed + number)
        self._own_state = own_state and _has_state(env)
        self.state_space = self._state_space()
        self.metadata = getattr(env, "metadata", {})
        self.render_mode = None
        self.max_episode_steps = limit or _longest(env)
        self._present: set[str] = set()
        self._masks: dict[str, np.ndarray] = {}
        self._last: dict[str, np.ndarray] = {}
        self._steps = 0

    def reset(self, **options: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The next episode."""
        observations, _ = self.env.reset()
        self._steps = 0
        self._present = set(self.agents)
        return self._observed(observations), {}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], bool, dict[str, Any]]:
        """One step of all agents that are still there."""
        live = list(self.env.agents)
        taken = {agent: self._fitting(agent, actions[agent]) for agent in live}
        observations, rewards, ends, _cuts, _ = self.env.step(taken)
        self._steps += 1
        self._present = set(self.env.agents)
        # Who has left is through for good; who is cut off now is not, so that the value of what follows still counts.
        terminated = {agent: bool(ends.get(agent, agent not in live)) for agent in self.agents}
        over = not self.env.agents or self._steps >= self.max_episode_steps
        truncated = over and not all(terminated.values())
        return (
            self._observed(observations),
            {agent: float(rewards.get(agent, 0.0)) for agent in self.agents},
            terminated,
            truncated,
            {},
        )

    def state(self) -> np.ndarray:
        """What a central critic sees: the environment's own state, or all observations in a row."""
        if self._own_state:
            return np.asarray(self.env.state(), np.float32).reshape(-1)
        return np.concatenate([self._last[agent] for agent in self.agents])

    def agent_mask(self) -> dict[str, bool]:
        """Which agents are still there."""
        return {agent: agent in self._present for agent in self.agents}

    def avail_actions(self) -> dict[str, np.ndarray] | None:
        """Which discrete actions are legal; ``None`` where actions are continuous."""
        if not all(isinstance(space, spaces.Discrete) for space in self.action_space.values()):
            return None
        every = {agent: np.ones(int(space.n), np.bool_) for agent, space in self.action_space.items()}
        return {**every, **self._masks}

    def render(self, *args: Any, **options: Any) -> None:
        """Nothing is drawn."""

    def close(self) -> None:
        """Let it go."""
        self.env.close()

    def _observed(self, observations: dict[str, Any]) -> dict[str, np.ndarray]:
        found = {}
        self._masks = {}
        for agent in self.agents:
            observation = observations.get(agent)
            if observation is None:
                found[agent] = np.zeros(self.observation_space[agent].shape, np.float32)
                continue
            if _is_masked(self._raw[agent]):
                self._masks[agent] = np.asarray(observation["action_mask"], np.bool_)
                observation = observation["observation"]
            found[agent] = _vector(_bare(self._raw[agent]), observation)
        self._last = found
        return found

    def _fitting(self, agent: str, action: Any) -> Any:
        space = self.action_space[agent]
        if isinstance(space, spaces.Box):
            return np.clip(action, space.low, space.high).astype(space.dtype).reshape(space.shape)
        return int(action)

    def _state_space(self) -> spaces.Box:
        if self._own_state:
            shape = (int(np.prod(np.asarray(self.env.state()).shape)),)
        else:
            shape = (sum(int(space.shape[0]) for space in self.observation_space.values()),)
        return spaces.Box(-np.inf, np.inf, shape, np.float32)


class WatchedEnvironments(DummyVecMultiAgentEnv):
    """XuanCe's vector environment for several agents; tells of every step, where somebody asks for it.

    Attributes:
        on_step: called with infos, and which episodes have ended.
    """

    on_step: Callable[[list[dict[str, Any]], list[int]], None] | None = None

    def step_wait(self) -> Any:
        """One step of all environments."""
        found = super().step_wait()
        if self.on_step is not None:
            _, _, terminated, truncated, infos = found
            ended = [each for each in range(self.num_envs) if all(terminated[each].values()) or truncated[each]]
            self.on_step(infos, ended)
        return found


class WatchedSingles(DummyVecEnv):
    """The same for one agent."""

    on_step: Callable[[list[dict[str, Any]], list[int]], None] | None = None

    def step_wait(self) -> Any:
        """One step of all environments."""
        found = super().step_wait()
        if self.on_step is not None:
            _, _, terminated, truncated, infos = found
            self.on_step(infos, [each for each in range(self.num_envs) if terminated[each] or truncated[each]])
        return found


def make_environment(config: XuanCeConfig, seed: int) -> Any:
    """One environment, as XuanCe's vector environments want it.

    Raises:
        ConfigError: it cannot be made, or is not of the kind that the algorithm needs.
    """
    several = config.algorithm.agents == MULTI
    made = _made(config)
    if several != _is_parallel(made):
        kind = "PettingZoo parallel environment" if several else "Gymnasium environment"
        raise _refused(f"{config.environment} makes a {type(made).__name__}, and {config.algo} needs a {kind}")
    if not several:
        return XuanCeEnvWrapper(GymnasiumEnvironment(made, seed))
    # The particle worlds' state is all observations in a row, computed once more.
    raw = ParallelEnvironment(made, seed, config.max_episode_steps, own_state=config.own_environment)
    return XuanCeMultiAgentEnvWrapper(raw)


def make_environments(config: XuanCeConfig, number: int, seed: int) -> Any:
    """XuanCe's vector environment of ``number`` environments; the seeds of two runs do not overlap for close seeds."""
    kind = WatchedEnvironments if config.algorithm.agents == MULTI else WatchedSingles
    first = (seed * 1_000_003) % (2**31 - 1_000_000)

    def make(env_seed: int) -> Any:
        return make_environment(config, env_seed)

    return kind([make] * number, first)


def kind_of_actions(env: Any, config: XuanCeConfig) -> str:
    """``discrete`` or ``continuous``.

    Raises:
        ConfigError: neither, or not what the algorithm takes.
    """
    found = env.action_space
    every = list(found.values()) if isinstance(found, dict) else [found]
    if all(isinstance(space, spaces.Discrete) and space.start == 0 for space in every):
        kind = DISCRETE
    elif all(isinstance(space, spaces.Box) for space in every):
        kind = CONTINUOUS
    else:
        shown = ", ".join(sorted({str(space) for space in every}))
        raise _refused(
            f"{config.environment} has actions {shown}; XuanCe's algorithms take Discrete (from 0) or Box, one kind "
            "for all agents"
        )
    if kind not in config.algorithm.forms:
        from xuance_worker.algorithms import ALGORITHMS

        able = [
            name for name, each in ALGORITHMS.items()
            if kind in each.forms and each.agents == config.algorithm.agents and not each.missing
        ]  # fmt: skip
        raise _refused(
            f"{config.environment} has {kind} actions, which {config.algo} does not take; {', '.join(able)} do"
        )
    return kind


def _made(config: XuanCeConfig) -> Any:
    name = config.environment
    if config.own_environment:
        made = _call(_function(name), name, config.env_kwargs)
        if config.max_episode_steps and isinstance(made, gymnasium.Env):
            return gymnasium.wrappers.TimeLimit(made, config.max_episode_steps)
        return made
    if config.algorithm.agents == MULTI:
        module = _particle_world(name)
        continuous = config.continuous_actions
        if continuous is None:
            continuous = DISCRETE not in config.algorithm.forms
        options = {"continuous_actions": continuous, **config.env_kwargs}
        # What parallel_env would add only checks what we keep to anyway, and halves the speed.
        return aec_to_parallel(_call(module.raw_env, name, options))
    options = dict(config.env_kwargs)
    if config.max_episode_steps:
        options["max_episode_steps"] = config.max_episode_steps
    return _call(gymnasium.make, name, options, name)


def _call(function: Any, name: str, options: dict[str, Any], *args: Any) -> Any:
    try:
        return function(*args, **options)
    except Exception as error:
        raise _refused(
            f"{name} cannot be made with {options or 'no env_kwargs'}: {type(error).__name__}: {error}"
        ) from error


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise _refused(
            f"{name} cannot be imported ({error}); the module must be on the worker's path: set PYTHONPATH in the "
            "spec's environment to the folder it lies in"
        ) from error
    if not callable(found):
        raise _refused(f"{name} is no function but {found!r}")
    return found


def _particle_world(name: str) -> Any:
    try:
        return importlib.import_module(f"pettingzoo.mpe.{name}")
    except ImportError as error:
        raise _refused(f"{name} needs pettingzoo 1.25 (later releases no longer have it): {error}") from error


def _is_parallel(env: Any) -> bool:
    return callable(getattr(env, "observation_space", None)) and hasattr(env, "possible_agents")


def _is_masked(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", "action_mask"}


def _bare(space: spaces.Space[Any]) -> spaces.Space[Any]:
    return space["observation"] if _is_masked(space) else space


def _vector_space(space: spaces.Space[Any]) -> spaces.Box:
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), space.shape, np.float32)
    try:
        flat = flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, spaces.Box):
        raise _refused(f"observations of {space} cannot be made vectors of a fixed length")
    return spaces.Box(-np.inf, np.inf, flat.shape, np.float32)


def _vector(space: spaces.Space[Any], observation: Any) -> np.ndarray:
    if isinstance(space, spaces.Box):
        return np.asarray(observation, np.float32).reshape(-1)
    return np.asarray(flatten(space, observation), np.float32)


def _has_state(env: Any) -> bool:
    try:
        return np.asarray(env.state()).dtype.kind in "fiub"
    except Exception:  # noqa: BLE001 - an environment's own code; without a state there are the observations
        return False


def _longest(env: Any) -> int:
    """Longest possible episode, as far as the environment says."""
    for place in (env, getattr(env, "unwrapped", env)):
        for name in ("max_episode_steps", "max_cycles", "max_steps"):
            value = getattr(place, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return NO_LIMIT


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("env_id", message)])


__all__ = [
    "GymnasiumEnvironment",
    "ParallelEnvironment",
    "WatchedEnvironments",
    "WatchedSingles",
    "kind_of_actions",
    "make_environment",
    "make_environments",
]
