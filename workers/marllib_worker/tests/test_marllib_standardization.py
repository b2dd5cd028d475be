"""What is asked of every worker, and what of this one can be told without its libraries."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import mosaic_cluster
import pytest
from mosaic_cluster.catalog.environments.declared import choose
from mosaic_cluster.catalog.environments.reading import read_environments
from mosaic_cluster.worker import (
    ConfigError,
    MosaicError,
    WorkerCapabilities,
    WorkerConfig,
    WorkerMetadata,
    WorkerSession,
)

import marllib_worker
from marllib_worker import MarllibConfig, get_worker_metadata, load_worker_config, marllib_backend, results
from marllib_worker.algorithms import ALGORITHMS, DEFAULTS, GAMES, SETTINGS, algorithms_of, settings_for
from marllib_worker.analytics import (
    DESCRIPTION,
    checkpoint_problems,
    describe_checkpoint,
    description,
    remove_unfinished,
)
from marllib_worker.config import library_settings
from marllib_worker.policy import load_policy, place_of
from marllib_worker.scratch import make_scratch
from marllib_worker.seeds import environment_seed

PACKAGE = Path(marllib_worker.__file__).parent
CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)


def config_of(**given: Any) -> MarllibConfig:
    return MarllibConfig.from_dict({"run_id": "r1", **given})


def problems_of(**given: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config_of(**given)
    return {problem.path: problem.message for problem in caught.value.problems}


def start(folder: Path, *args: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """The command line, as a supervisor starts it, with our own interpreter, which has neither library."""
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", **given}))
    env = {**os.environ, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(folder)}
    command = [sys.executable, "-m", "marllib_worker.cli", "--config", str(path), *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


class TestMetadata:
    def test_what_it_returns(self) -> None:
        metadata, capabilities = get_worker_metadata()
        assert isinstance(metadata, WorkerMetadata)
        assert isinstance(capabilities, WorkerCapabilities)
        assert (capabilities.worker_type, capabilities.supports_checkpointing) == ("marllib", True)
        assert capabilities.is_multi_agent()

    @pytest.mark.parametrize("group", ["mosaic.workers", "mosaic.policies"])
    def test_entry_points(self, group: str) -> None:
        (found,) = entry_points(group=group, name="marllib")
        assert callable(found.load())

    def test_every_file_is_python_3_8_source(self) -> None:
        """MARLlib's interpreter is old, and the contract's own floor is 3.8."""
        for path in PACKAGE.glob("*.py"):
            ast.parse(path.read_text(), feature_version=(3, 8))


class TestAlgorithms:
    def test_the_counts(self) -> None:
        assert len(algorithms_of("marllib")) == 17
        assert set(algorithms_of("benchmarl")) == {
            "mappo", "ippo", "maddpg", "iddpg", "masac", "isac", "qmix", "vdn", "iql",
        }  # fmt: skip
        of_marllib = [ALGORITHMS[name].paradigm for name in algorithms_of("marllib")]
        assert {paradigm: of_marllib.count(paradigm) for paradigm in ("IL", "CC", "VD")} == {"IL": 4, "CC": 7, "VD": 6}

    @pytest.mark.parametrize(
        ("backend", "algo"), [(backend, algo) for backend in SETTINGS for algo in algorithms_of(backend)]
    )
    def test_each_takes_a_config_of_defaults(self, backend: str, algo: str) -> None:
        config = config_of(backend=backend, algo=algo)
        assert library_settings(config)
        for name in DEFAULTS[backend].get(ALGORITHMS[algo].family, {}):
            apart = name in ("gamma", "num_envs", "reward_scale")
            assert apart or settings_for(backend, algo, name), f"a default that goes nowhere: {name}"

    def test_units(self) -> None:
        """MARLlib counts a rollout in episodes of 25 steps, BenchMARL in steps."""
        assert library_settings(config_of(algo="mappo", rollout_steps=110))["batch_episode"] == 5
        found = library_settings(config_of(backend="benchmarl", algo="mappo", rollout_steps=110))
        assert found["on_policy_collected_frames_per_batch"] == 110
        assert library_settings(config_of(algo="qmix", buffer_size=1000))["buffer_size"] == 40
        assert library_settings(config_of(algo="maddpg", learning_rate=0.1))["actor_lr"] == 0.1


class TestConfig:
    def test_protocol_and_round_trip(self) -> None:
        config = config_of(seed=3, parameters={"num_sgd_iter": 3})
        assert isinstance(config, WorkerConfig)
        assert MarllibConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text(json.dumps({"metadata": {"worker": {"config": {"run_id": "x"}}}}))
        assert load_worker_config(tmp_path / "c.json").run_id == "x"

    def test_all_problems_at_once(self) -> None:
        found = problems_of(algo="maddpg", backend="benchmarl", clip_coef=0.2, gae_lambda=0.9, num_workers=1)
        assert set(found) == {"clip_coef", "gae_lambda", "num_workers"}
        assert "not a setting of maddpg with backend benchmarl" in found["clip_coef"]
        assert set(problems_of(algo="ppo", gamma=2, learning_rat=1)) == {"algo", "gamma", "learning_rat"}

    @pytest.mark.parametrize(
        ("given", "path", "words"),
        [
            ({"algo": "happo", "backend": "benchmarl"}, "algo", "set backend to marllib"),
            ({"algo": "masac"}, "algo", "set backend to benchmarl"),
            ({"algo": "qmix", "env_id": "simple_tag_v3"}, "env_id", "plays simple_spread_v3, simple_reference_v3"),
            ({"algo": "ippo", "env_id": "simple_tag_v3"}, "share_policy", "set it to individual"),
            ({"algo": "vdn", "share_policy": "individual"}, "share_policy", "only one policy for all"),
            ({"episode_steps": 50}, "episode_steps", "use backend benchmarl"),
            ({"reward_scale": 0.5}, "reward_scale", "benchmarl"),
            ({"hidden_sizes": []}, "hidden_sizes", "at least one layer"),
            ({"run_id": ""}, "run_id", "must not be empty"),
        ],
    )
    def test_what_does_not_fit_together(self, given: dict[str, Any], path: str, words: str) -> None:
        assert words in problems_of(**given)[path]


class TestEnvironments:
    def test_which_one_a_config_gets(self) -> None:
        declared = read_environments(PACKAGE / "environment.toml")
        for backend, python in (("marllib", "3.9"), ("benchmarl", "3.11")):
            found = choose(declared, {"backend": backend}, {})
            assert found is not None
            assert found.name == backend
            assert found.python[0] == python

    def test_without_a_backend_the_default_is_marllibs(self) -> None:
        found = choose(read_environments(PACKAGE / "environment.toml"), {}, {"backend": MarllibConfig("x").backend})
        assert found is not None
        assert found.name == "marllib"


class TestCommandLine:
    @pytest.mark.parametrize("backend", ["marllib", "benchmarl"])
    def test_without_the_library_it_says_what_to_do(self, tmp_path: Path, backend: str) -> None:
        done = start(tmp_path, "--dry-run", backend=backend)
        assert done.returncode == 2
        assert f"backend: {backend} cannot be imported here" in done.stderr
        assert "mosaic workers install marllib" in done.stderr
        assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["run_started", "run_failed"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]

    def test_a_bad_config_is_found_without_it(self, tmp_path: Path) -> None:
        done = start(tmp_path, algo="masac", gamma=2)
        assert done.returncode == 2
        assert "gamma: must be at least 0 and at most 1" in done.stderr
        assert done.stdout == ""

    def test_a_checkpoint_of_another_algorithm_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / DESCRIPTION).write_text(json.dumps(description(config_of(algo="ippo").to_dict(), 100)))
        found = checkpoint_problems(config_of(algo="mappo"), describe_checkpoint(tmp_path))
        assert [problem.path for problem in found] == ["algo"]
        assert "was made with 'ippo'" in found[0].message

    def test_what_is_no_checkpoint_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MosaicError, match="unset MOSAIC_RESUME_FROM"):
            describe_checkpoint(tmp_path)


def line(step: int, rewards: list[float], new: int, policies: tuple[str, ...] = ("shared_policy",)) -> str:
    """A line of ``result.json`` as Tune of Ray 1.8 writes it, with what is read of it."""
    stats = {"total_loss": 498.4, "policy_loss": -0.004, "kl": 0.0036, "entropy": 1.58, "allreduce_latency": 0.0}
    learner = {policy: {"learner_stats": {**stats, "vf_loss": float("nan")}, "model": {}} for policy in policies}
    return json.dumps({
        "episode_reward_mean": sum(rewards) / len(rewards) if rewards else float("nan"),
        "episodes_this_iter": new,
        "hist_stats": {"episode_reward": rewards, "episode_lengths": [25] * len(rewards)},
        "timesteps_total": step,
        "info": {"learner": learner, "num_steps_sampled": step},
        "done": False,
    })  # fmt: skip


class TestResults:
    def test_a_file_is_read_while_it_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        lines = results.Lines(path)
        assert lines.read() == []
        text = line(100, [-80.0], 1) + "\n" + line(200, [-70.0], 1) + "\n"
        with path.open("w") as file:
            file.write(text[:50])
            file.flush()
            assert lines.read() == []
            file.write(text[50:-10])
            file.flush()
            assert [results.steps(found) for found in lines.read()] == [100]
            file.write(text[-10:])
            file.flush()
            assert [results.steps(found) for found in lines.read()] == [200]
        assert lines.read() == []

    def test_a_line_that_is_not_json_is_an_error_that_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "result.json").write_text("oops\n")
        with pytest.raises(ValueError, match=r"result\.json is not JSON"):
            results.Lines(tmp_path / "result.json").read()

    def test_only_new_episodes_count(self) -> None:
        """RLlib's history holds 100 episodes or more, of which the last ones are new."""
        found = json.loads(line(200, [-1.0, -2.0, -3.0], 2))
        assert results.new_episodes(found) == [(-2.0, 25), (-3.0, 25)]
        assert results.new_episodes(json.loads(line(200, [-1.0], 0))) == []
        assert results.new_episodes({"timesteps_total": 3}) == []

    def test_metrics(self) -> None:
        found = results.metrics(json.loads(line(100, [-1.0], 1)))
        assert found == {"total_loss": 498.4, "policy_loss": -0.004, "kl": 0.0036, "entropy": 1.58}
        found = results.metrics(json.loads(line(100, [-1.0], 1, ("policy_0", "policy_1"))))
        assert found["kl.policy_1"] == 0.0036
        assert results.metrics({"info": {"learner": {}}}) == {}

    def test_what_is_told_of_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Heartbeats at the results' steps; a checkpoint is announced after its own result, before the next."""
        environ = {"MOSAIC_RUN_DIR": str(tmp_path), "MOSAIC_CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
        config = config_of(keep_checkpoints=1)
        session = WorkerSession("marllib", config, environ=environ, clock=iter(range(0, 10_000, 2)).__next__)
        wanted = marllib_backend.job(config, session, tmp_path, 0, None)
        trial = Path(wanted["local_dir"]) / "tune" / "trial"
        trial.mkdir(parents=True)
        training = marllib_backend._Training(config, session, tmp_path, wanted)
        for step in (100, 200):
            (tmp_path / "checkpoints" / f"checkpoint_{step}").mkdir(parents=True)
        trial.joinpath("result.json").write_text(line(100, [-80.0], 1) + "\n" + line(200, [-80.0, -60.0], 1) + "\n")
        saved = [{"path": str(tmp_path / "checkpoints" / f"checkpoint_{step}"), "step": step} for step in (100, 200)]
        Path(wanted["announcements"]).write_text("".join(json.dumps(each) + "\n" for each in saved))
        training._report(last=True)
        lines = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
        told = [(each.get("event", "episode"), each.get("payload", {}).get("step")) for each in lines]
        assert told == [
            ("episode", None), ("heartbeat", 100), ("checkpoint_saved", 100),
            ("episode", None), ("heartbeat", 200), ("checkpoint_saved", 200),
        ]  # fmt: skip
        assert [each["total_reward"] for each in lines if each.get("type") == "episode"] == [-80.0, -60.0]
        assert lines[4]["payload"]["episodic_return"] == -70.0
        assert [path.name for path in (tmp_path / "checkpoints").glob("[!.]*")] == ["checkpoint_200"]


class TestJob:
    def job(self, tmp_path: Path, **given: Any) -> dict[str, Any]:
        config = config_of(**given)
        session = WorkerSession("marllib", config, environ={"MOSAIC_RUN_DIR": str(tmp_path)})
        return marllib_backend.job(config, session, tmp_path, 0, None)

    @pytest.mark.parametrize("algo", algorithms_of("marllib"))
    def test_actions_and_rewards_fit_the_algorithm(self, tmp_path: Path, algo: str) -> None:
        found = self.job(tmp_path, algo=algo)
        assert found["env_args"]["continuous_actions"] == (algo in ("maddpg", "iddpg", "facmac"))
        assert found["force_coop"] == (ALGORITHMS[algo].paradigm == "VD")
        json.dumps(found)

    def test_parameters_go_where_they_belong_and_win(self, tmp_path: Path) -> None:
        found = self.job(tmp_path, algo="mappo", parameters={"num_sgd_iter": 2, "grad_clip": 5, "lambda": 0.9})
        assert found["algo_args"]["num_sgd_iter"] == 2
        assert found["algo_args"]["lambda"] == 0.9
        assert found["rllib_config"]["grad_clip"] == 5

    def test_fragments_fit_the_rollout(self, tmp_path: Path) -> None:
        found = self.job(tmp_path, algo="mappo", rollout_steps=1000, num_envs=8, num_workers=2)
        assert found["rllib_config"]["rollout_fragment_length"] == 63

    def test_the_child_gets_none_of_rays_variables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
        monkeypatch.setattr(marllib_backend.subprocess, "Popen", lambda command, **given: given["env"])
        assert "RAY_ADDRESS" not in marllib_backend.start(tmp_path, {})


class TestProcesses:
    def test_orphans_are_ended(self) -> None:
        """A child starts a session of its own, which ignores SIGTERM, and goes."""
        code = (
            "import sys, subprocess, time\n"
            "from marllib_worker.processes import adopt_orphans, descendants, end_descendants\n"
            "assert adopt_orphans()\n"
            "subprocess.run(['sh', '-c', 'setsid sh -c \"trap : TERM; while :; do sleep 0.1; done\" & sleep 0.3'])\n"
            "before = descendants()\n"
            "killed = end_descendants(patience=0.3)\n"
            "print(len(before) > 0, len(killed) > 0, descendants())\n"
        )
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.split() == ["True", "True", "[]"], done.stderr
        assert time.monotonic() - began < 20

    def test_folders_of_killed_workers_go(self, tmp_path: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        pid = gone.pid
        left, used, mine = (tmp_path / name for name in (f"ml{pid}-left", f"ml{pid}-used", f"ml{os.getpid()}-mine"))
        others = tmp_path / "mlflow-2"
        for folder in (left, used, mine, others):
            folder.mkdir()
            (folder / "file").touch()
        code = "import sys; sys.stdin.read()"
        child = subprocess.Popen([sys.executable, "-c", code, str(used / "job.json")], stdin=subprocess.PIPE)
        try:
            made = make_scratch(tmp_path)
        finally:
            child.communicate()
        assert made.name.startswith(f"ml{os.getpid()}-")
        assert set(tmp_path.iterdir()) == {used, mine, others, made}
        session = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
        assert len(f"/tmp/ml4194304-12345678/{session}") < 107

    def test_half_written_checkpoints_go(self, tmp_path: Path) -> None:
        for name in (".checkpoint_5.tmp", "checkpoint_4"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").touch()
        remove_unfinished(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_4"]


def test_no_two_environments_have_a_seed_in_common() -> None:
    """Not of runs with close seeds, and not of the attempts of one."""
    found = [environment_seed(run, step, index) for run in range(20) for step in (0, 100) for index in range(20)]
    assert len(set(found)) == len(found)
    assert all(0 <= each < 2**31 for each in found)
    assert environment_seed(1, 100, 3) == environment_seed(1, 100, 3)


class TestPolicy:
    def test_groups_of_benchmarl_share_none(self) -> None:
        several = {"adversary": ["adversary_0"], "agent": ["agent_0", "agent_1"]}
        assert place_of(several, "agent_1") == ("agent", 1)
        assert place_of({"agent": ["agent_0", "agent_1"]}, None) == ("agent", 0)
        for agent, words in ((None, "must name one: .* there are adversary_0, agent_0"), ("agent_7", "no 'agent_7'")):
            with pytest.raises(ConfigError, match=words):
                place_of(several, agent)

    def checkpoint(self, folder: Path, **given: Any) -> str:
        (folder / DESCRIPTION).write_text(json.dumps(description(config_of(**given).to_dict(), 100, file="x")))
        return str(folder)

    @pytest.mark.parametrize(
        ("given", "asked", "path", "words"),
        [
            ({}, {"game": "connect_four_v3"}, "game", "this one plays simple_spread_v3"),
            ({"algo": "maddpg"}, {}, "continuous_actions", "maddpg was trained with continuous actions"),
            ({}, {"continuous_actions": True}, "continuous_actions", "with discrete actions"),
            ({"core_arch": "gru"}, {}, "core_arch", "without memory"),
            ({"share_policy": "individual"}, {}, "agent", "do not share one policy"),
            ({}, {"temperature": 2}, "temperature", "there is no such option"),
        ],
    )
    def test_what_it_does_not_play(
        self, tmp_path: Path, given: dict[str, Any], asked: dict[str, Any], path: str, words: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load_policy(self.checkpoint(tmp_path, **given), **asked)
        found = {problem.path: problem.message for problem in caught.value.problems}
        assert words in found[path]


def test_the_games() -> None:
    assert all(name.rpartition("_v")[0] == game.marllib == game.benchmarl.lower() for name, game in GAMES.items())
