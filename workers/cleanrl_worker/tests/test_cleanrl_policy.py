"""Policies from checkpoints: what training would do, in the environment's own observations and actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cleanrl_worker.algorithms import ALGORITHMS
from cleanrl_worker.checkpoints import CheckpointError
from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.policy import CleanRLPolicy, load_policy
from cleanrl_worker.runtime import CleanRLRuntime

from mosaic_cluster.worker import ConfigError, Policy

SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"env_id": "CartPole-v1", "total_steps": 256},
    "ppo_continuous": {"total_steps": 512, "num_steps": 64, "num_minibatches": 2, "update_epochs": 1},
    "dqn": {"total_steps": 300, "learning_starts": 200},
    "sac": {"total_steps": 110, "learning_starts": 100, "batch_size": 16},
    "td3": {"total_steps": 110, "learning_starts": 100, "batch_size": 16},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a short training with each algorithm."""
    found = {}
    for algo, settings in SMALL.items():
        folder = tmp_path_factory.mktemp(algo)
        config = CleanRLConfig.from_dict({"run_id": "r", "seed": 1, "algo": algo, **settings})
        environ = {"MOSAIC_RUN_DIR": str(folder), "MOSAIC_CHECKPOINT_DIR": str(folder / "checkpoints")}
        found[algo] = Path(CleanRLRuntime(config, environ=environ).run()["checkpoint"])
    return found


def observations(policy: CleanRLPolicy, count: int = 16) -> tuple[np.ndarray[Any, Any], gym.Space[Any]]:
    env = gym.make(policy.games[0])
    env.observation_space.seed(5)
    rows = [np.asarray(env.reset(seed=seed)[0]) for seed in range(count)]
    space = env.action_space
    env.close()
    return np.stack(rows), space


@pytest.mark.parametrize("algo", ALGORITHMS)
class TestEach:
    def test_it_acts(self, algo: str, checkpoints: dict[str, Path]) -> None:
        policy = load_policy(checkpoints[algo])
        assert isinstance(policy, Policy)
        rows, space = observations(policy)
        actions = policy.act_batch(rows)
        assert len(actions) == len(rows)
        assert all(space.contains(action) for action in actions)
        policy.reset(seed=3)
        one_by_one = [policy.act(row) for row in rows]
        assert all(space.contains(action) for action in one_by_one)
        np.testing.assert_allclose(np.stack([np.asarray(each) for each in one_by_one]), actions, atol=1e-5)

    def test_a_seed_decides_the_randomness(self, algo: str, checkpoints: dict[str, Path]) -> None:
        policy = load_policy(checkpoints[algo], stochastic=True)
        rows, space = observations(policy, 64)
        rows = np.concatenate([rows] * 8)

        def acted(seed: int) -> np.ndarray[Any, Any]:
            policy.reset(seed=seed)
            return policy.act_batch(rows)

        assert np.array_equal(acted(1), acted(1))
        assert not np.array_equal(acted(1), acted(2))
        assert all(space.contains(action) for action in acted(1))

    def test_another_game_is_refused(self, algo: str, checkpoints: dict[str, Path]) -> None:
        with pytest.raises(ConfigError, match="does not play 'connect_four_v3'; this one plays"):
            load_policy(checkpoints[algo], game="connect_four_v3")


def test_masks_leave_out_the_best_action(checkpoints: dict[str, Path]) -> None:
    for algo in ("ppo", "dqn"):
        policy = load_policy(checkpoints[algo])
        rows, _ = observations(policy)
        best = policy.act_batch(rows)
        masks = np.ones((len(rows), 2))
        masks[np.arange(len(rows)), best] = 0
        assert np.array_equal(policy.act_batch(rows, masks), 1 - best)
        assert policy.act(rows[0], masks[0]) == 1 - best[0]
    policy = load_policy(checkpoints["sac"])
    rows, _ = observations(policy, 1)
    with pytest.raises(ConfigError, match="there are none for the action space"):
        policy.act(rows[0], np.ones(1))


def test_observations_are_normalised_as_in_training(checkpoints: dict[str, Path]) -> None:
    """The actor's own answer to what training fed it, against the policy's to what the environment gave."""
    from cleanrl_worker.ppo_continuous import Agent

    saved = torch.load(checkpoints["ppo_continuous"], weights_only=True)["algorithm"]
    agent = Agent(3, 1)
    agent.load_state_dict(saved["agent"])
    with torch.inference_mode():
        expected = agent.actor(saved["normal_obs"]).numpy().clip(-2, 2)
    raw = saved["obs"].numpy()
    policy = load_policy(checkpoints["ppo_continuous"])
    np.testing.assert_allclose(policy.act_batch(raw), expected, atol=1e-5)
    assert not np.allclose(raw, saved["normal_obs"].numpy(), atol=0.05)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_policy(tmp_path / "none.pt")


def test_entry_point() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="mosaic.policies", name="cleanrl")
    assert found.load() is load_policy
