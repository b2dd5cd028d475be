"""Every algorithm: its settings, its environments, and that a run that was interrupted goes on as if it was not."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cleanrl_worker.config import ALGORITHMS, CleanRLConfig, settings_of
from cleanrl_worker.envs import EpisodeTape, make_env
from cleanrl_worker.replay import ReplayBuffer
from cleanrl_worker.runtime import CleanRLRuntime
from cleanrl_worker.session import TrainingError

import mosaic_cluster
from mosaic_cluster.worker import ConfigError, config_problems, describe_config

CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)

# Small enough for a second, long enough for several episodes and for the buffer to go round.
REPLAY = {"hidden_size": 16, "batch_size": 16, "learning_starts": 60, "checkpoint_every": 0, "seed": 5}
SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"total_steps": 600, "num_envs": 2, "num_steps": 64, "checkpoint_every": 0, "seed": 5},
    "ppo_continuous": {
        "total_steps": 900,
        "num_envs": 2,
        "num_steps": 64,
        "num_minibatches": 4,
        "checkpoint_every": 0,
        "seed": 5,
    },
    "dqn": {**REPLAY, "total_steps": 600, "num_envs": 2, "buffer_size": 250, "exploration_fraction": 0.5},
    "sac": {**REPLAY, "total_steps": 450, "buffer_size": 200, "noise_correlation": 0.5},
    "td3": {**REPLAY, "total_steps": 450, "buffer_size": 200, "noise_correlation": 0.5},
}
NEW = ("ppo_continuous", "dqn", "sac", "td3")
HEAVY = ("sac", "td3")


class Run:
    """One attempt in this process.

    Args:
        folder: takes checkpoints and the manifest.
        algo: trained with its small settings, changed by ``changes``.
        resume: the checkpoint to go on from.
        stop_after: how often it may ask whether to stop before it is told so.
        report_steps: where somebody looks, as the environment variable has it.
    """

    def __init__(
        self,
        folder: Path,
        algo: str,
        resume: Path | None = None,
        stop_after: int | None = None,
        report_steps: str = "",
        **changes: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = CleanRLConfig.from_dict({"run_id": "r", "algo": algo, **SMALL[algo], **changes})
        environ = {"MOSAIC_RUN_DIR": str(folder), "MOSAIC_CHECKPOINT_DIR": str(folder / "checkpoints")}
        environ["MOSAIC_REPORT_STEPS"] = report_steps
        if resume is not None:
            environ["MOSAIC_RESUME_FROM"] = str(resume)
        asked = itertools.count()

        def stop() -> bool:
            return stop_after is not None and next(asked) >= stop_after

        self.summary = CleanRLRuntime(config, stop_requested=stop, environ=environ).run()
        self.checkpoint = Path(self.summary["checkpoint"])
        self.content: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Deep equality, of tensors too."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{number}]")
    else:
        assert one == other, where


class TestConfig:
    @pytest.mark.parametrize("algo", ALGORITHMS)
    def test_round_trip(self, algo: str) -> None:
        config = CleanRLConfig(run_id="r", algo=algo)
        settings = config.to_dict()
        assert list(settings) == settings_of(algo)
        assert CleanRLConfig.from_dict(json.loads(json.dumps(settings))) == config

    @pytest.mark.parametrize("algo", ALGORITHMS)
    def test_learning_rate_can_be_searched_everywhere(self, algo: str) -> None:
        config = CleanRLConfig.from_dict({"run_id": "r", "algo": algo, "learning_rate": 0.002})
        assert config.learning_rate == 0.002

    def test_ppo_is_what_it_was(self) -> None:
        settings = CleanRLConfig(run_id="r").to_dict()
        assert settings == {
            "run_id": "r", "seed": None, "env_id": "CartPole-v1", "algo": "ppo", "total_steps": 500_000,
            "learning_rate": 1e-3, "anneal_lr": True, "num_envs": 8, "num_steps": 32, "gamma": 0.99,
            "gae_lambda": 0.95, "num_minibatches": 4, "update_epochs": 4, "norm_adv": True, "clip_coef": 0.2,
            "clip_vloss": False, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5, "target_kl": None,
            "checkpoint_every": 50_000, "keep_checkpoints": 3, "device": "auto", "torch_deterministic": True,
        }  # fmt: skip

    def test_defaults_of_its_own(self) -> None:
        assert CleanRLConfig(run_id="r", algo="td3").env_id == "Pendulum-v1"
        assert CleanRLConfig(run_id="r", algo="dqn").num_envs == 1
        assert CleanRLConfig(run_id="r", algo="dqn").clip_coef is None

    def test_null_is_the_default(self) -> None:
        given = {"run_id": "r", "algo": "dqn", "buffer_size": None, "clip_coef": None}
        assert CleanRLConfig.from_dict(given) == CleanRLConfig(run_id="r", algo="dqn")

    @pytest.mark.parametrize(
        ("given", "path", "words"),
        [
            ({"algo": "dqn", "clip_coef": 0.1}, "clip_coef", "is not a setting of dqn, but of ppo and ppo_continuous"),
            ({"algo": "dqn", "clip_coef": 0.1}, "clip_coef", "dqn has algo, anneal_lr, batch_size, buffer_size"),
            ({"tau": 0.1}, "tau", "is not a setting of ppo, but of dqn, sac and td3; ppo has"),
            ({"algo": "ppo", "norm_obs": True}, "norm_obs", "is not a setting of ppo, but of ppo_continuous"),
            ({"algo": "td3", "alpha": 0.1}, "alpha", "is not a setting of td3, but of sac"),
            ({"algo": "sac", "start_e": 1}, "start_e", "is not a setting of sac, but of dqn"),
            ({"algo": "sac", "taau": 1}, "taau", "there is no such setting; did you mean 'tau'?"),
            ({"algo": "sac", "tau": 0}, "tau", "must be greater than 0 and at most 1, but is 0"),
            ({"algo": "dqn", "batch_size": 0.5}, "batch_size", "must be a whole number"),
            ({"algo": "a2c"}, "algo", "must be one of 'ppo', 'ppo_continuous', 'dqn', 'sac', 'td3'"),
            ({"algo": "dqn", "total_steps": 500}, "total_steps", "500 steps end before learning_starts (1000)"),
            ({"algo": "sac", "buffer_size": 100}, "buffer_size", "100 is less than batch_size (256); raise it"),
            ({"algo": "ppo_continuous", "total_steps": 9}, "total_steps", "9 is less than a rollout"),
            ({"algo": "ppo_continuous", "num_minibatches": 7}, "num_minibatches", "7 equal parts cannot be made"),
        ],
    )
    def test_what_cannot_be_is_refused(self, given: dict[str, Any], path: str, words: str) -> None:
        found = [item for item in config_problems(CleanRLConfig, {"run_id": "r", **given}) if item.path == path]
        assert [item for item in found if words in item.message], found
        with pytest.raises(ConfigError, match=path):
            CleanRLConfig.from_dict({"run_id": "r", **given})

    def test_all_problems_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            CleanRLConfig.from_dict({"run_id": "r", "algo": "dqn", "tau": 2, "clip_coef": 0.1, "total_steps": 10})
        assert {problem.path for problem in caught.value.problems} == {"tau", "clip_coef", "total_steps"}

    def test_the_help_says_whose_a_setting_is(self) -> None:
        help_of = {each["name"]: each["help"] for each in describe_config(CleanRLConfig)}
        assert help_of["tau"].endswith("(dqn: 1.0; sac, td3: 0.005)")
        assert help_of["clip_coef"].endswith("(ppo, ppo_continuous: 0.2)")
        assert all(help_of.values())


class TestEnvironments:
    @pytest.mark.parametrize(
        ("env_id", "algo", "words"),
        [
            ("CartPole-v1", "sac", "sac takes only Box action spaces of floats with finite bounds: set algo to ppo"),
            ("CartPole-v1", "ppo_continuous", "takes only Box action spaces of floats: set algo to ppo or dqn"),
            ("Pendulum-v1", "dqn", "dqn takes only Discrete action spaces: set algo to ppo_continuous, sac or td3"),
            ("Unbounded-v0", "td3", "with finite bounds: set algo to ppo_continuous"),
            ("Lists-v0", "td3", "no algorithm of this worker takes it"),
        ],
    )  # fmt: skip
    def test_actions_that_do_not_fit(self, monkeypatch: pytest.MonkeyPatch, env_id: str, algo: str, words: str) -> None:
        monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.envs.registration.registry))
        gym.register("Unbounded-v0", entry_point=lambda: Reshaped(gym.spaces.Box(-np.inf, np.inf, (2,))))
        gym.register("Lists-v0", entry_point=lambda: Reshaped(gym.spaces.MultiDiscrete([2, 2])))
        with pytest.raises(ConfigError, match="env_id") as caught:
            make_env(env_id, algo)
        assert words in str(caught.value)

    def test_a_tape_keeps_every_bit_of_continuous_actions(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        env, again = make_env("Pendulum-v1", "sac"), make_env("Pendulum-v1", "sac")
        assert isinstance(env, EpisodeTape)
        assert isinstance(again, EpisodeTape)
        env.reset(seed=7)
        env.reset()
        shared = np.zeros(1, dtype=np.float32)  # overwritten at every step, as a vector environment's may be
        for _ in range(150):
            shared[:] = rng.uniform(-2, 2)
            observation, *_ = env.step(shared)
        torch.save(env.save(), tmp_path / "tape.pt")
        again.reset(seed=99)
        replayed = again.replay(torch.load(tmp_path / "tape.pt", weights_only=True))
        assert np.array_equal(replayed, observation)
        for _ in range(60):  # beyond the end of the episode
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            one, other = env.step(action), again.step(action)
            assert np.array_equal(one[0], other[0])
            assert one[1:4] == other[1:4]
            if one[3]:
                assert one[4]["episode"]["r"] == other[4]["episode"]["r"]
                assert np.array_equal(env.reset()[0], again.reset()[0])

    def test_a_tape_of_another_environment_is_told(self) -> None:
        env, other = make_env("Pendulum-v1", "sac"), make_env("MountainCarContinuous-v0", "sac")
        assert isinstance(env, EpisodeTape)
        assert isinstance(other, EpisodeTape)
        env.reset(seed=1)
        env.step(np.ones(1, dtype=np.float32))
        tape = env.save()
        assert tape is not None
        assert other.replay(tape).shape != env.observation_space.shape


class Reshaped(gym.Env[Any, Any]):
    """An environment with some action space."""

    def __init__(self, space: gym.Space[Any]) -> None:
        self.action_space = space
        self.observation_space = gym.spaces.Box(-1, 1, (2,))


class TestReplayBuffer:
    @staticmethod
    def filled(capacity: int, count: int) -> ReplayBuffer:
        buffer = ReplayBuffer(capacity, 1, (), np.int64)
        for number in range(count):
            column = np.array([number])
            state = column[:, None].astype(np.float32)
            buffer.add(obs=state, next_obs=state + 1, actions=column, rewards=column, terminated=column % 2 == 0)
        return buffer

    @pytest.mark.parametrize(("count", "kept"), [(3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (7, [5, 6, 2, 3, 4])])
    def test_the_oldest_are_overwritten(self, count: int, kept: list[int]) -> None:
        buffer = self.filled(5, count)
        obs, next_obs, actions, rewards, terminated = buffer.rows(np.arange(len(buffer)), torch.device("cpu"))
        assert actions.tolist() == kept
        assert (obs.flatten() == actions).all()
        assert (next_obs.flatten() == actions + 1).all()
        assert rewards.tolist() == [float(number) for number in kept]
        assert terminated.tolist() == [number % 2 == 0 for number in kept]

    @pytest.mark.parametrize(("capacity", "kept"), [(5, [5, 6, 2, 3, 4]), (3, [4, 5, 6]), (9, [2, 3, 4, 5, 6])])
    def test_another_capacity_keeps_the_newest(self, capacity: int, kept: list[int]) -> None:
        buffer = ReplayBuffer(capacity, 1, (), np.int64)
        buffer.load_state_dict(self.filled(5, 7).state_dict())
        assert buffer.actions[: len(buffer)].tolist() == kept
        one = np.array([7])
        state = np.array([[7]])
        buffer.add(obs=state, next_obs=state, actions=one, rewards=one, terminated=one > 0)
        newest = sorted([*kept, 7])[-capacity:]
        assert sorted(buffer.actions[: len(buffer)].tolist()) == newest

    def test_only_what_is_filled_is_saved(self, tmp_path: Path) -> None:
        torch.save(self.filled(1_000_000, 10).state_dict(), tmp_path / "buffer.pt")
        assert (tmp_path / "buffer.pt").stat().st_size < 10_000
        buffer = ReplayBuffer(1_000_000, 1, (), np.int64)
        buffer.load_state_dict(torch.load(tmp_path / "buffer.pt", weights_only=True))
        assert buffer.actions[:11].tolist() == [*range(10), 0]

    def test_rows_of_another_environment_are_refused(self) -> None:
        with pytest.raises(TrainingError, match=r"holds obs of shape \(1,\); those of this environment have \(2,\)"):
            ReplayBuffer(5, 2, (), np.int64).load_state_dict(self.filled(5, 2).state_dict())


@pytest.mark.parametrize(
    "algo", [pytest.param(each, marks=[pytest.mark.slow] if each in HEAVY else []) for each in NEW]
)
class TestTraining:
    def test_an_interrupted_run_is_the_run_that_never_was(
        self, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = Run(tmp_path / "whole", algo)
        before = read(capsys)
        stopped = Run(tmp_path / "first", algo, stop_after=211)
        assert stopped.summary["status"] == "cancelled"
        assert 200 < stopped.summary["steps"] < whole.summary["steps"]
        resumed = Run(tmp_path / "second", algo, resume=stopped.checkpoint)
        assert resumed.summary["status"] == "completed"
        assert_equal(whole.content["algorithm"], resumed.content["algorithm"])
        for name in ("updates", "episodes", "metrics", "recent_returns", "recent_lengths"):
            assert_equal(whole.content["session"][name], resumed.content["session"][name])
        assert episodes(read(capsys)) == episodes(before)

    def test_a_seed_decides_the_run(self, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        one = Run(tmp_path / "one", algo, seed=8)
        first = episodes(read(capsys))
        assert_equal(one.content["algorithm"], Run(tmp_path / "two", algo, seed=8).content["algorithm"])
        assert episodes(read(capsys)) == first
        Run(tmp_path / "three", algo, seed=9)
        assert episodes(read(capsys)) != first

    def test_what_is_reported(self, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Run(tmp_path, algo)
        lines = read(capsys)
        beats = [line["payload"] for line in lines if line.get("event") == "heartbeat"]
        assert beats[-1]["step"] == SMALL[algo]["total_steps"]
        expected = {
            "ppo_continuous": {"policy_loss", "value_loss", "entropy", "approx_kl", "explained_variance"},
            "dqn": {"q_loss", "q_value", "epsilon"},
            "sac": {"q_loss", "q_value", "policy_loss", "alpha", "entropy"},
            "td3": {"q_loss", "q_value", "policy_loss"},
        }[algo]
        assert expected | {"learning_rate", "episodic_return"} <= beats[-1].keys()
        if algo != "dqn":  # 200 steps of Pendulum cost hundreds, in its own rewards
            assert beats[-1]["episodic_return"] < -300

    def test_it_reports_where_somebody_looks(
        self, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = Run(tmp_path, algo, report_steps="16,100,1000000", stop_after=60)
        assert 60 <= first.content["step"] < SMALL[algo]["total_steps"]
        Run(tmp_path, algo, resume=first.checkpoint, report_steps="16,100,1000000")
        steps = [line["payload"]["step"] for line in read(capsys) if line.get("event") == "heartbeat"]
        envs = CleanRLConfig.from_dict({"run_id": "r", "algo": algo, **SMALL[algo]}).num_envs
        for looked_at in (16, 100):
            assert steps.count(-(-looked_at // envs) * envs) == 1, steps

    def test_losses_that_are_not_finite_end_it(
        self, algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = "CartPole-v1" if algo == "dqn" else "Pendulum-v1"
        monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.envs.registration.registry))
        gym.register(
            "Broken-v0",
            entry_point=lambda: gym.wrappers.TransformReward(gym.make(known), lambda reward: float("nan")),
        )
        with pytest.raises(TrainingError, match=r"not finite any more at step \d+: .*learning_rate"):
            Run(tmp_path, algo, env_id="Broken-v0")
        assert not list(tmp_path.glob("checkpoints/*"))

    def test_dry_run(self, algo: str) -> None:
        config = CleanRLConfig.from_dict({"run_id": "r", "algo": algo, **SMALL[algo]})
        found = CleanRLRuntime(config, dry_run=True, environ={}).run()
        assert found["status"] == "dry-run"
        assert found["parameters"] > 100

    def test_another_seed_goes_on_with_other_randomness(self, algo: str, tmp_path: Path) -> None:
        stopped = Run(tmp_path / "first", algo, stop_after=150)
        more = 2 * SMALL[algo]["total_steps"]
        gone_on = Run(tmp_path / "second", algo, resume=stopped.checkpoint, seed=6, num_envs=3, total_steps=more)
        assert gone_on.summary["status"] == "completed"


@pytest.mark.parametrize("algo", ["dqn", "sac", "td3"])
def test_another_network_is_refused(algo: str, tmp_path: Path) -> None:
    stopped = Run(tmp_path / "first", algo, stop_after=100)
    with pytest.raises(ConfigError, match="hidden_size: is 32, but the checkpoint to resume from was made with 16"):
        Run(tmp_path / "second", algo, resume=stopped.checkpoint, hidden_size=32)


def test_environments_side_by_side_learn_as_often(tmp_path: Path) -> None:
    counts = [Run(tmp_path / str(n), "dqn", num_envs=n, train_frequency=4).summary["updates"] for n in (1, 2, 4, 12)]
    assert counts[0] == (600 - 60) // 4
    assert max(counts) - min(counts) <= 3  # learning may start a few steps earlier or later


def test_sigterm_saves_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "algo": "sac", **SMALL["sac"], "total_steps": 50_000_000}))
    env = {**os.environ, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cleanrl_worker.cli", "--config", str(path)],
            cwd=tmp_path, env=env, stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while "heartbeat" not in log.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        assert process.wait(60) == 143
        assert time.monotonic() - asked < 10
    last = [json.loads(line) for line in log.read_text().splitlines()][-2:]
    assert [line["event"] for line in last] == ["checkpoint_saved", "run_cancelled"]
    saved = torch.load(last[0]["payload"]["path"], weights_only=True)
    assert len(saved["algorithm"]["buffer"]["rewards"]) == min(saved["step"], 200)


def read(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Telemetry since the last time."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def episodes(lines: list[dict[str, Any]]) -> list[tuple[int, float, int]]:
    found = [line for line in lines if line.get("type") == "episode"]
    return [(line["episode"], line["total_reward"], line["metadata"]["global_step"]) for line in found]
