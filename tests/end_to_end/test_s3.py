"""Experiments on an S3-compatible object store: what the run's node has is at most a copy of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Lab, assert_nothing_left
from s3_server import S3
from support import environment, processes_of, spec, wait_for, write_spec

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import LogTail, TelemetryReader
from mosaic_cluster.telemetry.bridges.process import serve

CONFIG = {"steps": 60, "pause": 0.05, "checkpoint_every": 10}
LONG = {"steps": 600, "pause": 0.05, "checkpoint_every": 10}


class Bucket(Lab):
    """A lab whose storage is a bucket; its node's work folder is ``<folder>/scratch``."""

    def __init__(self, folder: Path, env: dict[str, str], s3: S3, address: str | None, backend: str) -> None:
        super().__init__(folder, {**env, **s3.env}, address, backend)
        self.scratch = folder / "scratch"
        self.env.update(MOSAIC_STORAGE=s3.uri, MOSAIC_SCRATCH=str(self.scratch))
        self.s3 = s3
        self.storage = Storage.open(s3.uri)

    def write(self, config: dict[str, Any] | None = None, **more: Any) -> Path:
        return write_spec(self.folder, spec(config, **{"limits": {"grace": "2s"}, **more}))

    @property
    def home(self) -> Storage:
        """The one experiment."""
        (name,) = self.storage.folders()
        return self.storage.at(name)

    def run_ids(self) -> list[str]:
        return [run_id for name in self.storage.folders() for run_id in self.storage.folders(f"{name}/runs")]

    @property
    def run_files(self) -> Storage:
        """The one run's folder in storage."""
        (run_id,) = self.home.folders("runs")
        return self.home.at(f"runs/{run_id}")

    @property
    def work(self) -> Path:
        """The one run's work folder."""
        (found,) = self.scratch.glob("*/runs/*")
        return found

    def saved(self, attempt: int = 1) -> list[int]:
        """Steps of the checkpoints of an attempt that are whole in storage."""
        name = f"attempts/{attempt}/checkpoints.json"
        if not self.storage.folders() or not self.home.folders("runs") or not self.run_files.exists(name):
            return []
        return [each["step"] for each in self.run_files.get_json(name)["checkpoints"]]

    def outcome(self, attempt: int = 1) -> dict[str, Any]:
        document: dict[str, Any] = self.run_files.get_json(f"attempts/{attempt}/outcome.json")
        return document

    def status(self) -> dict[str, Any]:
        document = self.home.get_json("status.json")
        return {**document, **document["runs"][0]}

    def rows(self, *, view: bool = False) -> list[dict[str, Any]]:
        """Of lifecycle."""
        return TelemetryReader(self.home.at("telemetry")).table("lifecycle", view=view).to_pylist()

    def values(self) -> list[int]:
        """Steps of what counts."""
        (run_id,) = self.home.folders("runs")
        found: list[int] = TelemetryReader(self.home.at("telemetry")).metric("value", run_id)["step"].to_pylist()
        return found

    def assert_rows_equal_log(self, attempt: int) -> None:
        """The lifecycle rows of an attempt are its stored log's lines."""
        copy = self.folder / f"log-{attempt}"
        self.run_files.download(f"attempts/{attempt}/stdout.log", copy)
        lines = [
            (offset, event["event"])
            for offset, line in LogTail(copy).read(1 << 30, final=True)
            if "event" in (event := json.loads(line))
        ]
        assert [(row["offset"], row["event"]) for row in self.rows() if row["attempt"] == attempt] == lines


@pytest.fixture
def bucket(tmp_path: Path, workers: Path, own_cache: Path, s3_server: S3) -> Iterator[Bucket]:
    """Experiments without Ray on a bucket."""
    made = Bucket(tmp_path, environment(workers, MOSAIC_CACHE=str(own_cache)), s3_server, None, "inline")
    yield made
    s3_server.restore()
    assert_nothing_left(made)


@pytest.fixture
def on_ray(tmp_path: Path, workers: Path, own_cache: Path, s3_server: S3) -> Iterator[Bucket]:
    """Experiments on a bucket, each with a Ray of its own."""
    made = Bucket(tmp_path, environment(workers, MOSAIC_CACHE=str(own_cache)), s3_server, None, "ray")
    yield made
    s3_server.restore()
    assert_nothing_left(made)


