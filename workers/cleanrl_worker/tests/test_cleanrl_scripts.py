"""The scripts of CleanRL's release: settings, flags, event files, and a child process that is followed and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cleanrl_worker.algorithms import ALGORITHMS, SCRIPTS
from cleanrl_worker.arguments import command_line, steps_taken
from cleanrl_worker.config import CleanRLConfig, settings_of
from cleanrl_worker.event_files import EventTail, Scalar

import mosaic_cluster
from mosaic_cluster.catalog.environments import choose, read_environments
from mosaic_cluster.worker import ConfigError

CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)

SCRIPT = """
import argparse, os, sys, time
import gymnasium as gym
from torch.utils.tensorboard import SummaryWriter

def parse_args():
    parser = argparse.ArgumentParser()
    for flag in ("seed", "torch-deterministic", "cuda", "env-id", "total-timesteps", "learning-rate", "buffer-size",
                 "gamma", "tau", "target-network-frequency", "batch-size", "start-e", "end-e",
                 "exploration-fraction", "learning-starts", "train-frequency"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--fail-at", type=int, default=-1)
    args = parser.parse_args()
    args.cuda = args.cuda == "True"
    return args

def make_env(env_id, seed, idx, capture_video, run_name):
    return lambda: gym.make(env_id)

if __name__ == "__main__":
    args = parse_args()
    print("global_step=0, episodic_return=nonsense")
    writer = SummaryWriter(f"runs/{args.env_id}__dqn__{args.seed}__1")
    writer.add_text("hyperparameters", "many")
    for step in range(0, int(args.total_timesteps), 10):
        if step == args.fail_at:
            raise RuntimeError("the script gave up")
        writer.add_scalar("charts/episodic_return", step / 10, step)
        writer.add_scalar("charts/episodic_length", 10, step)
        writer.add_scalar("losses/td_loss", 0.5, step)
        time.sleep(args.pause)
    writer.close()
"""


def problems(**settings: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        CleanRLConfig.from_dict({"run_id": "r", **settings})
    return {problem.path: problem.message for problem in caught.value.problems}


class TestConfig:
    @pytest.mark.parametrize("algo", SCRIPTS)
    def test_round_trip(self, algo: str) -> None:
        config = CleanRLConfig(run_id="r", algo=algo)
        written = json.loads(json.dumps(config.to_dict()))
        assert CleanRLConfig.from_dict(written) == config
        assert list(written) == settings_of(algo)
        assert all(written[name] == default for name, default in SCRIPTS[algo].defaults.items())

    def test_a_setting_that_a_script_has_no_flag_for_is_refused(self) -> None:
        found = problems(algo="cleanrl.sac", learning_rate=1e-3, checkpoint_every=100, num_envs=4)
        assert set(found) == {"learning_rate", "checkpoint_every", "num_envs"}
        assert "policy_lr" in found["learning_rate"]

    def test_flags_of_scripts_are_none_of_ours(self) -> None:
        found = problems(algo="ppo", script_arguments={"n-atoms": 51})
        assert "is not a setting of ppo, but of the scripts, cleanrl.*" in found["script_arguments"]

    def test_flags_that_are_settings_or_must_not_be_given(self) -> None:
        given = {"learning-rate": 1, "total_timesteps": 5, "track": True, "cuda": True, "upload-model": True}
        found = problems(algo="cleanrl.dqn", script_arguments=given)
        assert found["script_arguments.learning-rate"] == "is the setting learning_rate: give it as that"
        assert found["script_arguments.total_timesteps"] == "is the setting total_steps: give it as that"
        assert "do not talk to the network" in found["script_arguments.track"]
        assert "is the setting device" in found["script_arguments.cuda"]
        assert len(found) == 5

    def test_nothing_would_be_learned(self) -> None:
        assert "nothing would be learned" in problems(algo="cleanrl.ppo", total_steps=100)["total_steps"]
        assert "nothing would be learned" in problems(algo="cleanrl.dqn", total_steps=100)["total_steps"]

    def test_the_command_line(self) -> None:
        config = CleanRLConfig(
            run_id="r", algo="cleanrl.c51", seed=7, device="cpu", total_steps=20_000, script_arguments={"n_atoms": 51}
        )
        flags = command_line(config)
        assert {"--seed=7", "--cuda=False", "--total-timesteps=20000", "--n-atoms=51"} <= set(flags)
        flags = command_line(CleanRLConfig(run_id="r", algo="cleanrl.ppo", seed=1))
        assert not [flag for flag in flags if flag.startswith("--target-kl")]

    def test_steps(self) -> None:
        assert steps_taken(CleanRLConfig(run_id="r", algo="cleanrl.ppo", total_steps=5000)) == 4608
        assert steps_taken(CleanRLConfig(run_id="r", algo="cleanrl.td3", total_steps=50_001)) == 50_001

    def test_every_script_has_an_environment(self) -> None:
        import cleanrl_worker

        declared = read_environments(Path(cleanrl_worker.__file__).parent / "environment.toml")
        chosen = {algo: choose(declared, {"algo": algo}) for algo in (*SCRIPTS, *ALGORITHMS)}
        assert {algo: each and each.name for algo, each in chosen.items()} == {
            **{algo: script.library for algo, script in SCRIPTS.items()},
            **dict.fromkeys(ALGORITHMS),
        }


class TestEventFiles:
    def test_scalars_as_they_are_written(self, tmp_path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        old = tmp_path / "runs" / "old"
        SummaryWriter(str(old)).add_scalar("charts/x", 1.0, 1)
        tail = EventTail(tmp_path / "runs")
        assert tail.read() == []
        writer = SummaryWriter(str(tmp_path / "runs" / "new"))
        writer.add_text("hyperparameters", "|a|b|")
        writer.add_scalar("charts/episodic_return", 12.5, 300)
        writer.add_scalar("losses/loss", float("nan"), 3_000_000_000)
        writer.flush()
        first, second = tail.read()
        assert first == Scalar(300, "charts/episodic_return", 12.5)
        assert second[:2] == (3_000_000_000, "losses/loss")
        assert second.value != second.value
        assert tail.read() == []
        writer.add_scalar("charts/SPS", 7, 4)
        writer.close()
        assert tail.read() == [Scalar(4, "charts/SPS", 7.0)]
        assert tail.folders == [tmp_path / "runs" / "new"]

    def test_half_a_record_waits_for_its_other_half(self, tmp_path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        source = tmp_path / "whole"
        writer = SummaryWriter(str(source))
        for step in range(3):
            writer.add_scalar("a", step, step)
        writer.close()
        (file,) = source.iterdir()
        content = file.read_bytes()
        growing = tmp_path / "growing" / file.name
        growing.parent.mkdir()
        tail = EventTail(growing.parent)
        found = []
        for size in range(len(content) + 1):
            growing.write_bytes(content[:size])
            found += tail.read()
        assert found == [Scalar(step, "a", float(step)) for step in range(3)]


class Release:
    """A made-up release with one script, ``dqn``, and the worker's command line with it on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "site" / "cleanrl"
        package.mkdir(parents=True)
        package.joinpath("dqn.py").write_text(SCRIPT)
        path = os.pathsep.join([CONTRACT, str(folder / "site")])
        self.env = {**os.environ, "PYTHONPATH": path, "MOSAIC_RUN_DIR": str(folder)}

    def start(self, *args: str, **settings: Any) -> subprocess.Popen[str]:
        config = {"run_id": "r1", "seed": 3, "algo": "cleanrl.dqn", "learning_starts": 10, "device": "cpu", **settings}
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        return subprocess.Popen(
            [sys.executable, "-m", "cleanrl_worker.cli", "--config", str(path), *args],
            cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *args: str, **settings: Any) -> tuple[int, list[dict[str, Any]], str]:
        process = self.start(*args, **settings)
        out, err = process.communicate(timeout=120)
        return process.returncode, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


class TestChild:
    def test_without_the_release_it_says_what_to_do(self, tmp_path: Path) -> None:
        release = Release(tmp_path)
        (tmp_path / "site" / "cleanrl" / "dqn.py").unlink()
        code, lines, err = release.run("--dry-run")
        assert code == 2
        assert "algo: cleanrl.dqn needs CleanRL 1.2.0, which is not installed" in err
        assert "`mosaic workers install cleanrl`" in err
        assert [line["event"] for line in lines] == ["run_started", "run_failed"]

    def test_an_unknown_flag_names_the_nearest(self, release: Release) -> None:
        code, _, err = release.run(script_arguments={"fail_et": 3})
        assert code == 2
        assert "script_arguments.fail_et: cleanrl.dqn has no such flag; did you mean 'fail-at'?" in err

    @pytest.mark.slow
    def test_a_script_to_its_end(self, release: Release) -> None:
        release.env["MOSAIC_RESUME_FROM"] = "/nowhere"
        code, lines, err = release.run(total_steps=1000, script_arguments={"pause": 0.02})
        assert code == 0, err
        assert "global_step=0, episodic_return=nonsense" in err
        events = [line["event"] for line in lines if "event" in line]
        assert (events[0], events[-1]) == ("run_started", "run_completed")
        assert "starts at step 0" in lines[0]["payload"]["resume"]
        episodes = [line for line in lines if line.get("type") == "episode"]
        assert [each["total_reward"] for each in episodes] == [float(number) for number in range(100)]
        assert {each["steps"] for each in episodes} == {10}
        beats = [line["payload"] for line in lines if line.get("event") == "heartbeat"]
        assert beats[-1]["step"] == lines[-1]["payload"]["step"] == 1000
        assert beats[-1]["td_loss"] == 0.5
        assert lines[-1]["payload"]["episodic_return"] == 89.5  # mean of the last 20
        manifest = json.loads((release.folder / "analytics.json").read_text())
        assert manifest["artifacts"]["tensorboard"]["log_dir"] == "runs/CartPole-v1__dqn__3__1"
        assert not list(release.folder.glob(".script-*"))

    def test_what_a_killed_attempt_left_is_removed(self, release: Release) -> None:
        left = release.folder / ".script-ab12cd34"
        left.mkdir()
        left.joinpath("answer.json").write_text("{}")
        code, _, err = release.run(total_steps=20)
        assert code == 0, err
        assert not list(release.folder.glob(".script-*"))

    @pytest.mark.slow
    def test_a_script_that_fails(self, release: Release) -> None:
        code, lines, _ = release.run(total_steps=1000, script_arguments={"fail-at": 50})
        assert code == 1
        assert lines[-1]["event"] == "run_failed"
        assert "RuntimeError: the script gave up" in lines[-1]["payload"]["error"]

    @pytest.mark.slow
    def test_what_the_script_cannot_use_is_refused(self, release: Release) -> None:
        for settings, words in (
            ({"env_id": "Pendulum-v1"}, "and cleanrl.dqn takes only Discrete action spaces"),
            ({"env_id": "NoSuch-v1"}, "cannot make 'NoSuch-v1' for cleanrl.dqn"),
            ({"script_arguments": {"pause": "long"}}, "argument --pause: invalid float value: 'long'"),
        ):
            code, _, err = release.run("--dry-run", **settings)
            assert code == 2
            assert words in err

    @pytest.mark.slow
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
    def test_a_stop_leaves_nothing_behind(self, release: Release, how: signal.Signals) -> None:
        process = release.start(total_steps=1_000_000, script_arguments={"pause": 0.01})
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            for line in process.stdout:
                if '"heartbeat"' in line:
                    break
            children = _children(process.pid)
            assert children
            asked = time.monotonic()
            process.send_signal(how)
            rest = process.stdout.read()
            code = process.wait(30)
            assert time.monotonic() - asked < 10
        deadline = time.monotonic() + 5
        while any(map(_alive, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(_alive, children))
        if how == signal.SIGTERM:
            assert code == 143
            assert json.loads(rest.splitlines()[-1])["event"] == "run_cancelled"


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
