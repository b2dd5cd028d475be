"""Whatever befalls a bridge, the experiment ends as it would have, in time, with all its tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Lab
from support import assert_tables_equal_logs, environment, processes_of, wait_for
from trackers import pairs, tensorboard_curves, wandb_rows, wandb_runs

from mosaic_cluster.specs.bridges import Bridges as Sections
from mosaic_cluster.telemetry import TelemetryReader
from mosaic_cluster.telemetry.bridges import BRIDGES
from mosaic_cluster.telemetry.bridges.launching import Bridges

WANDB = {"bridges": {"tensorboard": False, "wandb": {"project": "p"}}}
FAKE = """
import os, sys, time
def hang(*_, **__):
    print("hangs now", file=sys.stderr, flush=True)
    while True:
        time.sleep(1)
def fail(*_, **__):
    raise RuntimeError("this tracker is broken")
def crash(*_, **__):
    os.kill(os.getpid(), 11)
class Settings:
    def __init__(self, **_): pass
class Run:
    url = None
    def define_metric(self, *_, **__): pass
    def log(self, *_, **__): pass
    def finish(self, *_, **__): pass
def init(**_): return Run()
"""
WAYS = {
    "hangs in import": "hang()",
    "hangs in log": "Run.log = hang",
    "hangs in finish": "Run.finish = hang",
    "fails in import": "fail()",
    "fails in log": "Run.log = fail",
    "crashes": "Run.log = crash",
    "exits": "Run.log = lambda *_, **__: os._exit(0)",
}
SLOW = {"hangs in log", "hangs in finish", "fails in import", "exits"}


@pytest.fixture
def fake(tmp_path: Path, workers: Path, own_cache: Path) -> Iterator[Callable[[str], Lab]]:
    """A place to run experiments where W&B does what the test says."""

    def make(way: str) -> Lab:
        package = tmp_path / "fake"
        package.mkdir()
        (package / "wandb.py").write_text(FAKE + way + "\n")
        return Lab(tmp_path, environment(package, workers, MOSAIC_CACHE=str(own_cache)), None, "inline")

    yield make
    assert bridges_below(tmp_path) == []


def bridges_below(folder: Path) -> list[psutil.Process]:
    """Processes of bridges that write experiments below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "mosaic_cluster.telemetry.bridges.process" in command and any(str(folder) in part for part in command):
            found.append(process)
    return found


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.long] if way in SLOW else []) for way in WAYS]
)
def test_a_bridge_that_hangs_or_fails(fake: Callable[[str], Lab], way: str) -> None:
    lab = fake(WAYS[way])
    done = lab.run({"steps": 20}, telemetry={**WANDB, "bridge_grace": "10s" if "hangs" in way else "2m"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.experiment.status()["state"] == "COMPLETED"
    assert_tables_equal_logs(lab.experiment)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("bridge wandb")]
    assert f"to go on: mosaic bridge {lab.experiment.path.name} wandb" in line
    if way.startswith("hangs"):
        assert "had not written everything after 10s" in line
        assert "hangs now" in (lab.experiment.path / "bridges/wandb.log").read_text()
    elif way.startswith("fails"):
        assert "exit code 1: RuntimeError: this tracker is broken" in line
    else:
        assert ("failed: signal 11" if way == "crashes" else "failed: exit code 0") in line


@pytest.mark.long
def test_a_real_bridge_goes_on_where_a_broken_one_was(fake: Callable[[str], Lab], tmp_path: Path) -> None:
    lab = fake("fail()")
    assert lab.run({"steps": 20}, telemetry=WANDB).returncode == 0
    (tmp_path / "fake" / "wandb.py").unlink()
    done = lab.mosaic("bridge", "latest", "wandb", "--option", "mode=offline", "--option", "points_per_second=1e6")
    assert done.returncode == 0, done.stderr
    (records,) = wandb_runs(lab.experiment.path / "bridges").values()
    found = [(row["step"], row["value"]) for row in wandb_rows(records) if "value" in row]
    assert found == pairs(TelemetryReader(lab.experiment.path / "telemetry"), lab.experiment.run_id, "value")
    assert len(found) == 20
    assert "there was nothing new" in lab.mosaic("bridge", "latest", "wandb").stderr


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)], ids=["kill -9", "SIGSTOP"]
)
def test_a_bridge_that_is_killed_or_stopped(inline: Lab, number: signal.Signals) -> None:
    telemetry = {"bridges": {"tensorboard": True}, "bridge_grace": "10s" if number == signal.SIGKILL else "2s"}
    with inline.start({"steps": 600}, telemetry=telemetry) as driver:
        (bridge,) = wait_for(lambda: bridges_below(inline.folder), 60, "the bridge")
        wait_for(lambda: inline.experiment_started() and inline.experiment.reached(100), 60, "step 100")
        bridge.send_signal(number)
        said, _ = driver.communicate(timeout=90)
        assert driver.returncode == 0, said
    assert inline.experiment.status()["state"] == "COMPLETED"
    assert_tables_equal_logs(inline.experiment)
    wait_for(lambda: not bridges_below(inline.folder), 10, "the bridge to end")
    if number == signal.SIGSTOP:
        assert "bridge tensorboard had not written everything after 2s, and was ended" in said
        assert inline.mosaic("bridge", "latest", "tensorboard").returncode == 0
    else:
        assert "bridge tensorboard" not in said  # started again, it has written all
    run_id = inline.experiment.run_id
    shown = tensorboard_curves(inline.experiment.run_dir / "tensorboard")
    reader = TelemetryReader(inline.experiment.path / "telemetry")
    # A file that was being written at a kill comes again, with the same points.
    assert sorted(set(shown["value"])) == pairs(reader, run_id, "value")


