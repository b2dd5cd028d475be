"""What the worker development guide asks of every worker, and what this one promises beyond the contract.

Seeds, checkpoints and signals are looked at by the contract's own checks, in ``test_ray_contract.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import Lab
from ray_worker import RayConfig, get_worker_metadata, load_worker_config
from support import ray_cluster, wait_for

import mosaic_cluster
from mosaic_cluster.catalog import joins_cluster
from mosaic_cluster.worker import ConfigError, WorkerAnalyticsManifest, WorkerCapabilities, WorkerConfig, WorkerMetadata

pytestmark = pytest.mark.timeout(600)  # Ray takes its time to start where much else runs
CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)
SMALL = {
    "env_id": "CartPole-v1",
    "total_steps": 1500,
    "train_batch_size": 500,
    "num_epochs": 2,
    "checkpoint_every": 500,
    "num_env_runners": 0,
}


def start(folder: Path, config: Mapping[str, Any], *args: str, seed: int = 3, **environ: str) -> subprocess.Popen[str]:
    """The command line, as a supervisor starts it, with its output in files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "seed": seed, **config}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MOSAIC_RAY"))}
    env = {**clean, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(folder), "MOSAIC_CPUS": "1", **environ}
    command = [sys.executable, "-m", "ray_worker.cli", "--config", str(path), *args]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=err, text=True)


def train(folder: Path, config: Mapping[str, Any] = SMALL, *args: str, seed: int = 3, **environ: str) -> int:
    """Run to the end; returns the exit code."""
    return start(folder, config, *args, seed=seed, **environ).wait(400)


def events(folder: Path) -> list[dict[str, Any]]:
    """Lines of stdout, all of which must be telemetry."""
    return [json.loads(line) for line in (folder / "out").read_text().splitlines()]


def named(folder: Path, name: str) -> list[dict[str, Any]]:
    return [line["payload"] for line in events(folder) if line.get("event") == name]


def episodes(folder: Path) -> list[tuple[float, int, int]]:
    found = [line for line in events(folder) if line.get("type") == "episode"]
    return [(line["total_reward"], line["steps"], line["metadata"]["global_step"]) for line in found]


class TestConfig:
    def test_protocol(self) -> None:
        config = RayConfig(run_id="test", seed=42)
        assert isinstance(config, WorkerConfig)
        assert (config.run_id, config.seed) == ("test", 42)

    def test_round_trip(self) -> None:
        config = RayConfig(run_id="test", hidden_layers=[32], training={"lambda_": 0.9})
        assert RayConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_files_of_both_shapes(self, tmp_path: Path) -> None:
        plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
        plain.write_text(json.dumps({"run_id": "r"}))
        nested.write_text(json.dumps({"metadata": {"worker": {"config": {"run_id": "r"}}}}))
        assert load_worker_config(plain) == load_worker_config(nested)

    @pytest.mark.parametrize(
        ("given", "problems"),
        [
            ({"learning_rat": 0.1}, {"learning_rat": "learning_rate"}),
            ({"algo": "a2c", "gamma": 2, "num_envs_per_env_runner": 0},
             {"algo": "ppo", "gamma": "at most 1", "num_envs_per_env_runner": "at least 1"}),
            ({"algo": "dqn", "num_epochs": 3}, {"num_epochs": "is not a setting of dqn, but of ppo"}),
            ({"algo": "bc"}, {"dataset": "bc learns from one"}),
            ({"algo": "bc", "dataset": "/d", "num_env_runners": 2, "num_learners": 1},
             {"num_env_runners": "give 0", "num_learners": "give 0"}),
            ({"algo": "bc", "dataset": "d.parquet"}, {"dataset": "'d.parquet' is relative"}),
            ({"dataset": "d"}, {"dataset": "ppo does not learn from one"}),
            ({"env_id": "rps_v2", "algo": "dreamerv3"}, {"algo": "is for one agent"}),
            ({"env_id": "rps_v2", "algo": "dqn", "policies": "shared_value_function"}, {"policies": "goes with ppo"}),
            ({"policies": "self_play"}, {"policies": "CartPole-v1 has one"}),
            ({"env_id": "rps_v2", "opponents": 7}, {"opponents": "self_play"}),
            ({"minibatch_size": 600, "train_batch_size": 500}, {"minibatch_size": "more than train_batch_size"}),
            ({"hidden_layers": []}, {"hidden_layers": "empty"}),
        ],
    )  # fmt: skip
    def test_what_does_not_go_together(self, given: dict[str, Any], problems: dict[str, str]) -> None:
        with pytest.raises(ConfigError) as caught:
            RayConfig.from_dict({"run_id": "r", **given})
        assert {problem.path for problem in caught.value.problems} == set(problems)
        for problem in caught.value.problems:
            assert problems[problem.path] in problem.message

    @pytest.mark.parametrize(
        ("env_id", "api"),
        [
            ("CartPole-v1", "gymnasium"),
            ("ALE/Pong-v5", "gymnasium"),
            ("tictactoe_v3", "pettingzoo"),
            ("my_games.chase_v0", "pettingzoo"),
        ],
    )
    def test_names_tell_how_a_game_is_driven(self, env_id: str, api: str) -> None:
        assert RayConfig(run_id="r", env_id=env_id).api == api


