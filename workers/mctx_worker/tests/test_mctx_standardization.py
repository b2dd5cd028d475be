"""What the worker development guide asks of every worker, and what this one promises without its library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mctx_worker import MctxConfig, get_worker_metadata, load_worker_config
from mctx_worker.analytics import score
from mctx_worker.config import DEFAULTS, PLAYERS, REFUSED
from mctx_worker.runtime import MctxRuntime

import mosaic_cluster
from mosaic_cluster.catalog.environments import FILE, choose, read_environments
from mosaic_cluster.worker import (
    ConfigError,
    WorkerAnalyticsManifest,
    WorkerCapabilities,
    WorkerConfig,
    WorkerMetadata,
    WorkerSession,
    describe_config,
)

PACKAGE = Path(__file__).parent.parent / "mctx_worker"
CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)


def run_here(folder: Path, config: dict[str, Any], *args: str) -> subprocess.CompletedProcess[str]:
    """The command line with this Python, which has no JAX."""
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", **config}))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([CONTRACT, str(PACKAGE.parent)]), "MOSAIC_RUN_DIR": str(folder)}
    command = [sys.executable, "-m", "mctx_worker.cli", "--config", str(path), *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def refused(**settings: Any) -> dict[str, str]:
    """Problems of a config, by path."""
    with pytest.raises(ConfigError) as caught:
        MctxConfig.from_dict({"run_id": "r", **settings})
    return {problem.path: problem.message for problem in caught.value.problems}


class TestConfig:
    def test_protocol(self) -> None:
        config = MctxConfig(run_id="test", seed=42)
        assert isinstance(config, WorkerConfig)
        assert (config.run_id, config.seed) == ("test", 42)

    @pytest.mark.parametrize("algo", DEFAULTS)
    @pytest.mark.parametrize("env_id", ["tic_tac_toe", "2048"])
    def test_round_trip(self, algo: str, env_id: str) -> None:
        config = MctxConfig(run_id="test", algo=algo, env_id=env_id, total_steps=1024)
        assert MctxConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_defaults_follow_the_algorithm_and_the_game(self) -> None:
        gumbel, puct = MctxConfig(run_id="r"), MctxConfig(run_id="r", algo="alphazero", env_id="2048")
        assert (gumbel.max_considered_actions, gumbel.discount) == (16, 1.0)
        assert (puct.dirichlet_alpha, puct.temperature, puct.discount) == (0.3, 1.0, 0.997)
        assert "dirichlet_alpha" not in gumbel.to_dict()
        assert "max_considered_actions" not in puct.to_dict()

    def test_every_field_says_what_it_means(self) -> None:
        described = describe_config(MctxConfig)
        assert len(described) > 30
        assert [each["name"] for each in described if not each["help"]] == []

    def test_a_typo_is_an_error(self) -> None:
        assert "learning_rate" in refused(learning_rat=0.1)["learning_rat"]

    def test_all_problems_at_once(self) -> None:
        found = refused(env_id="chequers", num_envs=0, learning_rate=2, eval_games=7, dirichlet_alpha=0.5, run_id=" ")
        assert set(found) == {"env_id", "num_envs", "learning_rate", "eval_games", "dirichlet_alpha", "run_id"}
        assert "tic_tac_toe" in found["env_id"]
        assert "is not a setting of gumbel_alphazero, but of alphazero" in found["dirichlet_alpha"]

    @pytest.mark.parametrize("game", REFUSED)
    def test_games_that_cannot_be_searched_are_refused_with_the_reason(self, game: str) -> None:
        assert "search of the true game would look at what is hidden" in refused(env_id=game)["env_id"]
        assert game not in PLAYERS

    def test_a_buffer_that_could_never_be_learned_from(self) -> None:
        assert "set it to 512 or more" in refused(buffer_size=300)["buffer_size"]
        assert "learning never starts" in refused(learning_starts=40_000)["learning_starts"]

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
        assert (capabilities.worker_type, capabilities.supports_self_play) == ("mctx", True)
        assert capabilities.supports_checkpointing

    @pytest.mark.parametrize(
        ("group", "value"),
        [("mosaic.workers", "mctx_worker:get_worker_metadata"), ("mosaic.policies", "mctx_worker.policy:load_policy")],
    )
    def test_entry_points(self, group: str, value: str) -> None:
        (found,) = entry_points(group=group, name="mctx")
        assert found.value == value

    def test_discovery_needs_no_library(self) -> None:
        code = (
            "import sys, mctx_worker as w, mctx_worker.cli, mctx_worker.config\n"
            "w.get_worker_metadata()\n"
            "print([name for name in ('jax', 'numpy', 'pgx', 'mctx') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestEnvironment:
    def test_a_gpu_gets_another_one(self) -> None:
        declared = read_environments(PACKAGE / FILE)
        names = {device: choose(declared, {"device": device}) for device in ("cpu", "auto", "cuda")}
        assert {device: found.name for device, found in names.items() if found} == {
            "cpu": "default",
            "auto": "default",
            "cuda": "cuda",
        }

    def test_both_have_the_same_versions(self) -> None:
        cuda, default = (
            sorted(line.replace("jax[cuda12]", "jax") for step in each.steps for line in step.pip)
            for each in read_environments(PACKAGE / FILE)
        )
        assert cuda == default
        assert "mctx==0.0.71" in default


class TestCommandLine:
    @pytest.mark.parametrize("args", [(), ("--dry-run",)])
    def test_a_config_that_cannot_be_used_is_refused_without_the_library(
        self, tmp_path: Path, args: tuple[str, ...]
    ) -> None:
        done = run_here(tmp_path, {"env_id": "leduc_holdem", "num_simulations": 0}, *args)
        assert done.returncode == 2
        assert "env_id: leduc_holdem cannot be learned here" in done.stderr
        assert "num_simulations: must be at least 1" in done.stderr
        assert done.stdout == ""
        assert not (tmp_path / "checkpoints").exists()

    def test_without_its_library_a_run_fails_and_says_so(self, tmp_path: Path) -> None:
        if subprocess.run([sys.executable, "-c", "import jax"], capture_output=True, check=False).returncode == 0:
            pytest.skip("this Python has JAX")
        done = run_here(tmp_path, {}, "--dry-run")
        assert done.returncode == 1
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["event"] for line in lines] == ["run_started", "run_failed"]
        assert "jax" in done.stderr


class TestBestCheckpoint:
    def test_only_what_was_evaluated_is_judged(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        environ = {"MOSAIC_RUN_DIR": str(tmp_path), "MOSAIC_CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
        session = WorkerSession("mctx", MctxConfig(run_id="r"), environ=environ)

        def train(session: WorkerSession) -> dict[str, Any]:
            session.episode(0.0, 5)
            for step, metrics in (
                (100, {"episodic_return": -0.9, "evaluated_at": 0}),
                (200, {"episodic_return": -0.5, "evaluated_at": 200}),
                (300, {"episodic_return": -0.5, "evaluated_at": 200}),
            ):
                session.step = step
                path = session.checkpoint_dir / f"checkpoint_{step}.npz"
                path.touch()
                session.saved(path, score=score(metrics, step))
            return {}

        session.run(train)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        saved = [line["payload"]["score"] for line in lines if line.get("event") == "checkpoint_saved"]
        assert saved == ["NaN", -0.5, "NaN"]
        manifest = WorkerAnalyticsManifest.load(tmp_path / "analytics.json")
        assert manifest.artifacts.checkpoints is not None
        assert manifest.artifacts.checkpoints.best_checkpoint == "checkpoints/checkpoint_200.npz"


class TestSeed:
    def test_a_run_that_goes_on_has_its_checkpoints(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint_1.npz"
        np.savez(path, header=np.frombuffer(json.dumps({"format": 1, "seed": 77}).encode(), np.uint8))
        environ = {"MOSAIC_RUN_DIR": str(tmp_path), "MOSAIC_RESUME_FROM": str(path)}
        assert MctxRuntime(MctxConfig(run_id="r"), environ=environ).config.seed == 77
        assert MctxRuntime(MctxConfig(run_id="r", seed=5), environ=environ).config.seed == 5
        path.write_bytes(b"no archive")
        assert MctxRuntime(MctxConfig(run_id="r"), environ=environ).config.seed is not None


def test_a_session_knows_when_a_sweep_looks_next(capsys: pytest.CaptureFixture[str]) -> None:
    """What an evaluation right before that heartbeat is timed by."""
    session = WorkerSession("mctx", MctxConfig(run_id="r"), environ={"MOSAIC_REPORT_STEPS": "100,200"})
    seen = []
    for step in (90, 110, 150, 200, 300):
        session.step = step
        seen.append((session.report_due, session.heartbeat()))
    assert seen == [(False, False), (True, True), (False, False), (True, True), (False, False)]
    assert len(capsys.readouterr().out.splitlines()) == 2
