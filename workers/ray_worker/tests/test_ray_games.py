"""Games of several agents, and each algorithm once, for real: RLlib in this process, on a Ray of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_worker.config import MAIN, RayConfig, Share, opponents_of

pytestmark = pytest.mark.timeout(600)  # Ray takes its time to start where much else runs
QUICK = {"train_batch_size": 128, "num_epochs": 1, "minibatch_size": 64}
Made = Any


@pytest.fixture(scope="module")
def on_a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes trainers. Their actors are few, and not within the group, which has but one CPU of two."""
    from ray_worker.cluster import home
    from ray_worker.training import Trainer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS"):
            patch.setenv(name, "0")  # so that what is set there does not outlast this module
        with home({"CUDA_VISIBLE_DEVICES": ""}, 1):
            folder = tmp_path_factory.mktemp("rllib")

            def make(**config: Any) -> Made:
                made = Trainer({**RayConfig(run_id="r", **config).to_dict()}, Share(0), 1, str(folder))
                made.build()
                return made

            yield make


def weights_of(modules: Any, name: str) -> Mapping[str, Any]:
    state = modules[name].get_state()
    return {key: np.asarray(value) for key, value in state.items() if key.startswith(("pi", "encoder.actor"))}


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one.keys() & other.keys())


@pytest.mark.slow
def test_self_play(on_a_ray: Any, tmp_path: Path) -> None:
    """Opponents stay as they are until the oldest becomes what the policy is; masks are kept by all of them."""
    config = {"env_id": "tictactoe_v3", "policies": "self_play", "opponents": 2, "snapshot_every": 250, **QUICK}
    trainer = on_a_ray(**config)
    learning = trainer._algorithm.learner_group._learner.module
    acting = trainer._algorithm.env_runner.module
    first, second = opponents_of(trainer.config)
    before = weights_of(acting, second)
    trainer.train()
    assert not alike(weights_of(acting, MAIN), weights_of(acting, first))
    told = trainer.train()
    assert told["step"] == 256
    now = weights_of(acting, MAIN)
    assert alike(now, weights_of(acting, first))
    assert alike(now, weights_of(learning, first))
    assert alike(before, weights_of(acting, second))
    assert {module for each in told["episodes"] for module in each["modules"].values()} == {MAIN, first, second}
    # Whoever moves where somebody has been loses at once, and the other one gets nothing.
    assert all(sum(each["returns"].values()) == 0 for each in told["episodes"])
    assert all(5 <= each["steps"] <= 9 for each in told["episodes"])
    trainer.save(str(tmp_path / "saved"), told["step"])
    trainer.stop()
    plays_legally(tmp_path / "saved")


def plays_legally(checkpoint: Path) -> None:
    from pettingzoo.classic import tictactoe_v3
    from ray_worker.policy import load_policy

    policy = load_policy(str(checkpoint), game="tictactoe_v3")
    env = tictactoe_v3.env()
    env.reset(seed=1)
    for agent in env.agent_iter():
        seen, _, terminated, truncated, _ = env.last()
        if terminated or truncated:
            assert env.terminations[agent]
            break
        action = policy.act(seen["observation"], seen["action_mask"])
        assert seen["action_mask"][action] == 1
        batch = policy.act_batch(np.stack([seen["observation"]] * 3), np.stack([seen["action_mask"]] * 3))
        assert list(batch) == [action] * 3
        env.step(action)