def test_a_bridge_dies_with_its_driver_and_a_resume_goes_on(inline: Lab) -> None:
    with inline.start({"steps": 800}, telemetry={"bridges": {}}) as driver:
        wait_for(lambda: inline.experiment_started() and inline.experiment.reached(150), 60, "step 150")
        wait_for(lambda: (inline.experiment.path / "bridges/tensorboard.json").exists(), 60, "a file to be written")
        assert len(bridges_below(inline.folder)) == 1
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    wait_for(lambda: not bridges_below(inline.folder), 10, "the bridge to die")
    wait_for(lambda: not processes_of(inline.experiment.run_id), 20, "the run to end")
    done = inline.mosaic("resume", "latest", *inline.where)
    assert done.returncode == 0, done.stderr
    run_id = inline.experiment.run_id
    shown = tensorboard_curves(inline.experiment.run_dir / "tensorboard")
    reader = TelemetryReader(inline.experiment.path / "telemetry")
    assert sorted(set(shown["value"])) == pairs(reader, run_id, "value")
    index = json.loads((inline.experiment.path / "analytics.json").read_text())
    assert index["runs"][0]["bridges"] == {"tensorboard": f"runs/{run_id}/tensorboard"}


def test_two_do_not_write_the_same(inline: Lab) -> None:
    with inline.start({"steps": 100_000}, telemetry={"bridges": {}}) as driver:
        wait_for(lambda: list((inline.folder / "results").glob("*/bridges/tensorboard.lock")), 60, "the bridge")
        wait_for(lambda: inline.experiment_started() and inline.experiment.reached(10), 60, "step 10")
        refused = inline.mosaic("bridge", "latest", "tensorboard")
        assert refused.returncode == 1
        assert "to tensorboard already" in refused.stderr
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=60)
        assert driver.returncode == 130


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorboard", "wandb", "mlflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_packages_that_are_not_installed(tmp_path: Path, workers: Path, own_cache: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCK)
    lab = Lab(tmp_path, environment(blocker, workers, MOSAIC_CACHE=str(own_cache)), None, "inline")
    asked: dict[str, Any] = {"wandb": {"project": "p"}, "mlflow": {"tracking_uri": "http://127.0.0.1:1"}}
    for verb in ("run", "plan"):
        refused = lab.mosaic(verb, lab.write({"steps": 3}, telemetry={"bridges": asked}), *lab.where)
        assert refused.returncode == 2
        for name in asked:
            assert f"telemetry.bridges.{name}: the package {name} is not installed here" in refused.stderr
            assert f"pip install 'mosaic-cluster[{name}]'" in refused.stderr
    assert not (tmp_path / "results").exists()
    done = lab.run({"steps": 3}, telemetry={"bridges": {}})
    assert done.returncode == 0, done.stderr
    assert "bridge tensorboard is off: the package tensorboard is not installed here" in done.stderr
    assert lab.mosaic("bridge", "latest", "wandb", "--option", "project=p").returncode == 2


def test_what_the_verb_refuses(inline: Lab) -> None:
    assert inline.run({"steps": 3}).returncode == 0
    for arguments, message in (
        (["tensorbord"], "did you mean tensorboard?"),
        (["wandb"], "--option project: missing; give the W&B project"),
        (["wandb", "--option", "project"], "'project' is not key=value"),
        (["mlflow", "--option", "tracking_uri=http://me:secret@host"], "holds a name or a password"),
    ):
        refused = inline.mosaic("bridge", "latest", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "secret" not in refused.stderr


def test_a_driver_that_is_gone_before_the_bridge_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mosaic_cluster.telemetry.bridges.process"]
    command += [str(tmp_path), str(tmp_path), "tensorboard", "{}", "1"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with Bridges(tmp_path / "file", {"tensorboard": {"points_per_second": 1}}, notice=said.append, grace=1):
        pass
    (line,) = said
    assert "bridge tensorboard failed: cannot be started" in line


def test_the_spec_names_the_bridges_there_are() -> None:
    assert set(Sections.model_fields) == set(BRIDGES)
