"""The random worker keeps the contract, and plays as its config says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_worker.config import RandomConfig
from random_worker.policy import load_policy
from random_worker.runtime import RandomRuntime

import mosaic_cluster
from mosaic_cluster.testing import ContractCase, WorkerContract, case_of
from mosaic_cluster.worker import ConfigError

CONTRACT = str(Path(mosaic_cluster.__file__).parent.parent)


@pytest.mark.xdist_group("contract of random")
class TestContract(WorkerContract):
    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("random", "random_worker")


def play(folder: Path, config: Mapping[str, Any], *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "seed": 3, **config}))
    env = {**os.environ, "PYTHONPATH": CONTRACT, "MOSAIC_RUN_DIR": str(folder), **environ}
    command = [sys.executable, "-m", "random_worker.cli", "--config", str(path), *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def lines(done: subprocess.CompletedProcess[str], kind: str) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [line for line in map(json.loads, done.stdout.splitlines()) if kind in (line.get("event"), line.get("type"))]


@pytest.mark.parametrize(
    ("env_id", "more", "agents"),
    [
        ("Pendulum-v1", {}, 1),
        ("connect_four_v3", {}, 2),
        ("simple_spread_v3", {"env_kwargs": {"max_cycles": 10}}, 3),
        ("simple_spread_v3", {"env_kwargs": {"max_cycles": 10}, "api": "aec"}, 3),
    ],
)
def test_any_environment_is_played(tmp_path: Path, env_id: str, more: dict[str, Any], agents: int) -> None:
    done = play(tmp_path, {"env_id": env_id, "total_steps": 250, **more}, "--emit-summary")
    (summary,) = lines(done, "summary")
    assert (summary["status"], summary["step"], summary["agents"]) == ("completed", 250, agents)
    episodes = lines(done, "episode")
    if agents > 1:
        assert len(episodes) > 2
        assert all(len(each["metadata"]["returns"]) == agents for each in episodes)
        assert episodes[0]["total_reward"] == pytest.approx(sum(episodes[0]["metadata"]["returns"].values()))


def test_two_that_play_connect_four_win_and_lose(tmp_path: Path) -> None:
    episodes = lines(play(tmp_path, {"env_id": "connect_four_v3", "total_steps": 300}), "episode")
    returns = {tuple(sorted(each["metadata"]["returns"].values())) for each in episodes}
    assert returns <= {(-1.0, 1.0), (0.0, 0.0)}
    assert (-1.0, 1.0) in returns
    assert all(7 <= each["steps"] <= 42 and each["terminated"] for each in episodes)


def test_a_script_is_followed(tmp_path: Path) -> None:
    """Pushed to the left alone, the pole falls after 8 to 11 steps; in turns, it stands longer."""
    left = lines(play(tmp_path / "l", {"policy": "scripted", "script": [0], "total_steps": 300}), "episode")
    turns = lines(play(tmp_path / "t", {"policy": "scripted", "script": [0, 1], "total_steps": 300}), "episode")
    assert all(8 <= each["steps"] <= 11 for each in left)
    assert np.mean([each["steps"] for each in turns]) > 20


def test_a_run_that_goes_on_plays_the_rest_as_it_would_have_been(tmp_path: Path) -> None:
    config = {"total_steps": 1500, "checkpoint_every": 500, "keep_checkpoints": 9}
    whole = play(tmp_path / "whole", config)
    (first, *_) = lines(whole, "checkpoint_saved")
    resumed = play(tmp_path / "on", config, MOSAIC_RESUME_FROM=first["payload"]["path"])
    (loaded,) = lines(resumed, "checkpoint_loaded")
    assert loaded["payload"]["step"] == 500
    before = {each["episode"]: each["total_reward"] for each in lines(whole, "episode")}
    after = {each["episode"]: each["total_reward"] for each in lines(resumed, "episode")}
    both = before.keys() & after.keys()
    assert len(both) > 10
    assert {number: before[number] for number in both} == {number: after[number] for number in both}
    assert lines(resumed, "run_completed")[0]["payload"]["step"] == 1500


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"env_id": "CartPole-v9"}, "did you mean 'CartPole-v1'"),
        ({"env_id": "connect_for_v3"}, "did you mean 'connect_four_v3'"),
        ({"env_id": "connect_four_v3", "api": "parallel"}, "cannot be played as 'parallel'"),
        ({"env_id": "connect_four_v3", "api": "gymnasium"}, "is a PettingZoo environment"),
        ({"policy": "scripted", "script": [5]}, "5 is no action of Discrete(2)"),
        ({"script": [1]}, "is followed by policy: scripted only"),
        ({"env_id": "FrozenLake-v1", "env_kwargs": {"map_name": "5x5"}}, "{'map_name': '5x5'}: KeyError: '5x5'"),
        ({"env_id": "Blackjack-v1", "env_kwargs": {"deck": 3}}, "Blackjack-v1 cannot be made with {'deck': 3}: TypeE"),
    ],
)
def test_what_cannot_be_played_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    done = play(tmp_path, config)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_stop_is_heeded_while_it_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("MOSAIC_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    asked = count()
    runtime = RandomRuntime(
        RandomConfig(run_id="r", max_steps_per_second=0.2),
        stop_requested=lambda: runtime.session.step > 0 and next(asked) > 2,
    )
    began = time.monotonic()
    summary = runtime.run()
    assert (summary["status"], summary["step"]) == ("cancelled", 1)
    assert time.monotonic() - began < 4


def test_a_checkpoint_of_another_environment_is_refused(tmp_path: Path) -> None:
    saved = lines(play(tmp_path / "one", {"total_steps": 50}), "checkpoint_saved")[-1]["payload"]["path"]
    done = play(tmp_path / "two", {"env_id": "Acrobot-v1"}, MOSAIC_RESUME_FROM=saved)
    assert done.returncode == 2
    assert "was made with 'CartPole-v1'" in done.stderr


def test_config_round_trip() -> None:
    config = RandomConfig(run_id="r", env_kwargs={"a": 1}, policy="scripted", script=[1, 2])
    assert RandomConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


class TestPolicy:
    def test_uniform_over_what_is_legal(self) -> None:
        policy = load_policy("", game="connect_four_v3")
        policy.reset(1)
        mask = np.array([0, 1, 1, 0, 0, 0, 1])
        drawn = [policy.act(None, mask) for _ in range(3000)]
        counts = np.bincount(drawn, minlength=7)
        assert counts[mask == 0].sum() == 0
        assert all(900 < count < 1100 for count in counts[mask == 1])
        with pytest.raises(ValueError, match="allows no action"):
            policy.act(None, np.zeros(7))

    def test_a_script_takes_the_first_legal_action_where_its_own_is_not(self) -> None:
        policy = load_policy("", game="tictactoe_v3", policy="scripted", script=[4, 0])
        policy.reset()
        everything, corner = np.ones(9), np.array([0, 0, 1, 0, 0, 0, 0, 0, 1])
        assert [policy.act(None, mask) for mask in (everything, everything, corner, everything)] == [4, 0, 2, 0]
        policy.reset()
        boards = np.zeros((2, 3, 3, 2))
        assert policy.act_batch(boards, np.stack([everything, corner])).tolist() == [4, 2]
        assert policy.act_batch(boards, np.stack([everything, corner])).tolist() == [0, 2]

    def test_continuous_actions(self) -> None:
        policy = load_policy("", game="Pendulum-v1")
        policy.reset(2)
        batch = policy.act_batch(np.zeros((4, 3)))
        assert batch.shape == (4, 1)
        assert len(set(batch[:, 0].tolist())) == 4
        policy.reset(2)
        assert np.array_equal(policy.act_batch(np.zeros((4, 3))), batch)
        still = load_policy("", game="Pendulum-v1", policy="scripted")
        assert still.act(None).tolist() == [0.0]

    def test_what_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text('{"format": 99}')
        for keywords, words in (
            ({"game": "no_game_v0"}, "no_game_v0"),
            ({}, "is needed where there is no checkpoint"),
            ({"game": "tictactoe_v3", "agent": "player_9"}, "has no agent 'player_9'; it has player_1, player_2"),
        ):
            with pytest.raises(ConfigError, match=words):
                load_policy("", **keywords)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="is no checkpoint of this worker"):
            load_policy(str(tmp_path / "x.json"))


def test_the_interactive_protocol(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"run_id": "r", "env_id": "CartPole-v1"}')
    asked = [
        {"cmd": "ping"},
        {"cmd": "select_action", "observation": [0]},
        {"cmd": "init_agent", "game_name": "tictactoe_v3", "player_id": "player_2"},
        {"cmd": "reset", "seed": 3},
        {"cmd": "select_action", "observation": [], "player_id": "player_2", "action_mask": [0] * 7 + [1, 0]},
        *[{"cmd": "step"}] * 200,
        {"cmd": "dance"},
        {"cmd": "stop"},
        {"cmd": "ping"},
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "random_worker.cli", "--interactive", "--config", str(config)],
        input="".join(json.dumps(each) + "\n" for each in asked),
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": CONTRACT}, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["type"] for each in answers[:5]] == ["pong", "error", "agent_ready", "ready", "action_selected"]
    assert "send init_agent first" in answers[1]["message"]
    assert answers[4]["action"] == 7
    steps = answers[5:205]
    assert {each["type"] for each in steps} == {"step", "episode_end"}
    end = next(each for each in steps if each["type"] == "episode_end")
    assert end["returns"]["agent_0"] == end["steps"]
    assert "there is no command 'dance'; there are init_agent" in answers[205]["message"]
    assert [each["type"] for each in answers[206:]] == ["stopped"]
