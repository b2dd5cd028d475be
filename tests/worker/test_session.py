"""What a worker program gets from the contract around its training: a real process, its streams, its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mosaic_cluster
from mosaic_cluster.worker import WorkerAnalyticsManifest

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
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1000.txt"]


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