@pytest.mark.slow
def test_a_run(bucket: Bucket) -> None:
    done = bucket.run(CONFIG, telemetry={"bridges": {}})
    assert done.returncode == 0, done.stdout + done.stderr
    assert bucket.s3.uri in done.stdout
    assert "bridge tensorboard is off" in done.stderr
    bucket.assert_rows_equal_log(1)
    assert bucket.values() == list(range(1, 61))
    assert bucket.saved() == [10, 20, 30, 40, 50, 60]
    manifest = bucket.run_files.get_json("analytics.json")
    assert manifest["artifacts"]["checkpoints"]["final_checkpoint"] == "checkpoints/60.json"
    assert bucket.run_files.get_json("checkpoints/60.json") == {"step": 60}
    assert not list(bucket.scratch.glob("*/runs/*")), "all is in storage, and nothing is left on the node"

    listed = bucket.mosaic("ls", "--json")
    assert json.loads(listed.stdout)[0]["state"] == "COMPLETED", listed.stderr
    for verb in (["status"], ["watch"], ["query", "latest", "SELECT count(*) AS n FROM metrics"], ["logs"]):
        answer = bucket.mosaic(*verb)
        assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "run_completed" in answer.stdout
    # Other trackers' bridges read the bucket; this one is at hand to show it.
    options = {"points_per_second": 1e6}
    assert serve(bucket.folder / "bridge", "tensorboard", options, lambda _: True, print, bucket.home) > 0
    kept = "".join(str(bucket.home.get(name)) for name in bucket.home.list() if name.endswith(".json"))
    assert bucket.s3.env["AWS_SECRET_ACCESS_KEY"] not in kept
    assert "AWS_" not in kept


def test_what_needs_files_is_refused_before_anything_is_written(bucket: Bucket) -> None:
    done = bucket.mosaic("plan", bucket.write(telemetry={"bridges": {"tensorboard": True}}), *bucket.where)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "telemetry.bridges.tensorboard: TensorBoard's event files need a folder" in done.stderr
    assert bucket.storage.list() == []


@pytest.mark.long
def test_a_worker_that_fails_goes_on_from_its_checkpoint_on_another_node(bucket: Bucket) -> None:
    """Its work folder is away when the next attempt begins: all it needs is in the bucket."""
    with bucket.start({**CONFIG, "steps": 80, "fail_attempts": 1}, limits={"grace": "2s"}) as process:
        wait_for(lambda: 40 in bucket.saved() and bucket.run_files.exists("attempts/1/stdout.log"), 60)
        bucket.work.rename(bucket.folder / "the other node")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert bucket.outcome(1)["code"] == "exit_code"
    assert bucket.outcome(1)["telemetry_lost_from"] is None
    begun = bucket.run_files.get_json("attempts/2/attempt.json")
    assert (begun["resumed_from_step"], begun["resumed_from_attempt"]) == (40, 1)
    assert bucket.values() == list(range(1, 81))
    for attempt in (1, 2):
        bucket.assert_rows_equal_log(attempt)


