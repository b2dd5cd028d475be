"""kill -9 of everything that takes part in a run, one at a time.

After each: no process of ours is left, nothing that was printed is lost or doubled, and the run goes on from its
last checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import Lab, assert_nothing_left
from support import assert_tables_equal_logs, processes_of, wait_for

from mosaic_cluster.telemetry import TelemetryReader

CONFIG = {"steps": 300, "pause": 0.02, "checkpoint_every": 10, "children": 4}


def under_way(lab: Lab, step: int = 25) -> None:
    wait_for(lambda: lab.experiment_started() and lab.experiment.reached(step), 90, f"step {step}")


def assert_went_on(lab: Lab, *, code: str, steps: int = CONFIG["steps"]) -> None:
    """The second attempt continued the first, and telemetry has every line once."""
    experiment = lab.experiment
    assert experiment.attempts() == [1, 2]
    assert experiment.outcome(1)["code"] == code, experiment.outcome(1)
    assert experiment.outcome(2)["state"] == "COMPLETED"
    assert_tables_equal_logs(experiment)
    started = experiment.lines(2)[0][1]["payload"]
    assert started["resumed_from_attempt"] == 1
    assert started["resumed_from_step"] >= 20
    seen = TelemetryReader(experiment.path / "telemetry").metric("value", experiment.run_id)["step"]
    assert seen.to_pylist() == list(range(1, steps + 1))


def actor_process(lab: Lab) -> psutil.Process:
    """The worker actor that started this run's supervisor: the one that holds the other end of its pipe."""
    supervisor = lab.experiment.launch()["supervisor_pid"]
    pipe = os.readlink(f"/proc/{supervisor}/fd/0")
    for process in psutil.process_iter():
        if process.pid == supervisor:
            continue
        try:
            held = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if pipe in held:
            return process
    raise AssertionError("nobody holds the supervisor's lifeline")


def test_kill_the_worker(lab: Lab) -> None:
    with lab.start(CONFIG) as process:
        under_way(lab)
        os.kill(lab.experiment.launch()["worker_pid"], signal.SIGKILL)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    assert_went_on(lab, code="signal")
    assert lab.experiment.outcome(1)["signal"] == "SIGKILL"


def test_kill_the_supervisor(lab: Lab) -> None:
    with lab.start(CONFIG) as process:
        under_way(lab)
        os.kill(lab.experiment.launch()["supervisor_pid"], signal.SIGKILL)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    assert_went_on(lab, code="supervisor_lost")


def test_kill_the_actor(lab: Lab) -> None:
    with lab.start(CONFIG) as process:
        under_way(lab)
        actor = actor_process(lab)
        assert "WorkerActor" in " ".join(actor.cmdline())
        actor.kill()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    assert_went_on(lab, code="actor_lost")


def test_kill_actor_and_supervisor(lab: Lab) -> None:
    """Nobody is left who knows the run: a sweep finds its children by their environment."""
    with lab.start(CONFIG) as process:
        under_way(lab)
        actor = actor_process(lab)
        os.kill(lab.experiment.launch()["supervisor_pid"], signal.SIGKILL)
        actor.kill()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    assert lab.experiment.outcome(1)["code"] in ("actor_lost", "supervisor_lost")
    assert_tables_equal_logs(lab.experiment)


def test_kill_the_hub(lab: Lab) -> None:
    """A restarted hub learns from the files what it has; the run does not notice."""
    with lab.start(CONFIG) as process:
        under_way(lab)
        wait_for(lambda: list((lab.experiment.path / "telemetry").glob("*/*.parquet")), 30)
        for each in psutil.process_iter(["cmdline"]):
            if "HubActor" in " ".join(each.info["cmdline"] or []):
                each.kill()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    assert lab.experiment.attempts() == [1]
    assert_tables_equal_logs(lab.experiment)


@pytest.mark.long
@pytest.mark.parametrize("whom", ["actor", "hub"])
def test_whoever_hangs_the_log_stays_bounded(whom: str, lab: Lab) -> None:
    """The supervisor needs nobody to hold the worker; once the other one is back, nothing is lost or doubled."""
    config = {"steps": 20_000, "pause": 0.0005, "checkpoint_every": 5000}
    with lab.start(config, telemetry={"backlog": "1MiB", "keep_log": "1MiB"}) as process:
        under_way(lab)
        if whom == "actor":
            hanging = [actor_process(lab)]
        else:
            every = psutil.process_iter(["cmdline"])
            hanging = [each for each in every if "HubActor" in " ".join(each.info["cmdline"] or [])]
        worker = psutil.Process(lab.experiment.launch()["worker_pid"])
        for each in hanging:
            each.suspend()
        try:
            wait_for(lambda: worker.status() == psutil.STATUS_STOPPED, 60, "the worker to be held")
            log = lab.experiment.run_dir / "attempts" / "1" / "stdout.log"
            size = log.stat().st_size
            if whom == "hub":
                wait_for(lambda: "wait for storage" in lab.experiment.status()["reason"], 30)
                assert lab.experiment.status()["state"] == "RUNNING"
            time.sleep(1.0)
            assert log.stat().st_size == size
        finally:
            for each in hanging:
                each.resume()
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 0, output
    assert lab.experiment.attempts() == [1]
    assert lab.experiment.outcome()["held"] >= 1.0
    assert lab.experiment.status()["stood_still"] >= 1.0
    assert_tables_equal_logs(lab.experiment)
    seen = TelemetryReader(lab.experiment.path / "telemetry").metric("value", lab.experiment.run_id)["step"]
    assert seen.to_pylist() == list(range(1, 20_001))


@pytest.mark.parametrize(
    "whom", [pytest.param("driver", marks=pytest.mark.slow), pytest.param("raylet", marks=pytest.mark.long)]
)
def test_kill_the_driver_or_its_raylet_then_resume(whom: str, embedded: Lab) -> None:
    # Ray's own processes take about 17 s to see that their raylet is gone.
    steps = CONFIG["steps"] if whom == "driver" else 1500
    with embedded.start({**CONFIG, "steps": steps}) as process:
        under_way(embedded)
        run_id = embedded.experiment.run_id
        assert len(processes_of(run_id)) >= 6
        if whom == "driver":
            os.kill(process.pid, signal.SIGKILL)
        else:
            below = psutil.Process(process.pid).children(recursive=True)
            (raylet,) = [each for each in below if each.name() == "raylet"]
            raylet.kill()
            raylet.wait()
        output, _ = process.communicate(timeout=90)
        # The run's processes end by themselves: nobody is there to end them.
        assert_nothing_left(embedded)
    assert process.returncode == (-9 if whom == "driver" else 1)
    home = embedded.experiment
    assert home.outcome(1)["code"] == "actor_lost"
    assert '"LOST"' in embedded.mosaic("status", "--json").stdout
    assert whom == "driver" or f"mosaic resume {home.path.name}" in output
    done = embedded.mosaic("resume", home.path.name, *embedded.where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_went_on(embedded, code="actor_lost", steps=steps)
    assert home.status()["failures"] == 0  # the loss of a driver is not the run's failure
