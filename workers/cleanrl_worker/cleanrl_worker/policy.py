"""A trained network of our own algorithms, loaded from a checkpoint to act with.

Observations and actions are those of the environment that it was trained in, as Gymnasium has them: what training
did to them (flattening, normalisation, actions scaled to [-1, 1]) is done inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from cleanrl_worker.algorithms import ALGORITHMS
from cleanrl_worker.checkpoints import load_checkpoint
from mosaic_cluster.worker import ConfigError, Problem, refuse_game

Array = np.ndarray[Any, Any]


def load_policy(
    checkpoint: str | Path,
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    stochastic: bool = False,
) -> CleanRLPolicy:
    """The policy in a checkpoint of this worker.

    Args:
        checkpoint: the file that was announced.
        game: what it is to play; only the environment that it was trained in is possible.
        agent: taken for others' sake: one agent plays these games.
        device: where the network is to live: ``cpu``, ``cuda``, ``cuda:1``, ...
        stochastic: act at random, as in training (``dqn``: with its share of random actions at the end of
            training; ``td3``: with its exploration noise). Otherwise always the action that is thought best.

    Raises:
        ConfigError: it does not play that game.
        CheckpointError: there is no such file, or it cannot be read.
    """
    del agent
    saved = load_checkpoint(Path(checkpoint))
    config = saved["config"]
    refuse_game(game, (config["env_id"],), "cleanrl")
    env = gym.make(config["env_id"], disable_env_checker=True)
    try:
        return CleanRLPolicy(config, saved["algorithm"], env, torch.device(device), stochastic)
    finally:
        env.close()


class CleanRLPolicy:
    """Acts as the network in a checkpoint would.

    Args:
        config: the settings that it was trained with.
        parts: its networks' parameters, and running statistics.
        env: of the game; only its spaces are looked at.
        device: where the network lives.
        stochastic: see :func:`load_policy`.

    Attributes:
        games: the one environment that it was trained in.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        parts: Mapping[str, Any],
        env: gym.Env[Any, Any],
        device: torch.device,
        stochastic: bool,
    ) -> None:
        self.games = (str(config["env_id"]),)
        self._observations = env.observation_space
        self._actions = env.action_space
        self._device = device
        self._stochastic = stochastic
        self._rng = np.random.default_rng()
        entries = spaces.flatdim(self._observations)
        algo = str(config["algo"])
        if algo not in ALGORITHMS:
            raise ConfigError([Problem("checkpoint", f"there is no algorithm {algo!r}; {', '.join(ALGORITHMS)} are")])
        self._act = _BUILDERS[algo](self, config, parts, entries)

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes: nothing is remembered of earlier ones; ``seed`` of the randomness, where there is any."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def act(self, observation: Any, action_mask: Any | None = None) -> Any:
        """The action for one observation: an int for Discrete, an array for Box."""
        masks = None if action_mask is None else np.asarray(action_mask)[None]
        action = self.act_batch([observation], masks)[0]
        return int(action) if isinstance(self._actions, spaces.Discrete) else action

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> Array:
        """The actions of N environments.

        Args:
            observations: N of them; an array of shape (N, ...), or a list.
            action_masks: (N, number of actions), 1 where an action is legal; for Discrete only.

        Returns:
            (N,) ints for Discrete, (N, ...) for Box.

        Raises:
            ConfigError: masks for actions that are not discrete.
        """
        flat = np.stack([np.asarray(spaces.flatten(self._observations, each)) for each in observations])
        discrete = isinstance(self._actions, spaces.Discrete)
        if action_masks is not None and not discrete:
            raise ConfigError([Problem("action_masks", f"there are none for the action space {self._actions}")])
        masks = None if action_masks is None else np.asarray(action_masks, dtype=np.bool_)
        with torch.inference_mode():
            return self._act(flat.astype(np.float32), masks)

    # ---- one builder for each algorithm: (N, D) float32 observations and (N, A) masks to actions ------------------

    def _ppo(self, config: Mapping[str, Any], parts: Mapping[str, Any], entries: int) -> Callable[..., Array]:
        from cleanrl_worker.ppo import Agent

        space = self._discrete()
        agent = self._loaded(Agent(entries, int(space.n)), parts["agent"])

        def act(obs: Array, masks: Array | None) -> Array:
            logits = agent.actor(self._tensor(obs)).cpu().numpy()
            if self._stochastic:  # argmax of logits plus Gumbel noise is a sample of their softmax
                logits = logits + self._rng.gumbel(size=logits.shape)
            return _best(logits, masks) + int(space.start)

        return act

    def _dqn(self, config: Mapping[str, Any], parts: Mapping[str, Any], entries: int) -> Callable[..., Array]:
        from cleanrl_worker.dqn import QNetwork

        space = self._discrete()
        network = self._loaded(QNetwork(entries, int(space.n), config["hidden_size"]), parts["network"])

        def act(obs: Array, masks: Array | None) -> Array:
            values = network(self._tensor(obs)).cpu().numpy()
            if self._stochastic:
                drawn = self._rng.random(len(values)) < config["end_e"]
                values[drawn] = self._rng.random(values[drawn].shape)
            return _best(values, masks) + int(space.start)

        return act

    def _ppo_continuous(
        self, config: Mapping[str, Any], parts: Mapping[str, Any], entries: int
    ) -> Callable[..., Array]:
        from cleanrl_worker.ppo_continuous import CLIP, Agent

        space = self._box()
        agent = self._loaded(Agent(entries, math.prod(space.shape)), parts["agent"])
        seen = parts["scaling"]["obs"]
        mean, std = seen["mean"].numpy(), np.sqrt(seen["var"].numpy() + 1e-8)

        def act(obs: Array, masks: Array | None) -> Array:
            if config["norm_obs"]:
                obs = ((obs - mean) / std).clip(-CLIP, CLIP).astype(np.float32)
            actions = agent.actor(self._tensor(obs)).cpu().numpy()
            if self._stochastic:
                noise = self._rng.standard_normal(actions.shape, dtype=np.float32)
                actions = actions + agent.log_std.exp().cpu().numpy() * noise
            return actions.reshape(-1, *space.shape).clip(space.low, space.high).astype(space.dtype)

        return act

    def _sac(self, config: Mapping[str, Any], parts: Mapping[str, Any], entries: int) -> Callable[..., Array]:
        from cleanrl_worker.sac import Actor, in_bounds

        space = self._box()
        size = math.prod(space.shape)
        actor = self._loaded(Actor(entries, size, config["hidden_size"]), parts["actor"])

        def act(obs: Array, masks: Array | None) -> Array:
            noise = np.zeros((len(obs), size), dtype=np.float32)
            if self._stochastic:
                noise = self._rng.standard_normal(noise.shape, dtype=np.float32)
            actions, _ = actor(self._tensor(obs), self._tensor(noise))
            return in_bounds(actions.cpu().numpy(), space)

        return act

    def _td3(self, config: Mapping[str, Any], parts: Mapping[str, Any], entries: int) -> Callable[..., Array]:
        from cleanrl_worker.td3 import Networks, in_bounds

        space = self._box()
        networks = Networks(entries, math.prod(space.shape), config["hidden_size"])
        self._loaded(networks, parts["networks"])

        def act(obs: Array, masks: Array | None) -> Array:
            actions = networks.actor(self._tensor(obs)).cpu().numpy()
            if self._stochastic:
                noise = self._rng.standard_normal(actions.shape, dtype=np.float32)
                actions = (actions + config["exploration_noise"] * noise).clip(-1, 1)
            return in_bounds(actions, space)

        return act

    def _loaded(self, module: nn.Module, parameters: Mapping[str, Any]) -> Any:
        module.load_state_dict(parameters)
        return module.to(self._device).eval()

    def _tensor(self, values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _discrete(self) -> spaces.Discrete:
        assert isinstance(self._actions, spaces.Discrete)  # it was when this was trained
        return self._actions

    def _box(self) -> spaces.Box:
        assert isinstance(self._actions, spaces.Box)
        return self._actions


def _best(values: Array, masks: Array | None) -> Array:
    """(N,) numbers of the greatest values among those that are legal."""
    return np.asarray((values if masks is None else np.where(masks, values, -np.inf)).argmax(-1))


_BUILDERS: dict[str, Callable[..., Callable[..., Array]]] = {
    "ppo": CleanRLPolicy._ppo,
    "ppo_continuous": CleanRLPolicy._ppo_continuous,
    "dqn": CleanRLPolicy._dqn,
    "sac": CleanRLPolicy._sac,
    "td3": CleanRLPolicy._td3,
}


__all__ = ["CleanRLPolicy", "load_policy"]
