"""The four real worlds, and BALROG's interface, in the environment that the worker declares: built from the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from barlog_corridors import KEY, lines_of, named, played
from barlog_worker.scripted import PlannerPlayer, RandomPlayer, ScriptedEndpoint

from mosaic_cluster.catalog.environments import Ready, choose, make_ready, read_environments

pytestmark = [pytest.mark.workers, pytest.mark.timeout(1200)]

GO_TO = ["BabyAI-GoToObj-v0", "BabyAI-GoToRedBall-v0", "BabyAI-GoToLocal-v0"]
STAND_IN = Path(__file__).parent / "stand_in"


@pytest.fixture(scope="session")
def built() -> Ready:
    """The environment, as a node builds it."""
    declared = Path(__file__).parent.parent / "barlog_worker" / "environment.toml"
    return make_ready("barlog", "mosaic-barlog-worker", "barlog_worker", choose(read_environments(declared), {}))


def surroundings(built: Ready, folder: Path, more_path: str = "", **environ: str) -> dict[str, str]:
    found = {**built.variables(os.environ), **built.declared_variables, "MOSAIC_RUN_DIR": str(folder), **environ}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [found["PYTHONPATH"], more_path]))
    return found


def command(built: Ready, folder: Path, config: Mapping[str, Any], *args: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", "seed": 3, "model": "scripted", "retry_delay": 0.01, **config}))
    return [built.python, "-m", "barlog_worker.cli", "--config", str(path), *args]


def play(
    built: Ready, folder: Path, config: Mapping[str, Any], *args: str, more_path: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    line = command(built, folder, config, *args)
    env = surroundings(built, folder, more_path, **environ)
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)


def results(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    return named(done, "run_completed")[0]


def test_the_planner_reads_its_way_and_chance_does_not(built: Ready, tmp_path: Path) -> None:
    config = {"babyai_tasks": GO_TO, "episodes": 10, "log_steps": False}
    with ScriptedEndpoint(PlannerPlayer(1)) as endpoint:
        planned = results(play(built, tmp_path / "planner", {**config, "base_url": endpoint.base_url}))
    with ScriptedEndpoint(RandomPlayer(1)) as endpoint:
        chance = results(play(built, tmp_path / "random", {**config, "base_url": endpoint.base_url}))
    dummy = results(play(built, tmp_path / "dummy", {**config, "agent": "dummy", "model": ""}))
    assert planned["progression"] >= 95
    # Both draw uniformly; the standard error of the difference of two such means of 30 is about 12.
    assert abs(chance["progression"] - dummy["progression"]) <= 40
    assert chance["progression"] <= 60
    assert dummy["progression"] <= 60


@pytest.mark.parametrize("agent", ["cot", "robust_naive", "robust_cot", "few_shot"])
def test_every_agent_gets_there(built: Ready, tmp_path: Path, agent: str) -> None:
    with ScriptedEndpoint(PlannerPlayer(1)) as endpoint:
        config = {"babyai_tasks": GO_TO[:1], "episodes": 5, "agent": agent, "base_url": endpoint.base_url}
        assert results(play(built, tmp_path, config))["progression"] == 100.0


def test_all_four_worlds_same_seed_same_episodes(built: Ready, tmp_path: Path) -> None:
    config = {
        "worlds": ["babyai", "crafter", "textworld", "nethack"], "episodes": 1, "max_steps": 40,
        "textworld_commands": True, "textworld_level": 2,
    }  # fmt: skip
    runs = []
    for name, concurrency in (("one", 1), ("four", 4)):
        with ScriptedEndpoint(RandomPlayer(1)) as endpoint:
            given = {**config, "base_url": endpoint.base_url, "concurrency": concurrency}
            done = play(built, tmp_path / name, given)
        found = results(done)
        assert set(found["worlds"]) == {"babyai", "crafter", "textworld", "nethack"}
        assert found["finished_episodes"] == 5 + 1 + 3 + 1
        assert all(0 <= world["progression"] <= 100 for world in found["worlds"].values())
        assert lines_of(done)
        runs.append(played(tmp_path / name))
    assert runs[0] == runs[1]
    texts = {name.split("/")[0]: steps[-1]["observation"] for name, (_, steps) in runs[0].items()}
    assert "Your mission" in texts["babyai"]
    assert "Out of 9 you have" in texts["crafter"]
    assert "Score" in texts["textworld"]
    assert "Dlvl:1" in texts["nethack"]


def test_longer_lives_repeat_too(built: Ready, tmp_path: Path) -> None:
    """Past Crafter's first night, and through NetHack's menus."""
    config = {"worlds": ["crafter", "nethack"], "episodes": 2, "max_steps": 400, "agent": "dummy", "model": ""}
    for name in ("one", "two"):
        results(play(built, tmp_path / name, {**config, "concurrency": 1 if name == "one" else 4}))
    assert played(tmp_path / "one") == played(tmp_path / "two")


def test_pictures(built: Ready, tmp_path: Path) -> None:
    with ScriptedEndpoint(RandomPlayer(1)) as endpoint:
        config = {
            "worlds": ["babyai", "crafter", "nethack"], "babyai_tasks": GO_TO[:1], "episodes": 1, "max_steps": 3,
            "vision": True, "base_url": endpoint.base_url,
        }  # fmt: skip
        results(play(built, tmp_path, config))
        asked = [body["messages"][-1]["content"] for body in endpoint.requests]
    with_picture = [each for each in asked if isinstance(each, list)]
    assert len(with_picture) == 6
    assert all(part[1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR") for part in with_picture)
    assert len(asked) == 9


def test_walkthroughs_are_shown_and_win(built: Ready, tmp_path: Path) -> None:
    """A player that repeats what TextWorld's own walkthrough did: shown as an example, it is known to win."""
    config = {"worlds": ["textworld"], "textworld_tasks": ["coin_collector"], "episodes": 1, "agent": "few_shot"}
    with ScriptedEndpoint("look") as endpoint:
        results(play(built, tmp_path, {**config, "base_url": endpoint.base_url, "max_steps": 1}))
        (body,) = endpoint.requests
    shown = [each["content"] for each in body["messages"] if each["role"] == "assistant"]
    assert shown[-2] == "take coin"
    assert shown[-1] == "I am ready."


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"babyai_tasks": ["BabyAI-GoToMars-v0"]}, "has no BabyAI-GoToMars-v0; it has"),
        ({"worlds": ["nethack"], "nethack_tasks": ["NetHackWin-v0"]}, "has no NetHackWin-v0; it has"),
    ],
)
def test_tasks_that_are_not_there(built: Ready, tmp_path: Path, config: dict[str, Any], words: str) -> None:
    done = play(built, tmp_path, config, "--dry-run")
    assert done.returncode == 2
    assert words in done.stderr


