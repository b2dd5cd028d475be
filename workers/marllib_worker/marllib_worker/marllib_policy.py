"""Policies of MARLlib's checkpoints: RLlib 1.8 restores them, in this process, without a Ray cluster."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

from marllib_worker.algorithms import ALGORITHMS, GAMES
from marllib_worker.config import MarllibConfig
from marllib_worker.marllib_backend import job
from marllib_worker.marllib_child import build

_GAMES = ("simple_spread_v3",)


class _Captured(Exception):
    """``tune.run`` was about to begin."""


def load(folder: Path, about: Mapping[str, Any], config: MarllibConfig, agent: Optional[str], device: str) -> Any:
    """The policy of one agent; see :func:`marllib_worker.policy.load_policy`."""
    if config.env_id not in _GAMES:
        text = f"MARLlib pads what agents of {config.env_id} see and do to one size, which the game does not know"
        raise ConfigError([Problem("game", text + "; only policies of simple_spread_v3 can be loaded")])
    agents = [f"agent_{index}" for index in range(GAMES[config.env_id].agents)]
    if agent is not None and agent not in agents:
        raise ConfigError(
            [Problem("agent", "there is no {!r} in this game; there are {}".format(agent, ", ".join(agents)))]
        )
    row = 0 if agent is None else agents.index(agent)
    with tempfile.TemporaryDirectory(prefix="ml") as scratch:
        trainer = _trainer(config, Path(scratch))
        with (folder / about["file"]).open("rb") as file:
            state = pickle.load(file)  # RLlib 1.8 has no other format
        trainer.workers.local_worker().restore(state["worker"])
    policies = trainer.workers.local_worker().policy_map
    names = list(policies.keys())
    policy = policies[names[0] if len(names) == 1 else f"policy_{row}"]
    return RllibPolicy(policy, row if ALGORITHMS[config.algo].family == "q" else None, len(agents), config)


class RllibPolicy:
    """Acts for one agent, without exploration.

    Args:
        policy: RLlib's.
        row: of the agent in its group, where the policy acts for all agents at once (iql, vdn, qmix).
        agents: how many there are.
        config: of the run.
    """

    def __init__(self, policy: Any, row: Optional[int], agents: int, config: MarllibConfig) -> None:
        self.games: Tuple[str, ...] = (config.env_id,)
        self._policy, self._row, self._agents = policy, row, agents
        self._discrete = ALGORITHMS[config.algo].actions == "discrete"

    def reset(self, seed: Optional[int] = None) -> None:
        """It remembers nothing, and draws nothing."""

    def act(self, observation: Any, action_mask: Optional[Any] = None) -> Any:
        """The action for one observation: an int, or with continuous actions an array of floats."""
        action = self.act_batch(np.asarray(observation, np.float32)[None])[0]
        return int(action) if self._discrete else action

    def act_batch(self, observations: Any, action_masks: Optional[Any] = None) -> Any:
        """Actions for observations of shape (environments, size): shape (environments,), or (environments, 5)."""
        rows = np.asarray(observations, np.float32)
        if self._row is not None:  # a policy of the whole group: it takes what all agents see, in one row
            rows = np.tile(rows, (1, self._agents))
        states = [np.stack([np.asarray(each)] * len(rows)) for each in self._policy.get_initial_state()]
        actions = self._policy.compute_actions(rows, state_batches=states, explore=False)[0]
        if self._row is not None:
            actions = actions[self._row]
        return np.asarray(actions, np.int64 if self._discrete else np.float32)


def _trainer(config: MarllibConfig, scratch: Path) -> Any:
    """The trainer that MARLlib would train, with networks that have learned nothing."""
    import ray
    from ray import tune
    from ray.tune.logger import NoopLogger

    session = WorkerSession("marllib", config, environ={"MOSAIC_RUN_DIR": str(scratch)})
    wanted = job(config, session, scratch, 0, None)
    captured: List[Any] = []

    def capture(trainable: Any, **given: Any) -> None:
        captured.append((trainable, {**given["config"], **wanted["rllib_config"]}))
        raise _Captured

    algorithm, env, model = build(wanted)
    before = ray.init, tune.run
    ray.init, tune.run = (lambda *args, **given: None), capture
    try:
        algorithm.fit(
            env, model, local_mode=False, seed=config.seed or 0, num_gpus=0, num_workers=0,
            share_policy=config.share_policy, evaluation_interval=None, local_dir=str(scratch),
        )  # fmt: skip
    except _Captured:
        pass
    finally:
        ray.init, tune.run = before
    trainable, settings = captured[0]
    own: Dict[str, Any] = {"num_workers": 0, "num_envs_per_worker": 1, "num_gpus": 0}
    return trainable(config={**settings, **own}, logger_creator=lambda given: NoopLogger(given, str(scratch)))


__all__ = ["RllibPolicy", "load"]
