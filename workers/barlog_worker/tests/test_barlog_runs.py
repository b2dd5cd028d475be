"""Whole runs, as processes, in a world that needs no library: files, telemetry, resuming, stopping, secrets."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from barlog_corridors import (
    KEY,
    Corridors,
    command,
    lines_of,
    listens,
    named,
    play,
    played,
    settings,
    surroundings,
)
from barlog_worker.balrog import _judge
from barlog_worker.config import BarlogConfig
from barlog_worker.records import episode_seed, progressions
from barlog_worker.runtime import BarlogRuntime
from barlog_worker.scripted import ScriptedEndpoint
from barlog_worker.worlds import Demonstration

from mosaic_cluster.worker import WorkerAnalyticsManifest


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return lines_of(done)[-1]


class TestARun:
    def test_who_listens_gets_everything(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        config = settings(base_url=listener.base_url, price_prompt=2.0, price_completion=8.0)
        done = play(tmp_path, config, "--emit-summary")
        found = summary(done)
        assert found["status"] == "completed"
        assert found["episodic_return"] == found["progression"] == 100.0
        assert found["worlds"]["babyai"] == {
            "progression": 100.0,
            "standard_error": 0.0,
            "episodes": 6,
            "tasks": {
                name: {"progression": 100.0, "standard_error": 0.0, "episodes": 3} for name in config["babyai_tasks"]
            },
        }
        assert found["step"] == found["requests"] == len(listener.requests) == 24
        wanted = (found["prompt_tokens"] * 2.0 + found["completion_tokens"] * 8.0) / 1e6
        assert math.isclose(found["cost"], wanted, abs_tol=1e-6)
        assert found["prompt_tokens"] > 24 * 20

    def test_lines(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        done = play(tmp_path, settings(base_url=listener.base_url))
        found = lines_of(done)
        names = [line["event"] for line in found if "event" in line]
        assert (names[0], names[-1]) == ("run_started", "run_completed")
        steps = [line for line in found if line.get("type") == "step"]
        assert len(steps) == 24
        assert {(line["episode"], line["step_index"]) for line in steps} == {(e, s) for e in range(6) for s in range(4)}
        episodes = sorted((line for line in found if line.get("type") == "episode"), key=lambda line: line["episode"])
        assert [line["total_reward"] for line in episodes] == [100.0] * 6
        assert [line["metadata"]["number"] for line in episodes] == [0, 1, 2, 0, 1, 2]
        assert episodes[0]["metadata"]["return"] == 4.0
        last = named(done, "heartbeat")[-1]
        assert (last["step"], last["progression_babyai"], last["episodic_return"]) == (24, 100.0, 100.0)
        assert "steps_per_second" in last

    def test_files(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        done = play(tmp_path, settings(base_url=listener.base_url, agent="cot"))
        assert done.returncode == 0, done.stderr
        kept = played(tmp_path)
        assert len(kept) == 6
        record, steps = kept["babyai/BabyAI-GoToLocal-v0/002"]
        assert record["seed"] == episode_seed(3, "babyai", "BabyAI-GoToLocal-v0", 2)
        assert (record["progression"], record["steps"], record["terminated"]) == (100.0, 4, True)
        assert [step["step"] for step in steps] == [0, 1, 2, 3]
        assert all(step["named"] and step["prompt_tokens"] > 0 for step in steps)
        saved = json.loads((tmp_path / "checkpoints" / "evaluation.json").read_text())
        assert [each["name"] for each in saved["episodes"]] == sorted(kept)
        assert saved["progression"]["babyai"]["progression"] == 100.0
        manifest = WorkerAnalyticsManifest.load(tmp_path / "analytics.json")
        assert manifest.artifacts.checkpoints is not None
        assert manifest.artifacts.checkpoints.files == ["checkpoints/evaluation.json"]
        assert manifest.artifacts.checkpoints.best_checkpoint == manifest.artifacts.checkpoints.final_checkpoint
        assert manifest.metadata["results"]["worlds"]["babyai"]["episodes"] == 6
        assert not list(tmp_path.rglob("*.part"))

    def test_answers_that_name_nothing_are_counted(self, tmp_path: Path) -> None:
        with ScriptedEndpoint("As a model, I cannot choose.") as endpoint:
            done = play(tmp_path, settings(base_url=endpoint.base_url, episodes=1), "--emit-summary")
        found = summary(done)
        assert found["invalid_actions"] == 1.0
        record, steps = played(tmp_path)["babyai/BabyAI-GoToObj-v0/000"]
        assert (record["invalid_actions"], record["truncated"], record["terminated"]) == (12, True, False)
        assert {step["action"] for step in steps} == {"door 0"}
        assert steps[0]["reply"] == "As a model, I cannot choose."

    def test_the_dummy_asks_nobody(self, tmp_path: Path) -> None:
        done = play(tmp_path, settings(agent="dummy", model="", base_url="http://127.0.0.1:9/v1"), "--emit-summary")
        found = summary(done)
        assert 0 < found["progression"] < 100
        assert "requests" not in found

    def test_pictures_are_sent(self, tmp_path: Path) -> None:
        def looks(messages: Any) -> str:
            pictures = [part for part in messages[-1]["content"] if part["type"] == "image_url"]
            return listens([{"content": messages[-1]["content"][0]["text"]}]) if len(pictures) == 1 else "door 9"

        with ScriptedEndpoint(looks) as endpoint:
            done = play(tmp_path, settings(base_url=endpoint.base_url, vision=True), "--emit-summary")
        assert summary(done)["progression"] == 100.0

    def test_concurrency_is_limited(self, tmp_path: Path) -> None:
        def slowly(messages: Any) -> str:
            time.sleep(0.02)
            return listens(messages)

        with ScriptedEndpoint(slowly) as endpoint:
            done = play(tmp_path, settings(base_url=endpoint.base_url, concurrency=3))
            assert done.returncode == 0, done.stderr
            assert endpoint.most == 3

    def test_heartbeats_keep_to_one_a_second(self, tmp_path: Path) -> None:
        def slowly(messages: Any) -> str:
            time.sleep(0.1)
            return listens(messages)

        with ScriptedEndpoint(slowly) as endpoint:
            done = play(tmp_path, settings(base_url=endpoint.base_url, concurrency=1))
        lines = lines_of(done)
        times = [line["timestamp"] for line in lines if line.get("event") == "heartbeat"]
        saves = sum(line.get("event") == "checkpoint_saved" for line in lines)  # each has one of its own
        assert len(times) <= 2 + saves + (times[-1] - times[0])


class TestSeeds:
    def test_same_seed_same_episodes_however_many_at_a_time(self, tmp_path: Path, chance: ScriptedEndpoint) -> None:
        one = play(tmp_path / "one", settings(base_url=chance.base_url, concurrency=1))
        four = play(tmp_path / "four", settings(base_url=chance.base_url, concurrency=4))
        other = play(tmp_path / "other", settings(base_url=chance.base_url, seed=4))
        assert [done.returncode for done in (one, four, other)] == [0, 0, 0]
        assert played(tmp_path / "one") == played(tmp_path / "four")
        assert played(tmp_path / "one") != played(tmp_path / "other")

    def test_the_dummy_too(self, tmp_path: Path) -> None:
        config = settings(agent="dummy", model="")
        for name in ("one", "two"):
            assert play(tmp_path / name, config).returncode == 0
        assert played(tmp_path / "one") == played(tmp_path / "two")

    def test_more_episodes_leave_the_first_as_they_are(self) -> None:
        seeds = [episode_seed(1, "babyai", "BabyAI-GoToObj-v0", number) for number in range(100)]
        assert len(set(seeds)) == 100
        assert all(0 <= seed < 2**31 for seed in seeds)
        assert seeds[0] != episode_seed(2, "babyai", "BabyAI-GoToObj-v0", 0)

    def test_sent_along(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        play(tmp_path, settings(base_url=listener.base_url, send_seed=True, episodes=1))
        seeds = [body["seed"] for body in listener.requests]
        assert len(set(seeds)) == len(seeds) == 8


class TestResuming:
    def test_finished_episodes_are_not_played_again(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        folder = tmp_path / "first"
        play(folder, settings(base_url=listener.base_url, episodes=2))
        before = len(listener.requests)
        checkpoint = folder / "checkpoints" / "evaluation.json"
        done = play(
            tmp_path / "second",
            settings(base_url=listener.base_url, episodes=3),
            "--emit-summary",
            MOSAIC_RESUME_FROM=str(checkpoint),
        )
        found = summary(done)
        assert len(listener.requests) - before == 8  # the third episode of each of two tasks
        assert named(done, "checkpoint_loaded") == [{"path": str(checkpoint), "step": 16}]
        assert (found["step"], found["finished_episodes"], found["requests"]) == (24, 6, 24)
        assert found["worlds"]["babyai"]["episodes"] == 6

    def test_in_the_same_folder_even_without_a_checkpoint_given(
        self, tmp_path: Path, listener: ScriptedEndpoint
    ) -> None:
        config = settings(base_url=listener.base_url)
        play(tmp_path, config)
        whole = played(tmp_path)
        # As if it had been killed when two episodes were played that the checkpoint does not hold yet.
        path = tmp_path / "checkpoints" / "evaluation.json"
        saved = json.loads(path.read_text())
        path.write_text(json.dumps({**saved, "episodes": saved["episodes"][:2]}))
        for name in list(whole)[4:]:
            (tmp_path / "episodes" / f"{name}.json").unlink()
        before = len(listener.requests)
        assert play(tmp_path, config).returncode == 0
        assert len(listener.requests) - before == 8
        assert played(tmp_path) == whole

    def test_a_seed_that_was_drawn_is_kept(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        first = summary(play(tmp_path, settings(base_url=listener.base_url, seed=None, episodes=1), "--emit-summary"))
        again = summary(play(tmp_path, settings(base_url=listener.base_url, seed=None), "--emit-summary"))
        assert first["seed"] == again["seed"]
        assert again["finished_episodes"] == 6

    def test_episodes_of_other_settings_are_refused(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        play(tmp_path, settings(base_url=listener.base_url, episodes=1))
        done = play(tmp_path, settings(base_url=listener.base_url, model="other", history=3))
        assert done.returncode == 2
        assert "model: is 'other', but the finished episodes were played with 'scripted'" in done.stderr
        assert "history: is 3, but the finished episodes were played with 16" in done.stderr

    def test_a_broken_checkpoint_is_named(self, tmp_path: Path, listener: ScriptedEndpoint) -> None:
        broken = tmp_path / "broken.json"
        broken.write_text("{")
        done = play(tmp_path, settings(base_url=listener.base_url), MOSAIC_RESUME_FROM=str(broken))
        assert done.returncode == 1
        assert f"{broken} is not JSON" in done.stderr


class TestEnds:
    def test_sigterm_keeps_what_is_finished(self, tmp_path: Path) -> None:
        def then_hang(messages: Any) -> str:
            if len(endpoint.requests) > 10:
                endpoint.gone.wait(60)
            return listens(messages)

        with ScriptedEndpoint(then_hang) as endpoint:
            config = settings(base_url=endpoint.base_url, concurrency=2)
            process = subprocess.Popen(
                command(tmp_path, config), cwd=tmp_path, env=surroundings(tmp_path),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            while len(endpoint.requests) < 12:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            out, err = process.communicate(timeout=30)
            assert time.monotonic() - began < 8
            assert process.returncode == 143, err
            found = [json.loads(line) for line in out.splitlines()]
            assert [line["event"] for line in found if "event" in line][-1] == "run_cancelled"
            saved = json.loads((tmp_path / "checkpoints" / "evaluation.json").read_text())
            assert (len(saved["episodes"]), saved["step"], saved["usage"]["requests"]) == (2, 10, 10)
            assert not list(tmp_path.rglob("*.part"))
        with ScriptedEndpoint(listens) as other:
            resumed = play(
                tmp_path, {**config, "base_url": other.base_url}, "--emit-summary",
                MOSAIC_RESUME_FROM=str(tmp_path / "checkpoints" / "evaluation.json"),
            )  # fmt: skip
            # Two episodes were interrupted in their second step: those steps were taken, and were paid for.
            assert named(resumed, "checkpoint_loaded")[0]["step"] == 10
            assert (summary(resumed)["step"], summary(resumed)["requests"]) == (26, 26)
            assert len(other.requests) == 16

    def test_an_endpoint_that_fails_ends_the_run_and_what_is_finished_is_kept(self, tmp_path: Path) -> None:
        with ScriptedEndpoint(listens, faults=[None] * 9 + [401] * 9) as endpoint:
            config = settings(base_url=endpoint.base_url, concurrency=1)
            done = play(tmp_path, config)
        assert done.returncode == 1
        (failed,) = named(done, "run_failed")
        assert failed["error_type"] == "EndpointError"
        assert "answered status 401" in failed["error"]
        saved = json.loads((tmp_path / "checkpoints" / "evaluation.json").read_text())
        assert len(saved["episodes"]) == 2

    def test_faults_that_pass_are_counted(self, tmp_path: Path) -> None:
        faults = [429, None, "garbage", 500, "drop"]
        with ScriptedEndpoint(listens, faults=faults) as endpoint:
            done = play(tmp_path, settings(base_url=endpoint.base_url), "--emit-summary")
        found = summary(done)
        assert found["progression"] == 100.0
        assert found["endpoint_errors"] == {"429": 1, "500": 1, "connection": 1, "garbage": 1}
        assert (found["retries"], found["requests"]) == (4, 28)


def test_the_key_is_nowhere_but_in_the_header(tmp_path: Path) -> None:
    echo = {"status": 500, "body": f"unhappy with {KEY}"}
    with ScriptedEndpoint(listens, faults=[echo, {"status": 429, "body": KEY}]) as endpoint:
        config = settings(base_url=endpoint.base_url, api_key_env="SOME_KEY", agent="robust_cot")
        done = play(tmp_path, config, "--verbose", "--emit-summary", SOME_KEY=KEY)
        assert done.returncode == 0, done.stderr
        assert set(endpoint.authorizations) == {f"Bearer {KEY}"}
        refused = play(tmp_path / "refused", config, "--verbose", SOME_KEY=KEY)
        assert refused.returncode == 0
    with ScriptedEndpoint(listens, faults=[{"status": 403, "body": f"{KEY} may not"}]) as endpoint:
        config = {**config, "base_url": endpoint.base_url}
        failed = play(tmp_path / "failed", config, "--verbose", SOME_KEY=KEY)
    assert failed.returncode == 1
    assert "the key in SOME_KEY was refused" in failed.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    for each in (done, refused, failed):
        assert KEY not in each.stdout + each.stderr
    assert "unhappy with [key]" in done.stderr


def test_few_shot_takes_episodes_of_its_own_making(tmp_path: Path, listener: ScriptedEndpoint) -> None:
    play(tmp_path / "good", settings(base_url=listener.base_url, episodes=2))
    shown = tmp_path / "good" / "episodes"
    config = settings(
        base_url=listener.base_url, agent="few_shot", demonstrations=str(shown), demonstration_episodes=2, episodes=1
    )
    done = play(tmp_path / "shown", config, "--emit-summary")
    assert summary(done)["progression"] == 100.0
    first = listener.requests[-1]["messages"]
    assert sum(str(each["content"]).startswith("Example") for each in first) == 2
    missing = play(tmp_path / "missing", {**config, "demonstrations": str(tmp_path / "nothing")})
    assert missing.returncode == 2
    assert "demonstrations: there are no files *.steps.jsonl" in missing.stderr


def test_a_stop_after_the_last_episode_cuts_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("MOSAIC_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))

    class Slow(Corridors):
        def make(self, task: str, seed: int, *, vision: bool = False) -> Any:
            time.sleep(0.5)  # so that the stop comes before the last episode has ended
            return super().make(task, seed, vision=vision)

    config = BarlogConfig.from_dict(settings(agent="dummy"))
    ends = []
    for asked in (True, False, True):
        made = BarlogRuntime(config, stop_requested=lambda asked=asked: asked, open_world=lambda *_: Slow())
        ends.append(made.run()["status"])
    assert ends == ["cancelled", "completed", "completed"]


def test_a_stop_is_heeded_between_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TextWorld compiles a game for each."""
    monkeypatch.setenv("MOSAIC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("MOSAIC_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    made: list[int] = []

    class Slow(Corridors):
        def demonstration(self, task: str, seed: int) -> Demonstration | None:
            made.append(seed)
            return super().demonstration(task, seed)

    config = BarlogConfig.from_dict(settings(agent="few_shot", demonstration_episodes=5))
    runtime = BarlogRuntime(config, stop_requested=lambda: len(made) >= 2, open_world=lambda *_: Slow())
    assert runtime.run()["status"] == "cancelled"
    assert len(made) == 2


def test_the_last_words_of_balrog_are_told_without_the_key(tmp_path: Path) -> None:
    log = tmp_path / "balrog.log"
    log.write_text(f"Traceback\nopenai.AuthenticationError: Incorrect API key provided: {KEY}\n")
    with pytest.raises(RuntimeError, match=r"status 1; its last words: .*provided: \[key\]") as caught:
        _judge(1, tmp_path, set(), log, KEY)
    assert KEY not in str(caught.value)


def test_progressions() -> None:
    records = [
        {"world": "babyai", "task": task, "progression": value}
        for task, value in (("a", 0.0), ("a", 100.0), ("b", 100.0), ("b", 100.0))
    ] + [{"world": "crafter", "task": "default", "progression": 50.0}]
    found = progressions(records)
    # The deviation of 0, 100, 100, 100 is 50; over the root of 4 that is 25.
    assert (found["babyai"]["progression"], found["babyai"]["standard_error"]) == (75.0, 25.0)
    assert found["babyai"]["tasks"]["a"] == {"progression": 50.0, "standard_error": 50.0, "episodes": 2}
    assert found["crafter"]["standard_error"] is None


def test_a_dry_run_asks_nobody_and_writes_nothing(tmp_path: Path, listener: ScriptedEndpoint) -> None:
    done = play(tmp_path, settings(base_url=listener.base_url), "--dry-run", "--emit-summary")
    found = summary(done)
    assert (found["status"], found["episodes_planned"], found["babyai_version"]) == ("dry-run", 6, "corridors 1")
    assert listener.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL])
def test_after_a_kill_it_goes_on(tmp_path: Path, signal_number: int) -> None:
    def then_hang(messages: Any) -> str:
        if len(endpoint.requests) > 9:
            endpoint.gone.wait(60)
        return listens(messages)

    with ScriptedEndpoint(then_hang) as endpoint:
        config = settings(base_url=endpoint.base_url, concurrency=1)
        process = subprocess.Popen(
            command(tmp_path, config), cwd=tmp_path, env=surroundings(tmp_path),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(endpoint.requests) < 10:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)  # what was finished is written by then
        process.send_signal(signal_number)
        process.wait()
    with ScriptedEndpoint(listens) as other:
        done = play(tmp_path, {**config, "base_url": other.base_url}, "--emit-summary")
        assert summary(done)["finished_episodes"] == 6
        assert len(other.requests) == 16
