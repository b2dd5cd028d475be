"""What the worker development guide asks of every worker, and what this one promises beyond that."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from cleanrl_worker import CleanRLConfig, get_worker_metadata, load_worker_config
from cleanrl_worker.checkpoints import CheckpointStore, load_checkpoint
from cleanrl_worker.session import Session

import mosaic_cluster
from mosaic_cluster.worker import (
    ConfigError,
    TelemetryEmitter,
    WorkerAnalyticsManifest,
    WorkerCapabilities,
    WorkerConfig,
    WorkerMetadata,
)

SMALL = {"env_id": "CartPole-v1", "total_steps": 2048, "num_envs": 4, "num_steps": 64, "checkpoint_every": 512}
CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)


def train(
    folder: Path, *args: str, config: Mapping[str, Any] = SMALL, seed: int | None = 3, **environ: str
) -> subprocess.CompletedProcess[str]:
    """The command line, as a supervisor starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "seed": seed, **config}))
    env = {**os.environ, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(folder), **environ}
    command = [sys.executable, "-m", "cleanrl_worker.cli", "--config", str(path), *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Lines of stdout, all of which must be telemetry."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(done: subprocess.CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    return [line["payload"] for line in events(done) if line.get("event") == name]


def episodes(done: subprocess.CompletedProcess[str]) -> list[tuple[int, float, int]]:
    found = [line for line in events(done) if line.get("type") == "episode"]
    return [(line["episode"], line["total_reward"], line["metadata"]["global_step"]) for line in found]


def final(folder: Path, step: int = 2048) -> dict[str, Any]:
    """The content of a checkpoint."""
    content: dict[str, Any] = torch.load(folder / "checkpoints" / f"checkpoint_{step}.pt", weights_only=True)
    return content


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Deep equality, of tensors too."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    else:
        assert one == other, where


class TestConfig:
    def test_protocol(self) -> None:
        config = CleanRLConfig(run_id="test", seed=42)
        assert isinstance(config, WorkerConfig)
        assert (config.run_id, config.seed) == ("test", 42)

    def test_round_trip(self) -> None:
        config = CleanRLConfig(run_id="test", total_steps=1024)
        assert CleanRLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_a_typo_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="learning_rate"):
            CleanRLConfig.from_dict({"run_id": "r", "learning_rat": 0.1})

    def test_all_problems_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            CleanRLConfig.from_dict({"run_id": "r", "gamma": 2, "num_envs": 0, "algo": "a2c"})
        assert {problem.path for problem in caught.value.problems} == {"gamma", "num_envs", "algo"}

    def test_files_of_both_shapes(self, tmp_path: Path) -> None:
        plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
        plain.write_text(json.dumps({"run_id": "r"}))
        nested.write_text(json.dumps({"metadata": {"worker": {"config": {"run_id": "r"}}}}))
        assert load_worker_config(plain) == load_worker_config(nested)


class TestMetadata:
    def test_what_it_returns(self) -> None:
        metadata, capabilities = get_worker_metadata()
        assert isinstance(metadata, WorkerMetadata)
        assert isinstance(capabilities, WorkerCapabilities)
        assert capabilities.worker_type == "cleanrl"
        assert capabilities.supports_checkpointing

    def test_entry_point(self) -> None:
        (found,) = entry_points(group="mosaic.workers", name="cleanrl")
        assert found.value == "cleanrl_worker:get_worker_metadata"

    def test_discovery_does_not_load_the_library(self) -> None:
        code = "import sys, cleanrl_worker as w; w.get_worker_metadata(); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestCommandLine:
    def test_dry_run(self, tmp_path: Path) -> None:
        done = train(tmp_path, "--dry-run")
        assert done.returncode == 0, done.stderr
        assert [line["event"] for line in events(done)] == ["run_started", "run_completed"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]

    def test_summary(self, tmp_path: Path) -> None:
        done = train(tmp_path, "--dry-run", "--emit-summary")
        summary = events(done)[-1]
        assert (summary["type"], summary["status"], summary["run_id"]) == ("summary", "dry-run", "r1")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"env_id": "CartPole-v99"}, "CartPole-v99"),
            ({"env_id": "Pendulum-v1"}, "takes only Discrete action spaces: set algo to ppo_continuous, sac or td3"),
            ({"gamma": 3}, "gamma: must be at least 0 and at most 1"),
            ({"device": "cuda"}, "sees no GPU here"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, tmp_path: Path, change: dict[str, Any], words: str) -> None:
        done = train(tmp_path, config={**SMALL, **change}, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 2
        assert words in done.stderr

    def test_sigterm_saves_and_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"run_id": "r1", "seed": 1, "total_steps": 50_000_000}))
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
            assert process.wait(60) == 143
        last = [json.loads(line) for line in log.read_text().splitlines()][-2:]
        assert [line["event"] for line in last] == ["checkpoint_saved", "run_cancelled"]
        assert Path(last[0]["payload"]["path"]).stat().st_size > 1000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder, done


