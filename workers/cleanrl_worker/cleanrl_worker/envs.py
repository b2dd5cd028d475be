"""Gymnasium environments as the algorithms need them: vector observations, actions that fit, resumable.

The one unusual part is :class:`EpisodeTape`. A simulator cannot be saved in a portable way, but an episode
can be played again: the tape keeps the random state from before the episode's reset and the actions since.
Playing it back brings an environment whose only randomness is its ``np_random`` to exactly where it was, so
that a resumed run goes on bit for bit.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics

from cleanrl_worker.algorithms import ALGORITHMS
from cleanrl_worker.config import CleanRLConfig, words
from mosaic_cluster.worker.errors import ConfigError, Problem

TAPE_LIMIT = 100_000
"""Actions of one episode that are kept; a longer episode starts over on resume instead of being replayed."""


class EpisodeTape(gym.Wrapper):  # type: ignore[type-arg]
    """Records what brings the environment back to where it is. Must be the outermost wrapper.

    Also drops every ``info`` entry but ``episode``: nothing here reads the others, and a vector environment
    merges them at a cost on every step.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._random_state: dict[str, Any] | None = None
        self._discrete = isinstance(env.action_space, spaces.Discrete)
        self._actions: list[Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and a new tape."""
        self._seed = seed
        self._random_state = None if seed is not None else dict(self.unwrapped.np_random.bit_generator.state)
        self._actions = []
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, recorded."""
        if self._actions is not None:
            # A vector environment may hand out views of one array that it overwrites at the next step.
            self._actions.append(int(action) if self._discrete else np.array(action))
            if len(self._actions) > TAPE_LIMIT:
                self._actions = None
        observation, reward, terminated, truncated, info = self.env.step(action)
        kept = {"episode": info["episode"]} if terminated or truncated else {}
        return observation, reward, terminated, truncated, kept

    def save(self) -> dict[str, Any] | None:
        """The tape as plain numbers; ``None`` where the episode is too long to be replayed.

        ``actions`` is a list of whole numbers, or for vectors a tensor of the dtype that the environment was
        given, so that no bit of them is lost.
        """
        if self._actions is None:
            return None
        actions: Any = list(self._actions)
        if actions and not self._discrete:
            actions = torch.from_numpy(np.stack(actions))
        return {"seed": self._seed, "random_state": pack(self._random_state), "actions": actions}

    def replay(self, tape: dict[str, Any]) -> Any:
        """Play a saved tape.

        Returns:
            the observation it ends at. The caller compares it with the one it knows.

        Raises:
            Exception: whatever an environment raises that does not take these actions.
        """
        if tape["seed"] is None:
            self.unwrapped.np_random.bit_generator.state = unpack(tape["random_state"])
        observation, _ = self.reset(seed=tape["seed"])
        actions = tape["actions"]
        if isinstance(actions, torch.Tensor):
            actions = actions.numpy()
        for number, action in enumerate(actions):
            observation, _, terminated, truncated, _ = self.step(np.int64(action) if self._discrete else action)
            if (terminated or truncated) and number + 1 < len(actions):
                raise ValueError(f"the episode ended after {number + 1} of {len(actions)} actions")
        return observation


def pack(value: Any) -> Any:
    """Random states hold arrays; checkpoints hold plain values only, so that loading one can run no code."""
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    return value


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if isinstance(value, dict):
        if value.keys() == {"dtype", "values"}:
            return np.array(value["values"], dtype=value["dtype"])
        return {key: unpack(item) for key, item in value.items()}
    return value


def make_env(env_id: str, algo: str) -> gym.Env[Any, Any]:
    """One environment: 1-D float observations, actions that the algorithm takes, episode statistics, a tape.

    Raises:
        ConfigError: no such environment, a missing dependency of it, or spaces that are not supported.
    """
    try:
        # The checker of gym.make is for people who write environments; on each step it only costs time.
        env = gym.make(env_id, disable_env_checker=True)
    except gym.error.DependencyNotInstalled as error:
        raise _refused(f"{env_id!r} needs a package that is not installed: {error}") from error
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise _refused(
            f"gymnasium {gym.__version__} cannot make {env_id!r}: {error} "
            "An environment of another package is written as 'its_package:Name-v0'."
        ) from error
    problems = _space_problems(env_id, algo, env)
    if problems:
        env.close()
        raise ConfigError(problems)
    space = env.observation_space
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
        env = FlattenObservation(env)
    return EpisodeTape(RecordEpisodeStatistics(env))


def make_envs(config: CleanRLConfig) -> SyncVectorEnv:
    """N environments stepped one after the other.

    A finished one is reset within the same step, its last observation given as ``infos["final_obs"]``. With
    Gymnasium's default (reset on the *next* step) each episode would add a transition in which the action has
    no effect.

    Raises:
        ConfigError: see :func:`make_env`.
    """
    makers = [lambda: make_env(config.env_id, config.algo)] * config.num_envs
    return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


def save_tapes(envs: SyncVectorEnv) -> list[dict[str, Any] | None]:
    """The tape of every environment, for :func:`replay_tapes`."""
    return [tape.save() for tape in _tapes(envs)]


def replay_tapes(
    envs: SyncVectorEnv, saved: list[dict[str, Any] | None], expected: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any] | None:
    """Bring every environment back to where the checkpoint was taken.

    Args:
        envs: N environments.
        saved: what :func:`save_tapes` gave.
        expected: (N, D) observations that they were at.

    Returns:
        (N, D) float32 observations; ``None`` where they could not be brought back.
    """
    observations = []
    for tape, recording in zip(_tapes(envs), saved, strict=True):
        if recording is None:
            return None
        try:
            observations.append(np.asarray(tape.replay(recording), dtype=np.float32))
        except Exception:  # noqa: BLE001 - another version of the environment: whatever it raises, it cannot go on
            return None
    found = np.stack(observations)
    return found if np.array_equal(found, expected) else None


def _tapes(envs: SyncVectorEnv) -> list[EpisodeTape]:
    return [env for env in envs.envs if isinstance(env, EpisodeTape)]  # all are


def box_actions(envs: SyncVectorEnv) -> spaces.Box:
    """The action space of one of the environments, where :func:`make_env` saw that it is a Box."""
    space = envs.single_action_space
    assert isinstance(space, spaces.Box)
    return space


def observation_size(envs: SyncVectorEnv) -> int:
    """D, the entries of an observation."""
    space = envs.single_observation_space
    assert isinstance(space, spaces.Box)
    return space.shape[0]


def _action_kinds(space: gym.Space[Any]) -> set[str]:
    """Which of the kinds in :class:`cleanrl_worker.config.Algorithm` an action space is."""
    if isinstance(space, spaces.Discrete):
        return {"discrete"}
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        finite = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        return {"continuous", "bounded"} if finite else {"continuous"}
    return set()


_KIND_WORDS = {
    "discrete": "Discrete action spaces",
    "continuous": "Box action spaces of floats",
    "bounded": "Box action spaces of floats with finite bounds",
}


def _action_problem(env_id: str, algo: str, space: gym.Space[Any]) -> str | None:
    kinds = _action_kinds(space)
    if ALGORITHMS[algo].actions in kinds:
        return None
    fitting = [name for name, algorithm in ALGORITHMS.items() if algorithm.actions in kinds]
    advice = f"set algo to {words(fitting, 'or')}" if fitting else "no algorithm of this worker takes it"
    wanted = _KIND_WORDS[ALGORITHMS[algo].actions]
    return f"{env_id!r} has the action space {space}, and {algo} takes only {wanted}: {advice}"


def _space_problems(env_id: str, algo: str, env: gym.Env[Any, Any]) -> list[Problem]:
    problems = []
    unfit = _action_problem(env_id, algo, env.action_space)
    if unfit:
        problems.append(unfit)
    space = env.observation_space
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2:
        problems.append(
            f"{env_id!r} gives images ({space.shape}, uint8); only vector observations are supported: "
            "wrap the environment so that it gives a vector, or choose another worker"
        )
    elif not space.is_np_flattenable:
        problems.append(f"{env_id!r} has the observation space {space}, which cannot be flattened to a vector")
    return [Problem("env_id", message) for message in problems]


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("env_id", message)])


def env_seeds(seed: int, count: int) -> list[int]:
    """One seed per environment.

    Drawn from a seed sequence: with ``seed + i`` the runs of neighbouring seeds would share most of their
    environments' randomness, and an interval over seeds would come out too narrow.
    """
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count)]


__all__ = [
    "TAPE_LIMIT",
    "EpisodeTape",
    "box_actions",
    "env_seeds",
    "make_env",
    "make_envs",
    "observation_size",
    "pack",
    "replay_tapes",
    "save_tapes",
    "unpack",
]
