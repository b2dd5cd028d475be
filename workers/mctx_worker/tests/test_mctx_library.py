"""The worker with its real library, in its own environment, as processes: what a run does from start to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from mctx_support import SMALL, command, environment, events, named, quick, record, train, variables

from mosaic_cluster.catalog.environments import Ready
from mosaic_cluster.testing import ContractCase, WorkerContract, case_of
from mosaic_cluster.worker import WorkerAnalyticsManifest

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build the environment

Run = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ready() -> Ready:
    return environment()


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one process of these tests has compiled, the next need not."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick(tmp_path_factory.mktemp("compiled")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def whole(ready: Ready, compiled_once: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    done = train(ready, folder, {**SMALL, "seed": 3}, "--emit-summary")
    assert done.returncode == 0, done.stderr
    return folder, done


def content(folder: Path, step: int) -> dict[str, Any]:
    """Arrays of a checkpoint, and its header without what depends on the clock or the place."""
    with np.load(folder / "checkpoints" / f"checkpoint_{step}.npz", allow_pickle=False) as archive:
        found: dict[str, Any] = {name: archive[name] for name in archive.files if name != "header"}
        found["header"] = json.loads(archive["header"].tobytes())
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two checkpoints, bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name == "header":
            assert value == other[name]
        else:
            assert value.dtype == other[name].dtype
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def episodes(done: subprocess.CompletedProcess[str]) -> list[tuple[Any, ...]]:
    found = [line for line in events(done) if line.get("type") == "episode"]
    return [(line["episode"], line["total_reward"], line["steps"], line["metadata"]["global_step"]) for line in found]


@pytest.mark.slow
@pytest.mark.xdist_group("contract of mctx")
class TestContract(WorkerContract):
    """What every worker promises, with the real library."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("mctx", "mctx_worker", seconds=170.0)


