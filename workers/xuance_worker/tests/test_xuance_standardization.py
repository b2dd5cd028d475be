"""What the contract asks of every worker, without XuanCe: metadata, discovery, config, the table of algorithms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xuance_worker
from xuance_worker import XuanCeConfig, get_worker_metadata, load_worker_config
from xuance_worker.algorithms import ALGORITHMS, CONTINUOUS, DISCRETE, MPE, MULTI, SINGLE
from xuance_worker.evaluation import Enough, Quota, Stopped
from xuance_worker.runtime import XuanCeRuntime

import mosaic_cluster
from mosaic_cluster.testing import ContractCase, WorkerContract, case_of
from mosaic_cluster.worker import (
    ConfigError,
    WorkerCapabilities,
    WorkerConfig,
    WorkerMetadata,
    describe_config,
)


@pytest.mark.xdist_group("contract of xuance, without its library")
class TestContract(WorkerContract):
    """What can be checked from outside without XuanCe."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        """Its own case."""
        return case_of("xuance", "xuance_worker", library=False)


CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)
PACKAGE = Path(xuance_worker.__file__).parent


def problems(**given: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        XuanCeConfig.from_dict({"run_id": "r", **given})
    return {problem.path: problem.message for problem in caught.value.problems}


class TestQuota:
    def test_short_episodes_do_not_crowd_out_long_ones(self) -> None:
        """One environment's episodes take 1 step and get 1, the other's take 7 and get 7."""
        quota = Quota(5, 2, lambda: False)
        for step in range(1, 100):
            infos = [{"episode_score": 1.0}, {"episode_score": {"a": 3.0, "b": 4.0}}]
            try:
                quota(infos, [0, 1] if step % 7 == 0 else [0])
            except Enough:
                break
        assert quota.scores == [1.0, 1.0, 1.0, 7.0, 7.0]
        assert step == 14

    def test_a_stop_is_heeded_at_every_step(self) -> None:
        with pytest.raises(Stopped):
            Quota(1, 1, lambda: True)([{}], [])


class TestCheckpoints:
    def runtime(self, folder: Path, **environ: str) -> XuanCeRuntime:
        config = XuanCeConfig(run_id="r", algo="RANDOM", env_id="simple_spread_v3")
        given = {"MOSAIC_RUN_DIR": str(folder), "MOSAIC_CHECKPOINT_DIR": str(folder / "checkpoints"), **environ}
        return XuanCeRuntime(config, environ=given)

    @pytest.mark.parametrize("masked", [True, False])
    def test_they_say_whether_actions_were_masked(self, tmp_path: Path, masked: bool) -> None:
        from xuance_worker.checkpoints import read_about

        settings = SimpleNamespace(use_actions_mask=masked)
        training = SimpleNamespace(agent=None, kind="discrete", spaces=dict, settings=settings)
        self.runtime(tmp_path)._save(training, 1)
        assert read_about(tmp_path / "checkpoints" / "checkpoint_0")["masked"] is masked

    def test_what_a_killed_attempt_left_is_removed(self, tmp_path: Path) -> None:
        from xuance_worker.checkpoints import remove_unfinished

        for name in (".checkpoint_5.123.tmp", "checkpoint_4"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "state.pt").touch()
        remove_unfinished(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_4"]


class TestConfig:
    def test_protocol(self) -> None:
        config = XuanCeConfig(run_id="test", seed=42)
        assert isinstance(config, WorkerConfig)
        assert (config.run_id, config.seed, config.env_id) == ("test", 42, "CartPole-v1")

    @pytest.mark.parametrize("algo", [name for name, each in ALGORITHMS.items() if not each.missing])
    def test_every_algorithm_has_an_environment_and_round_trips(self, algo: str) -> None:
        config = XuanCeConfig.from_dict({"run_id": "r", "algo": algo})
        assert config.env_id in ("CartPole-v1", "Pendulum-v1", "simple_spread_v3")
        assert XuanCeConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize("algo", [name for name, each in ALGORITHMS.items() if each.missing])
    def test_what_cannot_run_says_why(self, algo: str) -> None:
        found = problems(algo=algo)
        assert set(found) == {"algo"}
        assert f"{algo} cannot run here: it {ALGORITHMS[algo].missing}" in found["algo"]

    def test_all_problems_at_once(self) -> None:
        found = problems(
            algo="IPPO",
            env_id="simple_spred_v3",
            gamma=2,
            num_envs=0,
            learning_rte=1,
            parameters={"running_steps": 5, "vectorize": "SubprocVecEnv", "anything": 1},
        )
        assert set(found) == {
            "env_id", "gamma", "num_envs", "learning_rte", "parameters.running_steps", "parameters.vectorize",
        }  # fmt: skip
        assert "did you mean 'simple_spread_v3'?" in found["env_id"]
        assert "did you mean 'learning_rate'?" in found["learning_rte"]
        assert "is set by total_steps" in found["parameters.running_steps"]
        assert "decided by this worker" in found["parameters.vectorize"]

    @pytest.mark.parametrize(
        ("given", "path", "words"),
        [
            ({"algo": "PPO", "env_id": "simple_spread_v3"}, "env_id", "has several agents, PPO has one"),
            ({"algo": "MAPPO", "env_id": "CartPole-v1"}, "env_id", "none of PettingZoo's particle worlds"),
            ({"algo": "MAPPO", "env_id": "my games:make"}, "env_id", "module:function"),
            ({"algo": "PPO", "continuous_actions": True}, "continuous_actions", "particle worlds"),
            ({"algo": "QMIX", "continuous_actions": True}, "continuous_actions", "takes only discrete actions"),
            ({"algo": "MADDPG", "continuous_actions": False}, "continuous_actions", "takes only continuous actions"),
            ({"algo": "DQN", "share_parameters": True}, "share_parameters", "has one agent"),
            ({"total_steps": 4, "num_envs": 8}, "total_steps", "less than one step"),
            ({"algo": "ppo"}, "algo", "must be one of"),
            ({"run_id": " "}, "run_id", "must not be empty"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_go_together(self, given: dict[str, Any], path: str, words: str) -> None:
        found = problems(**given)
        assert words in found[path]

    def test_own_environments_are_taken_by_name(self) -> None:
        assert XuanCeConfig(run_id="r", algo="MAPPO", env_id="games.pursuit:make").own_environment
        assert XuanCeConfig(run_id="r", algo="PPO", env_id="games:Maze.make").own_environment

    def test_files_of_both_shapes(self, tmp_path: Path) -> None:
        plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
        plain.write_text(json.dumps({"run_id": "r", "algo": "QMIX"}))
        nested.write_text(json.dumps({"metadata": {"worker": {"config": {"run_id": "r", "algo": "QMIX"}}}}))
        assert load_worker_config(plain) == load_worker_config(nested)

    def test_every_setting_is_explained(self) -> None:
        described = describe_config(XuanCeConfig)
        assert [each["name"] for each in described if not each["help"]] == []


class TestAlgorithms:
    def test_all_of_them(self) -> None:
        assert len(ALGORITHMS) == 52
        assert sum(not each.missing for each in ALGORITHMS.values()) == 45
        assert all(name == each.name for name, each in ALGORITHMS.items())

    def test_each_can_run_or_says_why_not(self) -> None:
        for each in ALGORITHMS.values():
            assert bool(each.forms) != bool(each.missing), each.name
            assert set(each.forms) <= {DISCRETE, CONTINUOUS}
            assert each.agents in (SINGLE, MULTI)
            assert each.title
            if each.together:
                assert each.agents == MULTI
            for form in each.forms.values():
                assert form.template.startswith("mpe/" if each.agents == MULTI else "classic_control/")
                assert form.changes.get("agent", each.name) == each.name

    def test_the_page_has_the_table(self) -> None:
        page = Path(CONTRACT) / "docs" / "workers" / "xuance.md"
        if not page.exists():
            pytest.skip("the package is tested apart from its repository")
        text = page.read_text()
        rows = {line.split("|")[1].strip().strip("`"): line for line in text.splitlines() if line.startswith("| `")}
        for each in ALGORITHMS.values():
            assert each.name in rows, each.name
            if each.missing:
                assert "refused" in rows[each.name]
            else:
                assert all(kind in rows[each.name] for kind in each.actions), each.name
        assert all(world in text for world in MPE)


class TestMetadata:
    def test_what_it_returns(self) -> None:
        metadata, capabilities = get_worker_metadata()
        assert isinstance(metadata, WorkerMetadata)
        assert isinstance(capabilities, WorkerCapabilities)
        assert capabilities.worker_type == "xuance"
        assert capabilities.supports_checkpointing
        assert capabilities.is_multi_agent()
        assert (metadata.upstream_library, metadata.upstream_version) == ("xuance", "1.4.4")

    def test_entry_points(self) -> None:
        (found,) = entry_points(group="mosaic.workers", name="xuance")
        assert found.value == "xuance_worker:get_worker_metadata"
        (policies,) = entry_points(group="mosaic.policies", name="xuance")
        assert policies.value == "xuance_worker.policy:load_policy"

    def test_discovery_config_and_policy_module_load_no_library(self) -> None:
        code = (
            "import sys, xuance_worker as w, xuance_worker.policy; w.get_worker_metadata(); "
            "w.XuanCeConfig(run_id='r', algo='QMIX'); "
            "print(sorted({'torch', 'xuance', 'numpy', 'gymnasium', 'pettingzoo'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_the_environment_has_the_release_it_names(self) -> None:
        with (PACKAGE / "environment.toml").open("rb") as file:
            (environment,) = tomllib.load(file)["environment"]
        steps = [package for step in environment["steps"] for package in step["pip"]]
        assert f"xuance=={xuance_worker.UPSTREAM_VERSION}" in steps
        assert steps[0].startswith("torch==")  # first: what pulls a bare torch later would fetch gigabytes of CUDA


def start(folder: Path, config: dict[str, Any], *args: str) -> subprocess.CompletedProcess[str]:
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "seed": 3, **config}))
    env = {**os.environ, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(folder)}
    command = [sys.executable, "-m", "xuance_worker.cli", "--config", str(path), *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


class TestCommandLine:
    def test_a_bad_config_needs_no_library(self, tmp_path: Path) -> None:
        done = start(tmp_path, {"algo": "QMIX", "env_id": "simple_spred_v3", "gama": 0.9}, "--dry-run")
        assert done.returncode == 2
        assert done.stdout == ""
        assert "did you mean 'simple_spread_v3'?" in done.stderr
        assert "did you mean 'gamma'?" in done.stderr

    def test_without_the_library_it_says_so(self, tmp_path: Path) -> None:
        if subprocess.run([sys.executable, "-c", "import xuance"], capture_output=True, check=False).returncode == 0:
            pytest.skip("XuanCe is installed here")
        done = start(tmp_path, {}, "--dry-run")
        assert done.returncode == 0
        assert "the config alone was checked" in done.stderr
        done = start(tmp_path, {})
        assert done.returncode == 2
        assert "mosaic workers install xuance" in done.stderr
        assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["run_started", "run_failed"]