@pytest.mark.slow
@pytest.mark.parametrize("policies", ["parameter_sharing", "independent", "shared_value_function"])
def test_policies_of_several_agents(on_a_ray: Any, policies: str, tmp_path: Path) -> None:
    from ray_worker.policy import load_policy

    trainer = on_a_ray(env_id="simple_spread_v3", policies=policies, **QUICK)
    modules = trainer._algorithm.learner_group._learner.module
    names = ["shared"] if policies == "parameter_sharing" else ["agent_0", "agent_1", "agent_2"]
    assert sorted(modules.keys()) == names
    before = {name: weights_of(modules, name) for name in names}
    told = trainer.train()
    assert told["step"] == 128
    assert not any(alike(before[name], weights_of(modules, name)) for name in names)
    assert set(told["episodes"][0]["returns"]) == {"agent_0", "agent_1", "agent_2"}
    shared = {id(modules[name].unwrapped().vf) for name in names}
    assert len(shared) == (1 if policies == "shared_value_function" else len(names))
    trainer.save(str(tmp_path / "saved"), 128)
    again = on_a_ray(env_id="simple_spread_v3", policies=policies, **QUICK)
    assert again.restore(str(tmp_path / "saved")) == 128
    restored = again._algorithm.learner_group._learner.module
    assert all(alike(weights_of(modules, name), weights_of(restored, name)) for name in names)
    assert again.train()["step"] == 256
    for agent in ("agent_0", "agent_2"):
        policy = load_policy(str(tmp_path / "saved"), game="simple_spread_v3", agent=agent)
        assert 0 <= policy.act(np.zeros(18, np.float32)) < 5
    for each in (trainer, again):
        each.stop()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of random play, by environment."""
    import gymnasium as gym
    from ray_worker.offline import write_transitions

    found = {}
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        env, rows = gym.make(env_id), []
        env.action_space.seed(1)
        for episode in range(4):
            observation, _ = env.reset(seed=episode)
            over = False
            while not over:
                action = env.action_space.sample()
                following, reward, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
                rows.append({
                    "episode": episode, "observation": observation.tolist(), "next_observation": following.tolist(),
                    "action": np.atleast_1d(action).tolist(), "reward": float(reward),
                    "terminated": terminated, "truncated": truncated,
                })  # fmt: skip
                observation = following
        found[env_id] = str(tmp_path_factory.mktemp("data") / "episodes.parquet")
        write_transitions(Path(found[env_id]), rows)
    return found


TINY_DREAMER = {"model_size": "nano", "training_ratio": 8, "batch_size_B": 2, "batch_length_T": 8, "horizon_H": 3}
OFFLINE = {"train_batch_size": 64, "evaluation_every": 1000, "evaluation_episodes": 1}


@pytest.mark.workers
@pytest.mark.parametrize(
    ("config", "iterations"),
    [
        ({"algo": "ppo", "env_id": "Pendulum-v1", **QUICK}, 1),
        ({"algo": "appo", "train_batch_size": 100}, 3),
        ({"algo": "impala", "train_batch_size": 100}, 3),
        ({"algo": "dqn", "train_batch_size": 16}, 6),
        ({"algo": "sac", "env_id": "Pendulum-v1", "train_batch_size": 16}, 3),
        ({"algo": "dreamerv3", "training": TINY_DREAMER}, 3),
        ({"algo": "bc", **OFFLINE}, 1),
        ({"algo": "marwil", **OFFLINE}, 1),
        ({"algo": "cql", "env_id": "Pendulum-v1", **OFFLINE}, 1),
        ({"algo": "dqn", "env_id": "simple_spread_v3", "policies": "independent"}, 1),
        ({"algo": "appo", "env_id": "connect_four_v3", "train_batch_size": 100}, 3),
    ],
    ids=lambda value: "-".join(map(str, (value["algo"], value.get("env_id", "")))) if isinstance(value, dict) else "",
)  # fmt: skip
def test_each_algorithm(
    on_a_ray: Any, datasets: dict[str, str], config: dict[str, Any], iterations: int, tmp_path: Path
) -> None:
    """It learns something, goes on from its checkpoint, and leaves a policy that acts."""
    import gymnasium as gym
    from ray_worker.policy import load_policy

    env_id = config.get("env_id", "CartPole-v1")
    if "evaluation_every" in config:
        config = {**config, "dataset": datasets[env_id]}
    trainer = on_a_ray(**config)
    told: dict[str, Any] = {"step": 0}
    for _ in range(iterations):
        told = trainer.train()
    assert told["step"] > 0
    if "evaluation_every" in config:
        assert len(told["episodes"]) == 1
    trainer.save(str(tmp_path / "saved"), told["step"])
    again = on_a_ray(**config)
    assert again.restore(str(tmp_path / "saved")) == told["step"]
    assert again.train()["step"] > told["step"]
    for each in (trainer, again):
        each.stop()
    policy = load_policy(str(tmp_path / "saved"), game=env_id)
    if env_id.endswith("-v1"):
        space = gym.make(env_id).observation_space
        for _ in range(2):
            assert gym.make(env_id).action_space.contains(policy.act(space.sample()))