class TestBestCheckpoint:
    def session(self, folder: Path, resumed: Path | None = None) -> Session:
        return Session(
            CleanRLConfig(run_id="r"),
            seed=1,
            device=torch.device("cpu"),
            emitter=TelemetryEmitter("r", sink=io.StringIO()),
            store=CheckpointStore(folder, keep=1),
            resumed=None if resumed is None else load_checkpoint(resumed),
            resumed_from=resumed,
        )

    def test_it_stays_beside_the_newest_over_all_attempts(self, tmp_path: Path) -> None:
        first = self.session(tmp_path)
        for step, value in ((10, 3.0), (20, 9.0), (30, 4.0), (40, 5.0)):
            first.step = step
            first.recent_returns.clear()
            first.episode(value, 10, True, False)
            first.checkpoint(dict)
        kept = sorted(path.name for path in tmp_path.iterdir())
        assert kept == ["checkpoint_20.pt", "checkpoint_40.pt"]
        second = self.session(tmp_path, tmp_path / "checkpoint_40.pt")
        second.step = 50
        second.checkpoint(dict)
        assert second.best_checkpoint == tmp_path / "checkpoint_20.pt"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_20.pt", "checkpoint_50.pt"]
        (tmp_path / "checkpoint_20.pt").unlink()
        assert self.session(tmp_path, tmp_path / "checkpoint_50.pt").best_checkpoint is None

    def test_another_runs_is_not_taken_over(self, tmp_path: Path) -> None:
        for name, value in (("one", 9.0), ("other", 3.0)):
            session = self.session(tmp_path / name)
            session.step = 10
            session.episode(value, 10, True, False)
            session.checkpoint(dict)
        assert self.session(tmp_path / "one", tmp_path / "one" / "checkpoint_10.pt").best_checkpoint is not None
        copied = self.session(tmp_path / "other", tmp_path / "one" / "checkpoint_10.pt")
        assert copied.best_checkpoint is None
        copied.step = 20
        copied.recent_returns.clear()
        copied.episode(5.0, 10, True, False)
        copied.checkpoint(dict)
        assert copied.best_checkpoint == tmp_path / "other" / "checkpoint_20.pt"


class TestTraining:
    def test_lifecycle(self, whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
        folder, done = whole
        names = [line["event"] for line in events(done) if "event" in line]
        assert (names[0], names[-1]) == ("run_started", "run_completed")
        assert named(done, "heartbeat")[-1]["step"] == 2048
        assert [payload["step"] for payload in named(done, "checkpoint_saved")] == [512, 1024, 1536, 2048]
        manifest = WorkerAnalyticsManifest.load(folder / "analytics.json")
        assert (manifest.run_id, manifest.worker_type) == ("r1", "cleanrl")
        assert manifest.artifacts.checkpoints is not None
        for name in manifest.artifacts.checkpoints.files:
            assert (folder / name).is_file()
        scores = {payload["path"]: payload["score"] for payload in named(done, "checkpoint_saved")}
        best = manifest.artifacts.checkpoints.best_checkpoint
        assert best is not None
        assert scores[str(folder / best)] == max(scores.values())
        assert manifest.artifacts.checkpoints.final_checkpoint == "checkpoints/checkpoint_2048.pt"

    def test_a_seed_gives_the_same_run(
        self, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
    ) -> None:
        folder, done = whole
        again, other = train(tmp_path / "again"), train(tmp_path / "other", seed=4)
        assert episodes(again) == episodes(done)
        assert episodes(other) != episodes(done)
        assert_equal(final(folder)["algorithm"], final(tmp_path / "again")["algorithm"])

    def test_a_resumed_run_is_the_run_that_was_never_interrupted(
        self, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
    ) -> None:
        folder, done = whole
        checkpoint = folder / "checkpoints" / "checkpoint_1024.pt"
        resumed = train(tmp_path, MOSAIC_RESUME_FROM=str(checkpoint))
        assert resumed.returncode == 0, resumed.stderr
        assert named(resumed, "checkpoint_loaded") == [{"path": str(checkpoint), "step": 1024}]
        assert episodes(resumed) == [each for each in episodes(done) if each[2] > 1024]
        assert_equal(final(folder)["algorithm"], final(tmp_path)["algorithm"])

    def test_a_checkpoint_of_another_environment_is_refused(
        self, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
    ) -> None:
        checkpoint = whole[0] / "checkpoints" / "checkpoint_1024.pt"
        done = train(
            tmp_path, config={**SMALL, "env_id": "Acrobot-v1"}, MOSAIC_RESUME_FROM=str(checkpoint)
        )  # fmt: skip
        assert done.returncode == 2
        assert "env_id: is 'Acrobot-v1', but the checkpoint to resume from was made with 'CartPole-v1'" in done.stderr

    def test_a_broken_checkpoint_is_a_failure_that_says_so(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.pt"
        broken.write_bytes(b"not a checkpoint")
        done = train(tmp_path, MOSAIC_RESUME_FROM=str(broken))
        assert done.returncode == 1
        assert str(broken) in done.stderr
        assert "unset MOSAIC_RESUME_FROM to start anew" in done.stderr
