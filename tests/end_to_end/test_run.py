"""The one path, from a spec to Parquet, on a real Ray, through the command line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from conftest import Lab
from support import (
    Experiment,
    assert_tables_equal_logs,
    environment,
    install,
    processes_of,
    quick_start,
    spec,
    wait_for,
    write_spec,
)

from mosaic_cluster.telemetry import TelemetryReader

FIXTURES = Path(__file__).parent.parent / "fixtures"


def test_a_run_completes(lab: Lab) -> None:
    done = lab.run({"steps": 30})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETED" in done.stdout
    experiment = lab.experiment
    assert_tables_equal_logs(experiment)
    reader = TelemetryReader(experiment.path / "telemetry")
    assert reader.metric("value", experiment.run_id)["value"].to_pylist() == [step * 1.5 for step in range(1, 31)]
    manifest = json.loads((experiment.run_dir / "analytics.json").read_text())
    assert manifest["run_id"] == experiment.run_id
    assert manifest["worker_type"] == "scripted"
    assert manifest["metadata"]["mosaic"]["state"] == "COMPLETED"
    index = json.loads((experiment.path / "analytics.json").read_text())
    assert [run["manifest"] for run in index["runs"]] == [f"runs/{experiment.run_id}/analytics.json"]
    record = json.loads((experiment.path / "experiment.json").read_text())
    assert record["seeds"] == [1]
    assert record["spec"]["config"] == {"steps": 30}


def test_what_others_read(lab: Lab) -> None:
    """ls, status and logs, for people and as JSON."""
    assert lab.run({"steps": 5}).returncode == 0
    experiment = lab.experiment
    (listed,) = json.loads(lab.mosaic("ls", "--json").stdout)
    assert listed["experiment_id"] == experiment.path.name
    assert listed["state"] == "COMPLETED"
    assert experiment.path.name in lab.mosaic("ls").stdout
    status = json.loads(lab.mosaic("status", "--json").stdout)
    assert status["runs"][0]["step"] == 5
    assert "COMPLETED" in lab.mosaic("status").stdout
    lines = lab.mosaic("logs").stdout
    assert "run_completed" in lines
    raw = [line for line in lab.mosaic("logs", "--raw", "--only", "out").stdout.splitlines() if '"heartbeat"' in line]
    assert [json.loads(line)["payload"]["step"] for line in raw] == [1, 2, 3, 4, 5]


def test_a_failure_says_why(lab: Lab) -> None:
    done = lab.run({"steps": 3, "raise_text": "the reward is negative"}, limits={"max_failures": 0})
    assert done.returncode == 1
    assert "RuntimeError: the reward is negative" in done.stdout
    outcome = lab.experiment.outcome()
    assert outcome["exit_code"] == 1
    assert outcome["stderr_tail"][-1] == "RuntimeError: the reward is negative"


def test_a_restart_goes_on_from_its_checkpoint(lab: Lab) -> None:
    done = lab.run({"steps": 24, "fail_attempts": 1, "checkpoint_every": 5})
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = lab.experiment
    assert experiment.attempts() == [1, 2]
    assert experiment.outcome(1)["message"].endswith("it said: gave up half way")
    assert_tables_equal_logs(experiment)
    attempts = json.loads((experiment.run_dir / "analytics.json").read_text())["metadata"]["mosaic"]["attempts"]
    assert [attempt["resumed_from_step"] for attempt in attempts] == [None, 10]
    reader = TelemetryReader(experiment.path / "telemetry")
    raw = reader.metric("value", experiment.run_id, view=False)["step"].to_pylist()
    assert raw == [*range(1, 13), *range(11, 25)]
    assert reader.metric("value", experiment.run_id)["step"].to_pylist() == list(range(1, 25))


def test_failures_run_out(lab: Lab) -> None:
    done = lab.run({"steps": 4, "exit_code": 7, "pause": 0}, limits={"max_failures": 1})
    assert done.returncode == 1
    assert lab.experiment.attempts() == [1, 2]
    assert "code 7" in lab.experiment.status()["reason"]
    assert "max_failures: 1" in lab.experiment.status()["reason"]


def test_stop_lets_the_worker_end(lab: Lab) -> None:
    with lab.start({"steps": 10_000, "children": 2}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(5), 60)
        assert lab.mosaic("stop", lab.experiment.path.name).returncode == 0
        assert process.wait(60) == 130
    assert lab.experiment.outcome()["state"] == "CANCELLED"
    assert lab.experiment.lines()[-1][1]["event"] == "run_cancelled"
    assert_tables_equal_logs(lab.experiment)


def test_pause_and_unpause(lab: Lab) -> None:
    # Longer than any pause takes: it is stopped at the end.
    with lab.start({"steps": 10_000, "pause": 0.02}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(5), 60)
        assert lab.mosaic("pause", lab.experiment.path.name).returncode == 0
        wait_for(lambda: lab.experiment.status()["state"] == "PAUSED", 30)
        log = lab.experiment.run_dir / "attempts" / "1" / "stdout.log"
        before = log.stat().st_size
        assert lab.mosaic("status").stdout.count("PAUSED") >= 1
        assert log.stat().st_size == before
        assert lab.mosaic("unpause", lab.experiment.path.name).returncode == 0
        wait_for(lambda: log.stat().st_size > before, 30, "more lines")
        assert lab.mosaic("stop", lab.experiment.path.name).returncode == 0
        assert process.wait(60) == 130
    assert lab.experiment.attempts() == [1]


@pytest.mark.slow
def test_pause_with_a_checkpoint_gives_its_resources_back(lab: Lab) -> None:
    """The cleanrl worker supports it: it saves and ends, and unpausing starts the next attempt from there."""
    config = {"env_id": "CartPole-v1", "total_steps": 2_000_000}
    with lab.start(config, worker="cleanrl") as process:
        wait_for(lambda: lab.experiment_started() and '"heartbeat"' in lab.experiment.text(), 90)
        name = lab.experiment.path.name
        assert lab.mosaic("pause", name).returncode == 0
        wait_for(lambda: lab.experiment.status()["state"] == "PAUSED", 60)
        assert "its resources are free" in lab.experiment.status()["reason"]
        assert processes_of(lab.experiment.run_id) == []
        saved = lab.experiment.lines()[-2][1]
        assert saved["event"] == "checkpoint_saved"
        assert lab.mosaic("unpause", name).returncode == 0
        wait_for(lambda: lab.experiment.attempts() == [1, 2] and '"heartbeat"' in lab.experiment.text(2), 90)
        assert lab.mosaic("stop", name).returncode == 0
        assert process.wait(60) == 130
    assert lab.experiment.lines(2)[0][1]["payload"]["resumed_from_step"] == saved["payload"]["step"]
    assert lab.experiment.status()["failures"] == 0
    assert_tables_equal_logs(lab.experiment)


def test_logs_can_be_followed(lab: Lab) -> None:
    with lab.start({"steps": 100, "pause": 0.05}):
        wait_for(lab.experiment_started, 60)
        followed = lab.mosaic("logs", "-f", "latest")
    assert followed.returncode == 0
    assert followed.stdout.count("heartbeat") == 100
    assert "run_completed" in followed.stdout


def test_ctrl_c_once_stops_cleanly(lab: Lab) -> None:
    with lab.start({"steps": 10_000}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(5), 60)
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
    assert "Ctrl-C" in output
    assert lab.experiment.outcome()["exit_code"] == 143
    assert_tables_equal_logs(lab.experiment)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["quick start", "template"])
def test_the_guides_workers_run_as_printed(which: str, tmp_path: Path, own_cache: Path) -> None:
    packages = tmp_path / "packages"
    if which == "quick start":
        quick_start(packages)
    else:
        source = FIXTURES / "guide" / "template" / "my_worker"
        packages.mkdir()
        install(packages, source, "myworker", "my_worker:get_worker_metadata")
    lab = Lab(tmp_path, environment(packages, MOSAIC_CACHE=str(own_cache)), None)
    done = lab.run({"env_id": "CartPole-v1"}, worker="myworker")
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = lab.experiment
    assert_tables_equal_logs(experiment)
    events = [line["event"] for _, line in experiment.lines()]
    assert events[:2] == ["attempt_started", "run_started"]
    assert events[-1] == "run_completed"
    manifest = json.loads((experiment.run_dir / "analytics.json").read_text())
    assert manifest["worker_type"] == "myworker"
    if which == "template":
        assert manifest["metadata"]["algorithm"] == "dqn"  # its own manifest was found and completed
        assert manifest["metadata"]["mosaic"]["state"] == "COMPLETED"


def test_a_trainer_config_is_a_run_spec(lab: Lab) -> None:
    document = {
        "run_name": "from the GUI",
        "entry_point": sys.executable,
        "arguments": ["-m", "scripted_worker.cli"],
        "environment": {"FROM_SPEC": "1"},
        "resources": {"cpus": 1, "memory_mb": 512, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {"output_prefix": "x", "persist_logs": True, "keep_checkpoints": False},
        "metadata": {
            "worker": {"worker_id": "scripted", "module": "scripted_worker.cli", "config": {"steps": 500}}
        },
        "schedule": {"max_duration_seconds": 600, "max_steps": 20},
    }
    done = lab.mosaic("run", write_spec(lab.folder, document), *lab.where)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = lab.experiment.outcome()
    assert (outcome["state"], outcome["code"]) == ("COMPLETED", "max_steps")
    assert 20 <= outcome["last_step"] < 500
    assert "FROM_SPEC" in lab.experiment.launch()["environment"]


def test_json_for_programs(lab: Lab) -> None:
    done = lab.mosaic("run", lab.write({"steps": 3}), *lab.where, "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["state"] == "COMPLETED"
    assert document["runs"][0]["step"] == 3


def test_ctrl_c_twice_waits_for_nobody(lab: Lab) -> None:
    with lab.start({"steps": 10_000, "ignore_sigterm": True, "children": 2}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(5), 60)
        os.kill(process.pid, signal.SIGINT)
        wait_for(lambda: "is stopping, with 30s" in lab.experiment.status()["reason"], 20)
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=25)  # less than the grace of 30 s
        assert process.returncode == 130, output
    assert lab.experiment.status()["state"] == "CANCELLED"


def test_resume_goes_on_with_what_was_cancelled_and_leaves_what_is_done(lab: Lab) -> None:
    with lab.start({"steps": 100, "checkpoint_every": 5}) as process:
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(12), 60)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    done = lab.mosaic("resume", "latest", *lab.where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.experiment.attempts() == [1, 2]
    assert lab.experiment.lines(2)[0][1]["payload"]["resumed_from_step"] >= 10
    assert_tables_equal_logs(lab.experiment)
    before = lab.experiment.status()
    again = lab.mosaic("resume", "latest", *lab.where)
    assert (again.returncode, lab.experiment.status()) == (0, before)


def test_two_runs_in_one_storage(lab: Lab) -> None:
    assert lab.run({"steps": 3}).returncode == 0
    assert lab.run({"steps": 3}).returncode == 0
    assert len(json.loads(lab.mosaic("ls", "--json").stdout)) == 2


def test_without_ray(inline: Lab) -> None:
    """The same code on the inline backend."""
    done = inline.run({"steps": 24, "fail_attempts": 1})
    assert done.returncode == 0, done.stdout + done.stderr
    assert inline.experiment.attempts() == [1, 2]
    assert_tables_equal_logs(inline.experiment)


def test_a_seed_is_drawn_and_recorded(inline: Lab) -> None:
    document = spec({"steps": 3})
    del document["seed"]
    assert inline.mosaic("run", write_spec(inline.folder, document), *inline.where).returncode == 0
    experiment: Experiment = inline.experiment
    seed = json.loads((experiment.path / "experiment.json").read_text())["seeds"][0]
    assert json.loads((experiment.run_dir / "config.json").read_text())["seed"] == seed