class TestMetadata:
    def test_what_it_returns(self) -> None:
        metadata, capabilities = get_worker_metadata()
        assert isinstance(metadata, WorkerMetadata)
        assert isinstance(capabilities, WorkerCapabilities)
        assert (capabilities.worker_type, capabilities.supports_self_play) == ("ray", True)
        assert capabilities.supports_checkpointing
        assert joins_cluster("ray_worker")

    def test_entry_points(self) -> None:
        (worker,) = entry_points(group="mosaic.workers", name="ray")
        assert worker.value == "ray_worker:get_worker_metadata"
        (policy,) = entry_points(group="mosaic.policies", name="ray")
        assert policy.value == "ray_worker.policy:load_policy"

    def test_discovery_and_config_do_not_load_the_library(self) -> None:
        code = (
            "import sys, ray_worker as w; w.get_worker_metadata(); w.RayConfig(run_id='r'); import ray_worker.policy, "
            "ray_worker.cli, ray_worker.runtime, ray_worker.cluster; "
            "print([name for name in ('ray', 'torch', 'gymnasium') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_what_is_wrong_with_a_config_is_found_without_the_library(self, tmp_path: Path) -> None:
        began = time.monotonic()
        assert train(tmp_path, {"algo": "bc", "gama": 1}) == 2
        assert "gama" in (tmp_path / "err").read_text()
        assert events(tmp_path) == []
        assert time.monotonic() - began < 20


@pytest.mark.slow
class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "environ", "words"),
        [
            ({"num_env_runners": 4}, {"MOSAIC_CPUS": "2"}, "lower it, or set resources.cpus: 5"),
            ({"env_id": "tictactoe_v3", "algo": "dqn"}, {}, "set algo to ppo or appo or impala"),
        ],
    )
    def test_before_anything_is_started(
        self, tmp_path: Path, config: dict[str, Any], environ: dict[str, str], words: str
    ) -> None:
        assert train(tmp_path, config, "--dry-run", **environ) == 2
        assert words in (tmp_path / "err").read_text()