def test_dry_run(built: Ready, tmp_path: Path) -> None:
    config = {"worlds": ["babyai", "crafter", "textworld", "nethack"], "textworld_tasks": ["coin_collector"]}
    found = results(play(built, tmp_path, config, "--dry-run"))
    assert found["status"] == "dry-run"
    assert found["nethack_version"] == "balrog-nle 0.9.0"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_nothing_is_written_outside_the_run_folder(built: Ready, tmp_path: Path) -> None:
    home, temporary, run = (tmp_path / name for name in ("home", "tmp", "run"))
    home.mkdir()
    temporary.mkdir()
    config = {
        "worlds": ["babyai", "crafter", "textworld", "nethack"], "episodes": 1, "max_steps": 5, "agent": "dummy",
        "textworld_tasks": ["coin_collector"], "model": "",
    }  # fmt: skip
    results(play(built, run, config, HOME=str(home), TMPDIR=str(temporary)))
    assert list(home.iterdir()) == []  # where Inform, TextWorld's compiler, would leave its documentation
    assert list(temporary.rglob("*")) == []
    assert not (run / "worlds" / "tmp").exists()


def test_sigterm(built: Ready, tmp_path: Path) -> None:
    config = {"worlds": ["nethack"], "episodes": 500, "agent": "dummy", "model": "", "log_steps": False}
    process = subprocess.Popen(
        command(built, tmp_path, config), cwd=tmp_path, env=surroundings(built, tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    while len(list(tmp_path.glob("episodes/*/*/*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=25)
    assert process.returncode == 143
    assert json.loads(out.splitlines()[-1])["event"] == "run_cancelled"
    saved = json.loads((tmp_path / "checkpoints" / "evaluation.json").read_text())
    assert len(saved["episodes"]) >= 3


class TestBalrog:
    """Against a stand-in with the interface of BALROG; the real one is not in any package registry."""

    CONFIG: Mapping[str, Any] = {
        "backend": "balrog", "worlds": ["babyai", "nethack"], "episodes": 2, "price_prompt": 1000.0, "concurrency": 1,
    }  # fmt: skip

    def test_episodes_become_ours(self, built: Ready, tmp_path: Path) -> None:
        with ScriptedEndpoint("heads") as endpoint:
            config = {**self.CONFIG, "base_url": endpoint.base_url}
            done = play(built, tmp_path, config, more_path=str(STAND_IN), OPENAI_API_KEY="")
        found = results(done)
        assert found["finished_episodes"] == 6
        assert found["worlds"]["babyai"]["tasks"].keys() == {
            "BabyAI-MixedTrainLocal-v0/goto",
            "BabyAI-MixedTrainLocal-v0/pickup",
        }
        assert found["progression"] == 100.0
        assert (found["step"], len(endpoint.requests)) == (24, 24)
        assert found["prompt_tokens"] > 0
        assert found["cost"] == pytest.approx(found["prompt_tokens"] / 1000)
        assert set(endpoint.authorizations) == {"Bearer EMPTY"}
        assert {body["model"] for body in endpoint.requests} == {"scripted"}

    def test_finished_ones_are_not_played_again(self, built: Ready, tmp_path: Path) -> None:
        with ScriptedEndpoint("heads") as endpoint:
            config = {**self.CONFIG, "base_url": endpoint.base_url}
            results(play(built, tmp_path, {**config, "episodes": 1}, more_path=str(STAND_IN), OPENAI_API_KEY=""))
            before = len(endpoint.requests)
            found = results(play(built, tmp_path, config, more_path=str(STAND_IN), OPENAI_API_KEY=""))
            assert (before, len(endpoint.requests)) == (12, 24)
        assert (found["finished_episodes"], found["step"]) == (6, 24)

    def test_the_key_goes_on_in_the_environment_alone(self, built: Ready, tmp_path: Path) -> None:
        with ScriptedEndpoint("tails") as endpoint:
            config = {**self.CONFIG, "base_url": endpoint.base_url, "api_key_env": "SOME_KEY"}
            done = play(built, tmp_path, config, "--verbose", more_path=str(STAND_IN), SOME_KEY=KEY)
        assert results(done)["progression"] == 0.0
        assert set(endpoint.authorizations) == {f"Bearer {KEY}"}
        assert KEY not in done.stdout + done.stderr
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]

    def test_episodes_that_it_lost_are_a_failure(self, built: Ready, tmp_path: Path) -> None:
        with ScriptedEndpoint("heads", faults=[None] * 20 + [500]) as endpoint:
            config = {**self.CONFIG, "base_url": endpoint.base_url}
            done = play(built, tmp_path, config, more_path=str(STAND_IN), OPENAI_API_KEY="")
        assert done.returncode == 1
        assert "BALROG finished without 1 of 6 episodes" in done.stderr
        assert "Error in task NetHackChallenge-v0" in done.stderr
        assert len(json.loads((tmp_path / "checkpoints" / "evaluation.json").read_text())["episodes"]) == 5
