"""W&B, offline: what its own files hold is what the tables have."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from trackers import Written, wandb_rows, wandb_runs

OPTIONS: dict[str, Any] = {"project": "tests", "mode": "offline"}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return Written(tmp_path / "exp-1")


def test_every_run_is_there_with_its_config(written: Written) -> None:
    for run_id in ("AAAA1", "BBBB2"):
        written.config(run_id, learning_rate=0.1, net={"width": 64})
        written.train(run_id, 1, 40)
    written.status(AAAA1="COMPLETED", BBBB2="FAILED")
    written.bridge("wandb", **OPTIONS)
    runs = wandb_runs(written.folder / "bridges")
    assert set(runs) == {"AAAA1", "BBBB2"}
    for run_id, records in runs.items():
        rows = wandb_rows(records)
        assert [(row["step"], row["loss"]) for row in rows] == written.curve(run_id, "loss")
        times = [ts.timestamp() for ts in written.reader.metric("loss", run_id)["ts"].to_pylist()]
        assert [row["_timestamp"] for row in rows] == pytest.approx(times)
        (first,) = [each.run for each in records if each.WhichOneof("record_type") == "run"]
        assert (first.run_id, first.project, first.run_group) == (run_id, "tests", "exp-1")
        assert first.display_name == f"exp-{run_id[-4:]}"
        config = {item.key: item.value_json for item in first.config.update}
        assert config["learning_rate"] == "0.1"
        (code,) = [each.exit.exit_code for each in records if each.WhichOneof("record_type") == "exit"]
        assert code == (0 if run_id == "AAAA1" else 1)


def test_a_later_process_goes_on_where_the_first_was(written: Written) -> None:
    written.train("AAAA1", 1, 5)
    written.bridge("wandb", **OPTIONS)
    written.begins("AAAA1", 2)
    written.lines("AAAA1", {"event": "heartbeat", "payload": {"step": 3, "loss": math.nan}}, attempt=2)
    written.bridge("wandb", **OPTIONS)
    (records,) = wandb_runs(written.folder / "bridges").values()
    rows = wandb_rows(records)
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["attempt"] for row in rows] == [1, 1, 1, 1, 1, 2]
    assert math.isnan(float(rows[5]["loss"]))
    assert rows[5]["step"] == 3


def test_nothing_is_lost_when_it_is_killed(written: Written) -> None:
    written.train("AAAA1", 1, 50)
    written.bridge("wandb", **OPTIONS)
    written.train("AAAA1", 51, 100)
    code = """
import os, sys
from pathlib import Path
from mosaic_cluster.telemetry.bridges.process import serve
turns = []
def wait(_):
    turns.append(1)
    if len(turns) == 2:  # all there was has been written
        os.kill(os.getpid(), 9)
    return False
serve(Path(sys.argv[1]), "wandb", {"project": "p", "mode": "offline", "points_per_second": 1e6}, wait, print)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(written.folder)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    written.bridge("wandb", **OPTIONS)
    (records,) = wandb_runs(written.folder / "bridges").values()
    by_number = {row["_step"]: (row["step"], row["loss"]) for row in wandb_rows(records)}
    assert [by_number[number] for number in sorted(by_number)] == written.curve("AAAA1", "loss")