@pytest.mark.slow
def test_a_stop_while_ray_starts(tmp_path: Path) -> None:
    """Ray puts a handler of its own first of all; its start takes seconds."""
    process = start(tmp_path, SMALL)
    wait_for(lambda: list(Path("/tmp").glob(f"mosaic-ray-{process.pid}-*/session_*")), 120, "Ray to start")
    process.terminate()
    assert process.wait(120) == 143, (tmp_path / "err").read_text()
    assert [line["event"] for line in events(tmp_path)][-1] == "run_cancelled"
    assert not list(Path("/tmp").glob(f"mosaic-ray-{process.pid}-*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run without interruption, on a Ray of its own."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, {**SMALL, "record_episodes": 3}, "--emit-summary") == 0, (folder / "err").read_text()
    return folder


@pytest.mark.slow
class TestTraining:
    def test_lifecycle(self, whole: Path) -> None:
        names = [line["event"] for line in events(whole) if "event" in line]
        assert (names[0], names[-1]) == ("run_started", "run_completed")
        assert named(whole, "heartbeat")[-1]["step"] == 1500
        assert [payload["step"] for payload in named(whole, "checkpoint_saved")] == [500, 1000, 1500]
        summary = events(whole)[-1]
        assert (summary["type"], summary["status"], summary["step"]) == ("summary", "completed", 1500)
        manifest = WorkerAnalyticsManifest.load(whole / "analytics.json")
        assert (manifest.run_id, manifest.worker_type) == ("r1", "ray")
        assert manifest.artifacts.checkpoints is not None
        assert manifest.artifacts.checkpoints.final_checkpoint == "checkpoints/checkpoint_1500"
        for name in manifest.artifacts.checkpoints.files:
            assert (whole / name).is_dir()

    def test_nothing_is_left(self, whole: Path) -> None:
        left = {"analytics.json", "checkpoints", "config.json", "dataset", "err", "out", "policy"}
        assert {path.name for path in whole.iterdir()} == left
        processes = named(whole, "run_completed")[0]["processes"]
        assert not psutil.pid_exists(processes["algorithm"]["pid"])
        assert not [each for each in psutil.process_iter(["environ"]) if _is_of(each, whole)]

    def test_lengths_of_episodes_add_up(self, whole: Path) -> None:
        found = episodes(whole)
        assert all(reward == steps for reward, steps, _ in found)  # CartPole pays one a step
        assert 1300 < sum(steps for _, steps, _ in found) <= 1500

    def test_a_checkpoint_of_another_environment_is_refused(self, whole: Path, tmp_path: Path) -> None:
        checkpoint = str(whole / "checkpoints" / "checkpoint_1000")
        assert train(tmp_path, {**SMALL, "env_id": "Acrobot-v1"}, "--dry-run", MOSAIC_RESUME_FROM=checkpoint) == 2
        wanted = "env_id: is 'Acrobot-v1', but the checkpoint to resume from was made with 'CartPole-v1'"
        assert wanted in (tmp_path / "err").read_text()

    def test_a_dataset_goes_round(self, whole: Path, tmp_path: Path) -> None:
        """What the trained policy played is learned from by another algorithm, which then plays as it did."""
        from ray_worker.offline import read_transitions

        dataset = whole / "dataset" / "episodes.parquet"
        data = read_transitions(str(dataset))
        (told,) = named(whole, "run_completed")
        assert len(data["reward"]) == told["dataset_transitions"] > 20
        assert data["reward"].sum() / 3 == pytest.approx(told["dataset_return"])
        config = {
            "algo": "bc", "dataset": str(dataset), "total_steps": 4000, "train_batch_size": 100,
            "evaluation_every": 2000, "evaluation_episodes": 2,
        }  # fmt: skip
        assert train(tmp_path, config) == 0, (tmp_path / "err").read_text()
        assert named(tmp_path, "heartbeat")[-1]["step"] == 4000
        assert len(episodes(tmp_path)) == 4


def _is_of(process: psutil.Process, folder: Path) -> bool:
    return ((process.info["environ"] or {}).get("MOSAIC_RUN_DIR")) == str(folder)


@pytest.mark.slow
class TestPolicy:
    def test_it_acts(self, whole: Path) -> None:
        from ray_worker.policy import load_policy

        for place in (whole / "checkpoints" / "checkpoint_1500", whole / "policy"):
            policy = load_policy(str(place), game="CartPole-v1")
            assert policy.games == ("CartPole-v1",)
            seen = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
            batch = policy.act_batch(seen)
            assert batch.shape == (50,)
            assert set(batch) == {0, 1}
            assert [policy.act(each) for each in seen] == list(batch)

    def test_draws_are_seeded(self, whole: Path) -> None:
        from ray_worker.policy import load_policy

        policy = load_policy(str(whole / "policy"), deterministic=False)
        seen = np.zeros((200, 4), np.float32)
        drawn = []
        for seed in (1, 1, 2):
            policy.reset(seed)
            drawn.append(policy.act_batch(seen).tolist())
        assert drawn[0] == drawn[1] != drawn[2]

    def test_another_game_is_refused(self, whole: Path, tmp_path: Path) -> None:
        from ray_worker.policy import load_policy

        with pytest.raises(ConfigError, match="does not play 'chess_v6'"):
            load_policy(str(whole / "policy"), game="chess_v6")
        with pytest.raises(ConfigError, match="is no checkpoint of the ray worker"):
            load_policy(str(tmp_path))


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Lab]:
    """A real cluster, whose nodes have the worker."""
    with ray_cluster(Path(CONTRACT)) as cluster:
        yield Lab(tmp_path, cluster.env, cluster.address)


@pytest.mark.slow
def test_env_runners_and_learners_are_in_the_group_of_the_run(joined: Lab) -> None:
    config = {**SMALL, "num_env_runners": None, "num_learners": 1, "total_steps": 1000}
    spec = joined.write(config, worker="ray", resources={"cpus": 4})
    done = joined.mosaic("run", spec, *joined.where, timeout=500)  # of four processes each imports RLlib
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = [line["payload"] for _, line in joined.experiment.lines() if line.get("event") == "run_completed"]
    processes = told["processes"]
    assert (len(processes["env_runners"]), len(processes["learners"])) == (2, 1)
    groups = {each["group"] for each in [processes["algorithm"], *processes["env_runners"], *processes["learners"]]}
    assert len(groups) == 1
    assert None not in groups
    pids = [each["pid"] for each in [processes["algorithm"], *processes["env_runners"], *processes["learners"]]]
    wait_for(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], 30, "its actors to end")