@pytest.mark.long
def test_a_lost_disk_costs_one_commit_interval_and_is_on_record(bucket: Bucket) -> None:
    """kill -9 of the driver, and the node's disk with the log is gone, too."""
    with bucket.start(LONG) as process:
        wait_for(lambda: 40 in bucket.saved() and bucket.rows(), 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (run_id,) = bucket.run_ids()
    wait_for(lambda: not processes_of(run_id), 15)
    saved = bucket.saved()[-1]
    last = max(row["offset"] for row in bucket.rows())
    shutil.rmtree(bucket.scratch)

    done = bucket.mosaic("resume", "latest", *bucket.where)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = bucket.outcome(1)
    assert outcome["code"] == "node_lost"
    lost_from = outcome["telemetry_lost_from"]
    assert lost_from > last
    assert f"telemetry from byte {lost_from} of it on is lost" in outcome["message"]
    assert bucket.status()["telemetry_lost_from"] == {"1": lost_from}
    first = bucket.run_files.get_json("analytics.json")["metadata"]["mosaic"]["attempts"][0]
    assert first["outcome"]["telemetry_lost_from"] == lost_from
    # Of the first attempt there is what was committed, and that it ended; then the next one went on.
    ends = [row for row in bucket.rows() if row["attempt"] == 1 and row["offset"] >= lost_from]
    assert [row["event"] for row in ends] == ["run_failed"]
    begun = bucket.run_files.get_json("attempts/2/attempt.json")
    assert (begun["resumed_from_step"], begun["resumed_from_attempt"]) == (saved, 1)
    values = bucket.values()
    assert values == sorted(set(values))
    assert set(range(saved + 1, LONG["steps"] + 1)) <= set(values)
    bucket.assert_rows_equal_log(2)


@pytest.mark.long
def test_asked_from_elsewhere(bucket: Bucket) -> None:
    """Whoever reaches the bucket sees it, and can stop it."""
    with bucket.start({**LONG, "steps": 10_000}) as process:
        wait_for(lambda: bucket.saved() and bucket.status()["state"] == "RUNNING", 60)
        uri = bucket.home.location
        logs = bucket.mosaic("logs", uri)
        assert "[stdout.log is on node " in logs.stdout, logs.stdout + logs.stderr
        stopped = bucket.mosaic("stop", uri)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
    assert bucket.outcome()["state"] == "CANCELLED"
    assert "run_cancelled" in bucket.mosaic("logs", uri).stdout
    bucket.assert_rows_equal_log(1)


@pytest.mark.long
def test_a_storage_that_is_cut_off_for_a_while_loses_nothing(bucket: Bucket) -> None:
    with bucket.start({**CONFIG, "steps": 120}) as process:
        wait_for(lambda: 20 in bucket.saved(), 60)
        bucket.s3.cut()
        time.sleep(3)
        bucket.s3.restore()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    bucket.assert_rows_equal_log(1)
    assert bucket.values() == list(range(1, 121))
    assert bucket.saved()[-1] == 120


@pytest.mark.long
def test_a_credential_that_is_lost_in_the_middle(on_ray: Bucket) -> None:
    with on_ray.start(LONG) as process:
        wait_for(lambda: 20 in on_ray.saved(), 60)
        on_ray.s3.fail(100_000, 403)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 1, output
    on_ray.s3.restore()
    assert "InvalidAccessKeyId" in output
    assert "mosaic resume" in output
    assert "Traceback" not in output
    kept = (on_ray.work / "attempts" / "1" / "stdout.log").read_text()
    done = on_ray.mosaic("resume", "latest", *on_ray.where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert on_ray.outcome(1)["telemetry_lost_from"] is None
    assert on_ray.run_files.get("attempts/1/stdout.log").decode().startswith(kept)
    assert on_ray.run_files.get_json("attempts/2/attempt.json")["resumed_from_step"] >= 20
    for attempt in (1, 2):
        on_ray.assert_rows_equal_log(attempt)


@pytest.mark.long
def test_pbt_goes_on_from_copies(on_ray: Bucket) -> None:
    """A checkpoint is copied from run to run in the bucket, and fetched where the run goes on."""
    pbt = {
        "kind": "sweep", "name": "pbt", "worker": "curves", "config": {"steps": 24, "pause": 1.0}, "seeds": [1],
        "samples": 4, "search": {"kind": "random", "seed": 2}, "space": {"quality": {"uniform": [1, 10]}},
        "metric": {"name": "score", "at": [8, 16, 24]}, "scheduler": "pbt",
    }  # fmt: skip
    done = on_ray.mosaic("run", write_spec(on_ray.folder, pbt), *on_ray.where, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    lineage = [(trial, born) for trial in on_ray.home.get_json("status.json")["trials"] for born in trial["lineage"]]
    assert lineage
    for trial, born in lineage:
        (run_id,) = trial["runs"]
        copied = born["runs"][run_id]
        assert on_ray.home.exists(f"runs/{run_id}/{copied['path']}"), copied
        begun = on_ray.home.get_json(f"runs/{run_id}/attempts/{copied['attempt']}/attempt.json")
        assert begun["resumed_from"].endswith(copied["path"])
        assert (begun["resumed_from_run"], begun["resumed_from_step"]) == (copied["run_id"], copied["step"])
        steps = TelemetryReader(on_ray.home.at("telemetry")).metric("score", run_id)["step"].to_pylist()
        assert steps == sorted(set(steps))
        assert steps[-1] == 24


@pytest.mark.long
def test_on_ray(on_ray: Bucket) -> None:
    """Its actor is killed, and the folder it worked in is gone: a task on another node closes it, and it goes on."""
    with on_ray.start({**CONFIG, "steps": 200}) as process:
        wait_for(lambda: 20 in on_ray.saved() and on_ray.rows(), 90)
        actor = actor_of(on_ray.work / "attempts" / "1")
        on_ray.work.rename(on_ray.folder / "a lost disk")
        actor.kill()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert on_ray.outcome(1)["code"] == "node_lost"
    assert on_ray.run_files.get_json("attempts/2/attempt.json")["resumed_from_step"] >= 20
    on_ray.assert_rows_equal_log(2)
    logs = on_ray.mosaic("logs", "latest")
    assert "#1 [stdout.log is not in storage: it is gone with the disk of its node]" in logs.stdout
    assert "#2 " in logs.stdout


def actor_of(attempt: Path) -> psutil.Process:
    """The process that holds the other end of the supervisor's pipe."""
    supervisor = json.loads((attempt / "launch.json").read_text())["supervisor_pid"]
    pipe = os.readlink(f"/proc/{supervisor}/fd/0")
    for process in psutil.process_iter():
        try:
            held = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if process.pid != supervisor and pipe in held:
            return process
    raise AssertionError("nobody holds the supervisor's lifeline")
