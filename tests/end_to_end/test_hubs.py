"""Hubs as actors of a real Ray: several of them, one that hangs, and what they tell Prometheus."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import urllib.request

import psutil
import pytest
from conftest import Lab
from support import Cluster, assert_tables_equal_logs, wait_for, write_spec

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TelemetryReader
from mosaic_cluster.telemetry.files import data_files, file_number


def hub_processes(experiment: str) -> dict[str, psutil.Process]:
    """Living hub actors of an experiment, by the number that their record in storage has."""
    folder = Storage.open(experiment)
    found = {}
    for name in folder.list("telemetry/hubs"):
        record = folder.get_json(name)
        if psutil.pid_exists(record["pid"]):
            process = psutil.Process(record["pid"])
            if process.status() != psutil.STATUS_ZOMBIE and "HubActor" in " ".join(process.cmdline()):
                found[name.removeprefix("telemetry/hubs/").removesuffix(".json")] = process
    return found


def test_two_hubs_share_the_runs(lab: Lab) -> None:
    spec = {
        "kind": "sweep", "name": "shared", "worker": "scripted", "config": {"steps": 20, "pause": 0.01},
        "space": {"episode_every": {"choice": [1, 2, 3, 4, 5, 6]}}, "search": "grid", "metric": {"name": "value"},
        "resources": {"cpus": 0.5}, "telemetry": {"shards": 2},
    }  # fmt: skip
    ran = lab.mosaic("run", write_spec(lab.folder, spec), *lab.where)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (home,) = (lab.folder / "results").iterdir()
    assert {file_number(name)[0] for name in data_files(Storage.open(home / "telemetry"), "metrics")} == {0, 1}
    reader = TelemetryReader(home / "telemetry")
    for run_id in lab.run_ids():
        assert reader.metric("value", run_id)["step"].to_pylist() == list(range(1, 21))
    edited = write_spec(lab.folder, {**spec, "telemetry": {"shards": 3}}, "edited.json")
    refused = lab.mosaic("resume", home.name, "--spec", edited, "--allow-changed", *lab.where)
    assert refused.returncode == 2
    assert "telemetry.shards: 2 -> 3: cannot change" in refused.stderr


def test_prometheus_hears_of_the_hub(lab: Lab, cluster: Cluster) -> None:
    with lab.start({"steps": 2000, "pause": 0.02}) as process:

        def metrics() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics_port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            lines = re.findall(r"^ray_(mosaic_hub_\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE)
            name = lab.experiment.path.name
            return {metric: float(value) for metric, labels, value in lines if f'experiment="{name}"' in labels}

        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(20), 90)
        seen = wait_for(lambda: (found := metrics()).get("mosaic_hub_commit_seconds_count", 0) > 0 and found, 90)
        assert seen["mosaic_hub_events_total"] > 0
        assert seen["mosaic_hub_rows_total"] > 0
        assert {"mosaic_hub_pending_bytes", "mosaic_hub_unread_bytes", "mosaic_hub_commit_age_seconds"} <= seen.keys()
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_hub_that_hangs_gets_a_successor(lab: Lab) -> None:
    """The driver starts another; the runs go on with that; the one that wakes up again is fenced, and exits."""
    with lab.start({"steps": 6000, "pause": 0.02, "episode_every": 10}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(50), 90)
        path = str(lab.experiment.path)
        (old,) = wait_for(lambda: hub_processes(path), 30).values()
        os.kill(old.pid, signal.SIGSTOP)
        wait_for(lambda: len(Storage.open(path).list("telemetry/hubs")) == 2, 200, "a successor")
        # Ray, which was told to end it, may have been quicker.
        with contextlib.suppress(ProcessLookupError):
            os.kill(old.pid, signal.SIGCONT)
        wait_for(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, 60, "its end")
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    assert lab.experiment.attempts() == [1]
    assert_tables_equal_logs(lab.experiment)
