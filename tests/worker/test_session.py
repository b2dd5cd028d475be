"""What a worker program gets from the contract around its training: a real process, its streams, its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

import mosaic_cluster
from mosaic_cluster.worker import CheckpointMetadata, WorkerAnalyticsManifest, WorkerSession
from mosaic_cluster.worker.session import ANNOUNCED

PROGRAM = """
import os, sys, time
from dataclasses import asdict, dataclass
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession, build_config, config_field, run_program


@dataclass
class Config:
    run_id: str
    seed: int = 0
    steps: int = config_field(1000, help="how long", min=1)
    pause: float = config_field(0.0, help="seconds a step", min=0)
    fail_at: int = config_field(0, help="step at which it breaks; 0: never")
    needs: str = config_field("", help="a library that is not there")

    to_dict = asdict

    @classmethod
    def from_dict(cls, data):
        return build_config(cls, data)


class Runtime:
    def __init__(self, config, dry_run=False, stop_requested=None, worker_id=None):
        self.config, self.dry_run = config, dry_run
        self.session = WorkerSession("tiny", config, stop_requested=stop_requested, worker_id=worker_id)

    def run(self):
        return self.session.run(self.train, dry_run=self.dry_run)

    def train(self, session):
        print("a library that prints")
        os.system("echo a child that prints")
        if self.config.needs:
            raise ConfigError([Problem("needs", "it is not there")])
        if session.dry_run:
            return {"found": "all"}
        if session.resume_from:
            session.resumed(int(session.resume_from.read_text()))
        while session.step < self.config.steps and not session.stopping:
            session.step += 1
            if session.step == self.config.fail_at:
                raise RuntimeError("broke")
            if session.step % 100 == 0:
                session.episode(session.step, 100, terminated=True, truncated=False)
            session.heartbeat({"loss": 0.5})
            if session.checkpoint_due(400):
                self.save(session)
            time.sleep(self.config.pause)
        self.save(session)
        return {"answer": 42}

    def save(self, session):
        path = session.checkpoint_dir / f"{session.step}.txt"
        path.write_text(str(session.step))
        session.saved(path)
        session.keep(1)


