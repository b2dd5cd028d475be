"""Bounded everywhere: a storage that fails slows the worker, a long log takes little of the disk, nothing is lost."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.compute as pc
import pytest
from conftest import Lab
from support import assert_tables_equal_logs, small_disk, wait_for

from mosaic_cluster.logs import read_released
from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.attempt import Attempt
from mosaic_cluster.runtime.backend import AttemptOrder, WorkerLaunch
from mosaic_cluster.runtime.checkpoints import checkpoint_at, last_checkpoint
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits, Room
from mosaic_cluster.supervision.releasing import Releaser
from mosaic_cluster.telemetry import HubCore, Pump, TelemetryReader, Watch, offset_at_step, scan_log
from mosaic_cluster.telemetry.tail import LogTail

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAX"
MIB = 1 << 20
LINES = 60_000
PRINTS = f"""
import os, time
line = b'{{"event":"heartbeat","payload":{{"step":%d,"x":"%s"}}}}\\n'
for start in range(0, {LINES}, 500):
    os.write(1, b"".join(line % (step, b"y" * 60) for step in range(start, start + 500)) + b"chatter\\n")
    time.sleep(0.02)
"""


def order_for(folder: Path, code: str, room: Room) -> AttemptOrder:
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text("{}")
    script = folder / "prints.py"
    script.write_text(textwrap.dedent(code))
    return AttemptOrder(
        experiment_id="e",
        experiment_dir=str(folder),
        run_id=RUN,
        attempt=1,
        worker=WorkerLaunch("w", "w", True, command=(sys.executable, str(script))),
        config={},
        seed=1,
        placement=Placement(RUN, "id", "node", 1.0),
        limits=Limits(),
        room=room,
    )


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(MIB))


@contextmanager
def running(attempt: Attempt) -> Iterator[list[Any]]:
    """The attempt in a thread; its result is in the list at the end."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(attempt.run()))
    thread.start()
    try:
        yield results
        thread.join(150)
    finally:
        attempt.stop("cancelled", "the test is over")
        thread.join(60)
    assert not thread.is_alive()


def test_a_full_storage_slows_the_worker_and_loses_nothing(tmp_path: Path) -> None:
    order = order_for(tmp_path / "experiment", PRINTS, Room(backlog=MIB, keep_log=MIB))
    with small_disk(tmp_path / "disk", 32 * MIB) as disk:
        hub = HubService(Storage.open(disk / "telemetry"), on_fenced=lambda: None)
        ballast = disk / "ballast"
        fill(ballast)
        attempt = Attempt(order, hub)
        log = order.attempt_dir() / "stdout.log"
        with running(attempt) as results:
            wait_for(lambda: attempt.progress().stands_still, 60, "it to be held")
            assert attempt.progress().state == "RUNNING"
            launched = json.loads((order.attempt_dir() / "launch.json").read_text())
            worker = psutil.Process(launched["worker_pid"])
            wait_for(lambda: worker.status() == psutil.STATUS_STOPPED, 10)
            size = log.stat().st_size
            assert size > MIB
            assert hub.watermark(RUN, 1).committed == 0
            wait_for(lambda: attempt.progress().held > 3, 30)
            assert log.stat().st_size == size
            ballast.unlink()
        hub.close()
        (result,) = results
        assert result.outcome.state == "COMPLETED"
        assert result.outcome.held > 3
        assert result.committed == result.log_bytes > LINES * 100
        rows = TelemetryReader(disk / "telemetry").table("lifecycle", view=False)
        rows = rows.filter(pc.equal(rows["event"], "heartbeat"))
        assert [json.loads(text)["step"] for text in rows["payload"].to_pylist()] == list(range(LINES))


@pytest.mark.long
def test_a_long_log_takes_little_of_the_disk(inline: Lab) -> None:
    """It prints twenty times what is kept."""
    most = 0
    config = {"steps": 70_000, "pause": 0, "checkpoint_every": 1000}
    with inline.start(config, telemetry={"backlog": "1MiB", "keep_log": "1MiB"}) as process:
        wait_for(inline.experiment_started, 60)
        log = inline.experiment.run_dir / "attempts" / "1" / "stdout.log"
        while process.poll() is None:
            most = max(most, log.stat().st_blocks * 512)
            assert process.stdout is not None
        assert process.returncode == 0, process.stdout.read()
    experiment = inline.experiment
    assert log.stat().st_size > 20 * MIB
    assert most < 2 * MIB + 4 * MIB, "what is kept, what waits, and what is printed between two looks"
    assert_tables_equal_logs(experiment)
    reader = TelemetryReader(experiment.path / "telemetry")
    assert reader.metric("value", experiment.run_id)["step"].to_pylist() == list(range(1, 70_001))
    assert reader.table("episodes")["episode"].to_pylist() == list(range(1, 70_001))
    gap = experiment.released()
    assert gap is not None
    (told,) = [line for _, line in experiment.lines() if line["event" if "event" in line else "type"] == "log_released"]
    assert told["payload"] == {"bytes": gap.size, "log_lines": 0}
    logs = inline.mosaic("logs").stdout
    assert logs.count("were let go here (telemetry.keep_log)") == 1
    assert "\0" not in logs and "run_completed" in logs
    status = json.loads(inline.mosaic("status", "--json").stdout)["runs"][0]
    assert status["stood_still"] >= 0


