"""What the worker development guide asks of every worker, without any world's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from barlog_corridors import PATHS
from barlog_worker import BarlogConfig, get_worker_metadata, load_worker_config

from mosaic_cluster.catalog.environments import choose, read_environments
from mosaic_cluster.worker import (
    ConfigError,
    WorkerCapabilities,
    WorkerConfig,
    WorkerMetadata,
    WorkerRuntime,
    describe_config,
)


def start(folder: Path, config: dict[str, Any], *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a supervisor starts it."""
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    env = {**os.environ, "PYTHONPATH": PATHS, "MOSAIC_RUN_DIR": str(folder), **environ}
    command = [sys.executable, "-m", "barlog_worker.cli", "--config", str(path), *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def problems(**given: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        BarlogConfig.from_dict({"run_id": "r", "model": "m", **given})
    return {problem.path: problem.message for problem in caught.value.problems}


class TestConfig:
    def test_protocol(self) -> None:
        config = BarlogConfig(run_id="test", seed=42, model="m")
        assert isinstance(config, WorkerConfig)
        assert (config.run_id, config.seed) == ("test", 42)

    def test_round_trip(self) -> None:
        config = BarlogConfig(run_id="test", worlds=["crafter"], agent="cot", model="m", temperature=0.7)
        assert BarlogConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_every_field_says_what_it_means(self) -> None:
        assert all(field["help"] for field in describe_config(BarlogConfig))

    def test_a_typo_is_an_error(self) -> None:
        assert "did you mean 'episodes'" in problems(episode=3)["episode"]

    def test_all_problems_at_once(self) -> None:
        found = problems(
            agent="thinker", worlds=["babyai", "doom"], episodes=0, base_url="localhost:8000", api_key_env="sk-123",
            retry_delay=100,
        )  # fmt: skip
        assert set(found) == {"agent", "worlds[1]", "episodes", "base_url", "api_key_env", "retry_delay"}

    @pytest.mark.parametrize(
        ("given", "path", "words"),
        [
            ({"model": ""}, "model", "is required by the agent naive"),
            ({"worlds": []}, "worlds", "is empty"),
            ({"worlds": ["babyai", "babyai"]}, "worlds", "more than once"),
            ({"babyai_tasks": ["GoToLocal"]}, "babyai_tasks[0]", "a name like BabyAI-GoToLocal-v0"),
            ({"nethack_tasks": ["NetHackChallenge-v0"]}, "nethack_tasks[0]", "cannot be seeded"),
            ({"worlds": ["nethack"], "vision": True}, "vision", "no pictures in nethack"),
            ({"agent": "dummy", "vision": True}, "vision", "the dummy looks at nothing"),
            ({"demonstrations": "x", "agent": "few_shot"}, "demonstrations", "'x' is relative"),
            ({"demonstrations": "/x"}, "demonstrations", "are for the agent few_shot, not for naive"),
            ({"agent": "few_shot", "worlds": ["crafter"]}, "demonstrations", "nothing plays crafter well"),
            ({"base_url": "http://127.0.0.1/v1?key=1"}, "base_url", "must hold no user, password, query"),
            ({"run_id": " "}, "run_id", "must not be empty"),
        ],
    )
    def test_what_cannot_be_used(self, given: dict[str, Any], path: str, words: str) -> None:
        assert words in problems(**given)[path]

    def test_a_key_in_the_wrong_place_is_not_repeated(self) -> None:
        found = problems(api_key_env="sk-secret-1", base_url="https://me:sk-secret-2@host/v1")
        assert set(found) == {"api_key_env", "base_url"}
        assert "sk-secret" not in str(found)

    def test_the_dummy_needs_no_model(self) -> None:
        assert BarlogConfig.from_dict({"run_id": "r", "agent": "dummy"}).model == ""

    def test_files_of_both_shapes(self, tmp_path: Path) -> None:
        plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
        plain.write_text(json.dumps({"run_id": "r", "model": "m"}))
        nested.write_text(json.dumps({"metadata": {"worker": {"config": {"run_id": "r", "model": "m"}}}}))
        assert load_worker_config(plain) == load_worker_config(nested)


class TestMetadata:
    def test_what_it_returns(self) -> None:
        metadata, capabilities = get_worker_metadata()
        assert isinstance(metadata, WorkerMetadata)
        assert isinstance(capabilities, WorkerCapabilities)
        assert capabilities.worker_type == "barlog"
        assert capabilities.supports_checkpointing
        assert set(capabilities.env_families) == {"babyai", "crafter", "textworld", "nethack"}

    def test_entry_point(self) -> None:
        (found,) = entry_points(group="mosaic.workers", name="barlog")
        assert found.value == "barlog_worker:get_worker_metadata"

    def test_discovery_and_config_load_no_library(self) -> None:
        code = (
            "import sys, barlog_worker as w; w.get_worker_metadata(); w.BarlogConfig(run_id='r', agent='dummy'); "
            "w.load_policy; heavy = ('numpy', 'gym', 'minigrid', 'crafter', 'textworld'); "
            "print([name for name in heavy if name in sys.modules])"
        )
        env = {**os.environ, "PYTHONPATH": PATHS}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == "[]"

    def test_runtime(self) -> None:
        from barlog_worker import BarlogRuntime

        assert isinstance(BarlogRuntime(BarlogConfig(run_id="r", agent="dummy")), WorkerRuntime)

    def test_environment(self) -> None:
        path = Path(__file__).parent.parent / "barlog_worker" / "environment.toml"
        chosen = choose(read_environments(path), {})
        assert chosen is not None
        assert list(chosen.python) == ["3.11"]


class TestCommandLine:
    def test_a_bad_config_needs_no_library(self, tmp_path: Path) -> None:
        done = start(tmp_path, {"run_id": "r", "model": "m", "episodes": 0, "agnet": "cot"}, "--dry-run")
        assert done.returncode == 2
        assert "episodes: must be at least 1" in done.stderr
        assert "did you mean 'agent'" in done.stderr
        assert done.stdout == ""

    @pytest.mark.skipif(find_spec("crafter") is not None, reason="Crafter is installed here")
    def test_a_world_that_is_not_installed(self, tmp_path: Path) -> None:
        done = start(tmp_path, {"run_id": "r", "agent": "dummy", "worlds": ["crafter"]}, "--dry-run")
        assert done.returncode == 2
        assert "crafter cannot be played here" in done.stderr
        assert "mosaic workers install" in done.stderr
        assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["run_started", "run_failed"]

    @pytest.mark.skipif(find_spec("balrog") is not None, reason="a package balrog is installed here")
    def test_balrog_that_is_not_installed(self, tmp_path: Path) -> None:
        done = start(tmp_path, {"run_id": "r", "model": "m", "backend": "balrog"})
        assert done.returncode == 2
        assert "backend: 'balrog' was asked for, but BALROG is not installed here; install BALROG from" in done.stderr

    def test_another_package_of_that_name(self, tmp_path: Path) -> None:
        other = tmp_path / "site" / "balrog"
        other.mkdir(parents=True)
        (other / "__init__.py").write_text("policy = 1\n")  # PyPI's balrog: access control
        paths = os.pathsep.join([PATHS, str(other.parent)])
        done = start(tmp_path, {"run_id": "r", "model": "m", "backend": "balrog"}, PYTHONPATH=paths)
        assert done.returncode == 2
        assert "has no balrog.evaluator: PyPI's package of that name is another one" in done.stderr

    def test_grpc_is_accepted_with_a_warning(self, tmp_path: Path) -> None:
        done = start(tmp_path, {"run_id": "r", "model": "m", "episodes": 0}, "--grpc", "--grpc-target", "127.0.0.1:1")
        assert "--grpc is accepted and ignored" in done.stderr