sys.exit(run_program("tiny", "Does little.", Config, lambda config, **options: Runtime(config, **options)))
"""


def start(folder: Path, *args: str, env: dict[str, str] | None = None, **config: Any) -> subprocess.Popen[str]:
    program = folder / "tiny.py"
    program.write_text(PROGRAM)
    (folder / "config.json").write_text(json.dumps({"run_id": "r1", **config}))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MOSAIC_")}
    environ.update(PYTHONPATH=str(Path(mosaic_cluster.__file__).parent.parent), MOSAIC_RUN_DIR=str(folder))
    command = [sys.executable, str(program), "--config", str(folder / "config.json"), *args]
    return subprocess.Popen(command, cwd=folder, env={**environ, **(env or {})}, stdout=-1, stderr=-1, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def events(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line["payload"] for line in lines if line.get("event") == name]


def test_a_run_to_the_end(tmp_path: Path) -> None:
    code, lines, err = ended(start(tmp_path, "--emit-summary", "--grpc"))
    assert code == 0, err
    assert lines[0]["event"] == "run_started"
    assert lines[-2]["event"] == "run_completed"
    assert lines[-1]["type"] == "summary"
    assert lines[-1]["answer"] == 42
    assert events(lines, "heartbeat")[-1]["step"] == 1000
    assert events(lines, "heartbeat")[-1]["episodic_return"] == 550.0
    assert [each["step"] for each in events(lines, "checkpoint_saved")] == [400, 800, 1000]
    assert "a library that prints" in err
    assert "a child that prints" in err
    assert "--grpc is accepted and ignored" in err
    manifest = WorkerAnalyticsManifest.load(tmp_path / "analytics.json")
    assert manifest.artifacts.checkpoints is not None
    assert manifest.artifacts.checkpoints.files == ["checkpoints/1000.txt"]
    assert manifest.artifacts.checkpoints.best_checkpoint == manifest.artifacts.checkpoints.final_checkpoint
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [ANNOUNCED, "1000.txt"]


def test_one_heartbeat_a_second_and_at_the_steps_looked_at(tmp_path: Path) -> None:
    environ = {"MOSAIC_REPORT_STEPS": "33,66"}
    code, lines, err = ended(start(tmp_path, env=environ, steps=150, pause=0.01))
    assert code == 0, err
    steps = [each["step"] for each in events(lines, "heartbeat")]
    assert {33, 66, 150} <= set(steps)
    assert 3 <= len(steps) <= 5
    assert {33, 66} <= {each["step"] for each in events(lines, "checkpoint_saved")}


def test_a_stop_saves_and_a_resume_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, steps=10_000, pause=0.01)
    assert process.stdout is not None
    while '"heartbeat"' not in (first := process.stdout.readline()):
        assert first
    process.send_signal(signal.SIGTERM)
    code, lines, err = ended(process)
    assert code == 143, err
    (cancelled,) = events(lines, "run_cancelled")
    saved = events(lines, "checkpoint_saved")[-1]
    assert saved["step"] == cancelled["step"] > 0
    environ = {"MOSAIC_RESUME_FROM": saved["path"]}
    code, lines, err = ended(start(tmp_path, env=environ, steps=saved["step"] + 5))
    assert code == 0, err
    assert events(lines, "checkpoint_loaded") == [{"path": saved["path"], "step": saved["step"]}]
    assert events(lines, "run_completed")[0]["step"] == saved["step"] + 5


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    code, lines, err = ended(start(tmp_path, "--dry-run"))
    assert code == 0, err
    assert [line["event"] for line in lines] == ["run_started", "run_completed"]
    assert lines[1]["payload"]["found"] == "all"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "tiny.py"]


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"steps": 0, "pauze": 1}, 2, "pauze"),
        ({"needs": "something"}, 2, "it is not there"),
        ({"fail_at": 5}, 1, "broke"),
    ],
    ids=["wrong config", "found out later", "fails"],
)
def test_how_it_fails(tmp_path: Path, config: dict[str, Any], code: int, said: str) -> None:
    found, lines, err = ended(start(tmp_path, **config))
    assert found == code
    assert said in err
    assert [line["event"] for line in lines][-1:] == ([] if "steps" in config else ["run_failed"])


@dataclass
class Ten:
    run_id: str = "r1"
    seed: int = 0
    total_steps: int = 10

    to_dict = asdict


def attempt(folder: Path, *scores: float, resume: Path | None = None, ends: bool = True) -> WorkerSession:
    """An attempt that saves once for each score, a step and an episode apart; unless it ends, it is as if killed."""
    environ = {"MOSAIC_RUN_DIR": str(folder), "MOSAIC_CHECKPOINT_DIR": str(folder / "checkpoints")}
    if resume is not None:
        environ["MOSAIC_RESUME_FROM"] = str(resume)
    session = WorkerSession("tiny", Ten(), environ=environ)

    def train(session: WorkerSession) -> dict[str, Any]:
        if resume is not None:
            session.resumed(int(resume.stem))
        for score in scores:
            session.step += 1
            session.episode(score, 1)
            path = session.checkpoint_dir / f"{session.step}.txt"
            path.write_text("saved")
            session.saved(path, score=score)
            session.keep(1)
        if not ends:
            raise KeyboardInterrupt
        return {}

    if ends:
        session.run(train)
    else:
        with pytest.raises(KeyboardInterrupt):
            session.run(train)
    return session


def listed(folder: Path) -> CheckpointMetadata | None:
    return WorkerAnalyticsManifest.load(folder / "analytics.json").artifacts.checkpoints


class TestAnEarlierAttempt:
    def test_its_best_checkpoint_stays_the_best(self, tmp_path: Path) -> None:
        attempt(tmp_path, 500.0, 300.0, ends=False)
        attempt(tmp_path, 400.0, 450.0, resume=tmp_path / "checkpoints" / "2.txt")
        found = listed(tmp_path)
        assert found is not None
        assert found.files == ["checkpoints/1.txt", "checkpoints/4.txt"]
        assert (found.best_checkpoint, found.final_checkpoint) == ("checkpoints/1.txt", "checkpoints/4.txt")
        assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.txt")) == ["1.txt", "4.txt"]

    def test_its_episodes_count_for_the_mean(self, tmp_path: Path) -> None:
        attempt(tmp_path, 100.0, 200.0, ends=False)
        session = attempt(tmp_path, 600.0, resume=tmp_path / "checkpoints" / "2.txt")
        assert session.episodic_return == 300.0
        assert session.episodes == 1

    def test_with_nothing_left_to_do_its_checkpoints_are_listed(self, tmp_path: Path) -> None:
        attempt(tmp_path, 500.0, 300.0, ends=False)
        attempt(tmp_path, resume=tmp_path / "checkpoints" / "2.txt")
        found = listed(tmp_path)
        assert found is not None
        assert (found.best_checkpoint, found.final_checkpoint) == ("checkpoints/1.txt", "checkpoints/2.txt")

    def test_from_a_copy_of_another_runs_checkpoint_nothing_is_taken_over(self, tmp_path: Path) -> None:
        attempt(tmp_path, 500.0, 300.0, ends=False)
        copied = tmp_path / "checkpoints" / "from-r2" / "2.txt"
        copied.parent.mkdir()
        copied.write_text("saved")
        attempt(tmp_path, 50.0, resume=copied)
        found = listed(tmp_path)
        assert found is not None
        assert found.files == ["checkpoints/3.txt"]
        assert found.best_checkpoint == "checkpoints/3.txt"

    @pytest.mark.parametrize("text", [None, "", "[1]", '{"checkpoints": [3], "returns": 1}', "\xff"])
    def test_without_its_list_the_attempts_own_are_listed(self, tmp_path: Path, text: str | None) -> None:
        attempt(tmp_path, 500.0, ends=False)
        announced = tmp_path / "checkpoints" / ANNOUNCED
        announced.unlink() if text is None else announced.write_text(text, encoding="latin-1")
        attempt(tmp_path, 50.0, resume=tmp_path / "checkpoints" / "1.txt")
        found = listed(tmp_path)
        assert found is not None
        assert found.files == ["checkpoints/2.txt"]


@pytest.mark.parametrize(
    ("steps", "save", "said", "status"),
    [
        (10, True, {}, "completed"),
        (10, False, {}, "cancelled"),
        (9, True, {}, "cancelled"),
        (10, True, {"status": "cancelled"}, "cancelled"),
        (9, True, {"status": "completed"}, "completed"),
    ],
    ids=["all is done and saved", "the last is not saved", "steps are left", "it says so", "it says otherwise"],
)
def test_a_stop_in_the_last_moment(tmp_path: Path, steps: int, save: bool, said: dict[str, str], status: str) -> None:
    session = WorkerSession("tiny", Ten(), stop_requested=lambda: True, environ={"MOSAIC_RUN_DIR": str(tmp_path)})
    session.checkpoint_dir = tmp_path / "checkpoints"

    def train(session: WorkerSession) -> dict[str, Any]:
        for session.step in (1, steps):
            if save or session.step == 1:
                path = session.checkpoint_dir / f"{session.step}.txt"
                path.write_text("saved")
                session.saved(path)
        return said

    assert session.run(train)["status"] == status
