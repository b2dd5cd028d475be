"""Watching metrics as they come: from a real run, before its rows are in Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Lab
from support import environment, wait_for

from mosaic_cluster.cli.watch import SPARK_WIDTH, sparkline
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TelemetryReader, read_live


@pytest.fixture
def lab(tmp_path: Path, workers: Path, own_cache: Path) -> Lab:
    return Lab(tmp_path, environment(workers, MOSAIC_CACHE=str(own_cache)), None, "inline")


def test_latest_values_come_before_parquet(lab: Lab) -> None:
    with lab.start({"steps": 200, "pause": 0.05}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(5), 60)
        home = lab.experiment
        reader = TelemetryReader(home.path / "telemetry")

        def ahead() -> bool:
            live = read_live(Storage.open(home.path / "telemetry")).get(home.run_id)
            kept = reader.metric("value", home.run_id)["step"].to_pylist()
            if live is None or live.step is None:
                return False
            assert live.metrics["value"][0] == live.step
            return live.step > max(kept, default=0)

        wait_for(ahead, 30, "a value that is not in Parquet yet")
        watched = lab.mosaic("watch", "--json")  # until the run has ended
        assert process.wait(60) == 0
    assert watched.returncode == 0, watched.stderr
    looks = [json.loads(line) for line in watched.stdout.splitlines()]
    assert len(looks) > 3
    last = looks[-1]["runs"][0]
    assert (looks[-1]["over"], last["state"], last["step"]) == (True, "COMPLETED", 200)
    assert last["latest"]["value"] == {"step": 200, "value": 300.0}
    points = last["history"]["value"]
    assert points == sorted(points)
    assert points[0][1] < points[-1][1]


def test_what_a_person_sees(lab: Lab) -> None:
    assert lab.run({"steps": 20, "pause": 0}).returncode == 0
    seen = lab.mosaic("watch", "latest", "--once", "-m", "value")
    assert seen.returncode == 0, seen.stderr
    assert "COMPLETED" in seen.stdout
    assert "value" in seen.stdout
    assert "▁" in seen.stdout
    assert "other metrics: " in seen.stdout
    wrong = lab.mosaic("watch", "latest", "-m", "valu", "-m", "nonsense")
    assert wrong.returncode == 2
    assert "there is no metric 'valu'; did you mean 'value'?" in wrong.stderr
    assert "'nonsense'" in wrong.stderr
    assert "fits no run" in lab.mosaic("watch", "latest", "zzzz").stderr


def test_a_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0]) == "▁"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert len(sparkline([float(n) for n in range(1000)])) == SPARK_WIDTH
    assert sparkline([2.0] * 5) == "▁" * 5