@pytest.mark.long
@pytest.mark.parametrize("keep", ["1GiB", "1MiB"])
def test_a_restart_goes_on_from_the_same_checkpoint(inline: Lab, keep: str) -> None:
    """Whether what announced it was let go or not."""
    config = {"steps": 48_000, "pause": 0, "checkpoint_every": 13_000, "fail_attempts": 1}
    done = inline.run(config, telemetry={"backlog": "1MiB", "keep_log": keep})
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = inline.experiment
    assert (experiment.released() is not None) == (keep == "1MiB")
    started = experiment.lines(2)[0][1]["payload"]
    assert (started["resumed_from_step"], started["resumed_from_attempt"]) == (13_000, 1)
    rows = TelemetryReader(experiment.path / "telemetry").table("lifecycle", view=False)
    saved = rows.filter(pc.and_(pc.equal(rows["event"], "checkpoint_saved"), pc.equal(rows["attempt"], 1)))
    assert saved["offset"].to_pylist() == [started["resumed_from_offset"]]
    if keep == "1MiB":
        gap = experiment.released()
        assert gap is not None and gap.first <= started["resumed_from_offset"] < gap.upto
    reader = TelemetryReader(experiment.path / "telemetry")
    assert reader.metric("value", experiment.run_id)["step"].to_pylist() == list(range(1, 48_001))


def story() -> Iterator[bytes]:
    """A log in which much depends on what stood before."""
    for step in range(1, 4001):
        if step % 400 == 0:
            yield json.dumps({"event": "checkpoint_saved", "payload": {"path": f"{step}", "step": step}}).encode()
        if step % 7 == 0:
            yield json.dumps({"event": "heartbeat", "payload": {"score": step / 8}}).encode()  # the step before is its
        elif step % 11 == 0:
            yield json.dumps({"type": "step", "step": 3, "metadata": {"global_step": step}}).encode()
        else:
            yield json.dumps({"event": "heartbeat", "payload": {"step": step, "score": step / 4}}).encode()
        yield b"chatter"


@pytest.mark.parametrize("cut", [0.65, 0.75, 0.85])
def test_what_was_let_go_is_read_from_the_tables(tmp_path: Path, cut: float) -> None:
    """Checkpoints, rungs and offsets are the same with a released range and without."""
    run_dir, telemetry = tmp_path / "runs" / RUN, tmp_path / "telemetry"
    log = run_dir / "attempts" / "1" / "stdout.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\n".join(story()) + b"\n")
    for step in range(400, 4001, 400):
        (run_dir / str(step)).write_text("x")
    core = HubCore(Storage.open(telemetry))

    class Hub:
        append, watermark = core.append, core.watermark

        def flush(self, *_: Any) -> None:
            core.commit()

    assert Pump(log, RUN, 1, Hub()).drain(30) == log.stat().st_size

    def answers() -> list[Any]:
        watch = Watch("score", tuple(range(0, 4000, 37)))
        scan_log(log, watch, RUN, 1, telemetry)
        steps = range(0, 4001, 113)
        return [
            watch.seen(),
            last_checkpoint(run_dir, 2),
            [checkpoint_at(run_dir, 2, step) for step in steps],
            [offset_at_step(log, step, RUN, 1, telemetry) for step in steps],
        ]

    before, size = answers(), log.stat().st_size
    lines = [each for _, each in all_lines(log)]
    keep = int(size * (1 - cut) * 2)
    gap = Releaser(log, keep).step(size, int(size * cut))
    assert gap is not None and log.stat().st_size == size and gap == read_released(log)
    assert gap.log_lines == lines.count(b"chatter") - [each for _, each in all_lines(log)].count(b"chatter")
    assert answers() == before


def all_lines(log: Path) -> list[tuple[int, bytes]]:
    tail, found = LogTail(log), []
    while lines := tail.read(1000, final=True):
        found += lines
    return found


def test_a_range_let_go_while_it_is_read(tmp_path: Path) -> None:
    """Whoever reads sees what was printed or steps over it; never a zero."""
    log = tmp_path / "stdout.log"
    log.write_bytes(b"".join(b"%07d\n" % number for number in range(400_000)))
    size = log.stat().st_size
    tail, releaser, safe, found = LogTail(log), Releaser(log, MIB), 0, []
    while lines := tail.read(1 << 14, final=True):
        found += lines
        safe = min(size, safe + (1 << 15))
        releaser.step(size, safe)
    assert releaser.released is not None
    assert all(line == b"%07d" % (offset // 8) for offset, line in found)
    missing = 400_000 - len(found)
    assert 0 < missing <= releaser.released.log_lines
    assert found[-1][0] == size - 8


def test_a_stream_without_line_ends_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "stdout.log"
    log.write_bytes(b"50%\r" * 100_000 + b"\ndone\n")
    tail, found = LogTail(log, longest=1 << 16), []
    while lines := tail.read(1 << 14):
        found += lines
    assert b"".join(line for _, line in found) == b"50%\r" * 100_000 + b"done"
    assert max(len(line) for _, line in found) < (1 << 16) + (1 << 14)
