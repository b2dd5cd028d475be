"""MLflow, against a real server: what it tells is what the tables have."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support import free_port, kill_tree, wait_for
from trackers import Written

from mosaic_cluster.telemetry.bridges.mlflow import key_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server on loopback, with an SQLite store."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
        f"--backend-store-uri=sqlite:///{folder}/store.db", f"--artifacts-destination={folder}/artifacts",
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def healthy() -> bool:
        assert process.poll() is None, (folder / "server.log").read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_for(healthy, 150, "the MLflow server to answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_tree(process.pid)
        process.wait()


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "exp-1")


def ask(server: str, path: str, **body: Any) -> dict[str, Any]:
    """MLflow's REST interface, without its client."""
    call = requests.post if body.pop("post", False) else requests.get
    kind = {"json": body} if call is requests.post else {"params": body}
    answer = call(f"{server}/api/2.0/mlflow/{path}", timeout=30, **kind)
    assert answer.ok, answer.text
    found: dict[str, Any] = answer.json()
    return found


def runs_of(server: str, experiment: str) -> dict[str, dict[str, Any]]:
    found = ask(server, "experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
    runs = ask(server, "runs/search", post=True, experiment_ids=[found])["runs"]
    return {tag["value"]: run for run in runs for tag in run["data"]["tags"] if tag["key"] == "mosaic.run_id"}


def history(server: str, run: dict[str, Any], key: str) -> list[dict[str, Any]]:
    answer = ask(server, "metrics/get-history", run_id=run["info"]["run_id"], metric_key=key, max_results=25000)
    return sorted(answer["metrics"], key=lambda each: (int(each["timestamp"]), int(each["step"])))


def curve(server: str, run: dict[str, Any], key: str) -> list[tuple[int, float]]:
    return [(int(each["step"]), float(each["value"])) for each in history(server, run, key)]


@pytest.mark.long
def test_every_run_is_there_with_its_params(server: str, written: Written) -> None:
    for run_id in ("AAAA1", "BBBB2"):
        written.config(run_id, learning_rate=0.1, net={"width": 64})
        written.train(run_id, 1, 1500)
    written.status(AAAA1="COMPLETED", BBBB2="FAILED")
    written.bridge("mlflow", tracking_uri=server, experiment="whole")
    runs = runs_of(server, "whole")
    assert set(runs) == {"AAAA1", "BBBB2"}
    for run_id, run in runs.items():
        assert curve(server, run, "loss") == written.curve(run_id, "loss")
        assert {each["key"]: each["value"] for each in run["data"]["params"]} == {
            "learning_rate": "0.1",
            "net/width": "64",
        }
        assert run["info"]["run_name"] == f"exp-{run_id[-4:]}"
        assert run["info"]["status"] == ("FINISHED" if run_id == "AAAA1" else "FAILED")
        first = history(server, run, "loss")[0]
        assert int(first["timestamp"]) == 1_000_000
        where = written.storage.get_json("bridges/mlflow.json")["runs"][run_id]["where"]
        assert where.endswith(run["info"]["run_id"])


@pytest.mark.long
def test_a_later_process_finds_the_run_again(server: str, written: Written) -> None:
    written.config("AAAA1", learning_rate=0.1)
    written.train("AAAA1", 1, 5)
    written.bridge("mlflow", tracking_uri=server, experiment="again")
    written.config("AAAA1", learning_rate=0.2)
    written.begins("AAAA1", 2)
    written.train("AAAA1", 6, 8, attempt=2)
    written.bridge("mlflow", tracking_uri=server, experiment="again")
    (run,) = runs_of(server, "again").values()
    assert [step for step, _ in sorted(curve(server, run, "loss"))] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(curve(server, run, "mosaic/attempt")) == [(1, 1.0), (6, 2.0)]
    assert [each["value"] for each in run["data"]["params"]] == ["0.1"]
    assert any("keeps the params" in line for line in written.log)


@pytest.mark.long
def test_names_and_values_that_mlflow_does_not_take(server: str, written: Written) -> None:
    odd = {"a//b": 1.0, "../x": 2.0, "loss@é": 3.0, "n" * 400: 4.0, "nan": math.nan, "inf": math.inf, "fine": 5.0}
    written.lines("AAAA1", {"event": "heartbeat", "payload": {"step": 1, **odd}})
    written.bridge("mlflow", tracking_uri=server, experiment="odd")
    (run,) = runs_of(server, "odd").values()
    for name, value in odd.items():
        ((step, told),) = curve(server, run, key_of(name))
        assert step == 1
        assert math.isnan(told) if math.isnan(value) else told == min(value, sys.float_info.max)


def test_a_server_that_is_not_there_is_an_error_at_once(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    written.train("AAAA1", 1, 5)
    with pytest.raises(MlflowException, match="Max retries exceeded"):
        written.bridge("mlflow", tracking_uri=f"http://127.0.0.1:{free_port()}")
    assert not (written.folder / "bridges/mlflow.json").exists()
