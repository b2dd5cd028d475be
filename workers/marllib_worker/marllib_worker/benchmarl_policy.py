"""Policies of BenchMARL's checkpoints."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marllib_worker.benchmarl_backend import build_experiment, checkpoint_file
from marllib_worker.config import MarllibConfig
from marllib_worker.policy import place_of


def load(folder: Path, about: Mapping[str, Any], config: MarllibConfig, agent: Optional[str], device: str) -> Any:
    """The policy of one agent; see :func:`marllib_worker.policy.load_policy`."""
    config = replace(config, device="cuda" if device.startswith("cuda") else "cpu", num_envs=1)
    with tempfile.TemporaryDirectory(prefix="mosaic-policy-") as scratch:  # BenchMARL writes where it is built
        experiment = build_experiment(config, scratch, [])
        content = torch.load(checkpoint_file(folder), map_location="cpu", weights_only=False)
        for group in experiment.group_map:
            experiment.losses[group].load_state_dict(content[f"loss_{group}"])
        group, row = place_of(experiment.group_map, agent)
        policy = BenchmarlPolicy(experiment, group, row, (config.env_id,))
        experiment.close()
    return policy


class BenchmarlPolicy:
    """Acts for one agent, without exploration.

    Args:
        experiment: holds the networks.
        group: of the agent.
        row: of the agent in its group.
        games: names of the games it plays.
    """

    def __init__(self, experiment: Any, group: str, row: int, games: Tuple[str, ...]) -> None:
        self.games = games
        self._network = experiment.group_policies[group]
        self._group, self._row = group, row
        self._agents = len(experiment.group_map[group])
        self._device = torch.device(experiment.config.sampling_device)
        self._discrete = not experiment.continuous_actions

    def reset(self, seed: Optional[int] = None) -> None:
        """It remembers nothing, and draws nothing."""

    def act(self, observation: Any, action_mask: Optional[Any] = None) -> Any:
        """The action for one observation: an int, or with continuous actions an array of floats."""
        masks = None if action_mask is None else np.asarray(action_mask)[None]
        action = self.act_batch(np.asarray(observation, np.float32)[None], masks)[0]
        return int(action) if self._discrete else action

    def act_batch(self, observations: Any, action_masks: Optional[Any] = None) -> Any:
        """Actions for observations of shape (environments, size): shape (environments,), or (environments, 5)."""
        rows = torch.as_tensor(np.asarray(observations, np.float32), device=self._device)
        # The group's network takes a row for each agent of the group; only this agent's is looked at.
        asked = rows[:, None, :].expand(-1, self._agents, -1)
        given: Dict[str, Any] = {self._group: {"observation": asked}}
        data = TensorDict(given, batch_size=[len(rows)], device=self._device)
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            action = self._network(data)[self._group, "action"][:, self._row]
        found: np.ndarray[Any, Any] = action.cpu().numpy()
        return found.astype(np.int64) if self._discrete else found.astype(np.float32)


__all__ = ["BenchmarlPolicy", "load"]