class TestRun:
    @pytest.mark.slow
    def test_lifecycle_and_manifest(self, whole: Run) -> None:
        folder, done = whole
        names = [line["event"] for line in events(done) if "event" in line]
        assert (names[0], names[-1]) == ("run_started", "run_completed")
        beats = named(done, "heartbeat")
        assert (beats[0]["step"], beats[-1]["step"]) == (0, 640)
        told = {"win_rate", "draw_rate", "loss_rate", "past_score", "loss", "episodic_return", "steps_per_second"}
        assert told <= beats[-1].keys()
        assert beats[-1]["win_rate"] + beats[-1]["draw_rate"] + beats[-1]["loss_rate"] == pytest.approx(1, abs=1e-5)
        assert beats[-1]["episodic_return"] == pytest.approx(beats[-1]["win_rate"] - beats[-1]["loss_rate"], abs=1e-5)
        assert [payload["step"] for payload in named(done, "checkpoint_saved")] == [320, 640]
        manifest = WorkerAnalyticsManifest.load(folder / "analytics.json")
        saved = manifest.artifacts.checkpoints
        assert saved is not None
        assert saved.files == ["checkpoints/checkpoint_320.npz", "checkpoints/checkpoint_640.npz"]
        assert saved.final_checkpoint == saved.files[-1]
        scores = [payload["score"] for payload in named(done, "checkpoint_saved")]
        assert saved.best_checkpoint == saved.files[1 if scores[1] >= scores[0] else 0]
        summary = events(done)[-1]
        assert (summary["type"], summary["status"], summary["step"]) == ("summary", "completed", 640)
        assert sorted(path.name for path in folder.iterdir()) == ["analytics.json", "checkpoints", "config.json"]

    @pytest.mark.slow
    def test_games_that_end_are_told(self, whole: Run) -> None:
        found = episodes(whole[1])
        assert len(found) > 10
        assert {reward for _, reward, _, _ in found} <= {-1.0, 0.0, 1.0}
        assert all(5 <= moves <= 9 for _, _, moves, _ in found)

    @pytest.mark.workers
    def test_a_seed_gives_the_same_run(self, ready: Ready, whole: Run, tmp_path: Path) -> None:
        again = train(ready, tmp_path, {**SMALL, "seed": 3})
        assert episodes(again) == episodes(whole[1])
        assert_same(content(tmp_path, 640), content(whole[0], 640))

    @pytest.mark.slow
    def test_a_resumed_run_is_the_run_that_was_never_interrupted(
        self, ready: Ready, whole: Run, tmp_path: Path
    ) -> None:
        checkpoint = str(whole[0] / "checkpoints" / "checkpoint_320.npz")
        done = train(ready, tmp_path, {**SMALL, "seed": 3}, MOSAIC_RESUME_FROM=checkpoint)
        assert done.returncode == 0, done.stderr
        assert named(done, "checkpoint_loaded") == [{"path": checkpoint, "step": 320}]
        assert episodes(done) == [each for each in episodes(whole[1]) if each[3] > 320]
        assert_same(content(tmp_path, 640), content(whole[0], 640))

    @pytest.mark.workers
    def test_another_seed_and_more_games_go_on_from_a_checkpoint(
        self, ready: Ready, whole: Run, tmp_path: Path
    ) -> None:
        checkpoint = str(whole[0] / "checkpoints" / "checkpoint_640.npz")
        config = {**SMALL, "seed": 4, "num_envs": 20, "total_steps": 800, "eval_interval": 0}
        done = train(ready, tmp_path, config, MOSAIC_RESUME_FROM=checkpoint, MOSAIC_REPORT_STEPS="680")
        assert done.returncode == 0, done.stderr
        assert "new games are begun" in done.stderr
        beats = named(done, "heartbeat")
        assert [(beat["step"], beat["evaluated_at"]) for beat in beats if beat["step"] in (680, 800)] == [
            (680, 680),  # where a sweep looks, it sees how good the network is right there
            (800, 800),
        ]
        assert [payload["step"] for payload in named(done, "checkpoint_saved")] == [680, 800]

    @pytest.mark.workers
    def test_what_the_checkpoint_does_not_fit_is_refused(self, ready: Ready, whole: Run, tmp_path: Path) -> None:
        checkpoint = str(whole[0] / "checkpoints" / "checkpoint_640.npz")
        config = {**SMALL, "hidden_size": 24, "num_blocks": 2}
        done = train(ready, tmp_path, config, MOSAIC_RESUME_FROM=checkpoint)
        assert done.returncode == 2
        assert "hidden_size: is 24, but the checkpoint to resume from was made with 16" in done.stderr
        assert "num_blocks: is 2" in done.stderr

    @pytest.mark.workers
    def test_a_broken_checkpoint_is_a_failure_that_says_so(self, ready: Ready, tmp_path: Path) -> None:
        broken = tmp_path / "broken.npz"
        broken.write_bytes(b"not a checkpoint")
        done = train(ready, tmp_path, SMALL, MOSAIC_RESUME_FROM=str(broken))
        assert done.returncode == 1
        assert str(broken) in done.stderr

    @pytest.mark.workers
    def test_sigterm_saves_and_ends(self, ready: Ready, tmp_path: Path) -> None:
        line = command(ready, tmp_path, {**SMALL, "seed": 1, "total_steps": 10**9})
        env = variables(ready, MOSAIC_RUN_DIR=str(tmp_path))
        log = tmp_path / "log"
        with log.open("w") as out:
            process = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=out, stderr=subprocess.DEVNULL)
            try:
                while log.read_text().count('"heartbeat"') < 2:
                    assert process.poll() is None
                    time.sleep(0.1)
                process.send_signal(signal.SIGTERM)
                asked = time.monotonic()
                assert process.wait(60) == 143
                assert time.monotonic() - asked < 20
            finally:
                process.kill()
                process.wait()
        last = [json.loads(text) for text in log.read_text().splitlines()][-2:]
        assert [each["event"] for each in last] == ["checkpoint_saved", "run_cancelled"]
        assert content(tmp_path, last[0]["payload"]["step"])["header"]["step"] == last[1]["payload"]["step"]

    @pytest.mark.workers
    def test_dry_run(self, ready: Ready, tmp_path: Path) -> None:
        done = train(ready, tmp_path, {"env_id": "othello", "device": "cpu"}, "--dry-run", "--emit-summary")
        assert done.returncode == 0, done.stderr
        summary = events(done)[-1]
        assert (summary["status"], summary["network"], summary["actions"]) == ("dry-run", "resnet", 65)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]

    @pytest.mark.workers
    def test_a_gpu_that_is_not_there_is_refused(self, ready: Ready, tmp_path: Path) -> None:
        done = train(ready, tmp_path, {**SMALL, "device": "cuda"})
        assert done.returncode == 2
        assert "device: is cuda, but JAX sees no GPU here" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pgx_game", "game", "options", "count"),
    [
        ("tic_tac_toe", "tictactoe_v3", {}, 60),
        ("connect_four", "connect_four_v3", {}, 30),
        ("go_9x9", "go_v5", {"board_size": 9}, 4),
    ],
)
def test_games_of_pettingzoo_move_by_move(
    ready: Ready, tmp_path: Path, pgx_game: str, game: str, options: dict[str, Any], count: int
) -> None:
    """Observations, legal moves, turns, ends and rewards of random games are what pgx has for the same moves."""
    games = record(game, count, 1, **options)
    np.savez(tmp_path / "games.npz", **games)
    script = Path(__file__).parent / "replay_games.py"
    done = subprocess.run(
        [ready.python, str(script), pgx_game, str(tmp_path / "games.npz")],
        env=variables(ready, JAX_PLATFORMS="cpu"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"{len(games['actions'])} moves of {count} games"


@pytest.mark.workers
def test_parts_of_learning(ready: Ready) -> None:
    """Outcomes against following each game forwards; searches against positions with one good move; value scales."""
    script = Path(__file__).parent / "check_parts.py"
    done = subprocess.run(
        [ready.python, str(script)],
        env=variables(ready, JAX_PLATFORMS="cpu"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
