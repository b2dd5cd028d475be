"""A worker that prints more than storage or its disk takes: it stands still, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import processes_of, small_disk, wait_for
from ulid import ULID

from mosaic_cluster.logs import read_released
from mosaic_cluster.supervision import Limits, Order, Room, Supervised, start
from mosaic_cluster.supervision.holding import BACKLOG, DISK, PAUSE, Holds, Want

RUN = str(ULID())  # each process of the test suite has its own: processes are found by it
MIB = 1 << 20
Make = Callable[..., Supervised]

PRINTER = """
    import os, time
    line = b'{"event":"heartbeat","payload":{"step":%d}}\\n'
    text = b"".join(line % number for number in range(1000))
    while True:
        os.write(1, text)
        time.sleep(0.001)
"""
COUNTED = """
    import os, time
    for number in range(400):
        os.write(1, (b"%06d" % number) * 1000 + b"\\n")
        time.sleep(0.005)
"""
FAMILY = """
    import os, subprocess, time
    for _ in range(3):
        if os.fork() == 0:
            while True:
                os.write(1, b"child " * 100 + b"\\n")
                if os.fork() == 0:
                    os._exit(0)
                os.wait()
    while True:
        os.write(1, b"x" * 999 + b"\\n")
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Make]:
    """Starts code as a worker."""
    made: list[Supervised] = []

    def begin(code: str, folder: Path = tmp_path, **more: Any) -> Supervised:
        settings: dict[str, Any] = {
            "run_id": RUN,
            "attempt": 1,
            "command": (sys.executable, "-u", "-c", textwrap.dedent(code)),
            "cwd": str(folder),
            "environment": {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": RUN, "MOSAIC_ATTEMPT": "1"},
            "attempt_dir": str(folder / "attempt"),
            "grace": 5.0,
            "room": Room(backlog=MIB),
        }
        made.append(start(Order(**{**settings, **more})))
        wait_for(lambda: (folder / "attempt" / "launch.json").exists(), 20, "it to start")
        return made[-1]

    yield begin
    for each in made:
        each.close()
    wait_for(lambda: not processes_of(RUN), 10, "every process to end")


def log_of(supervised: Supervised) -> Path:
    return Path(supervised.order.attempt_dir, "stdout.log")


def stands_still(supervised: Supervised) -> bool:
    """Every process of the worker is stopped."""
    worker = psutil.Process(supervised.worker_pid)
    every = [worker, *worker.children(recursive=True)]
    return all(each.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) for each in every)


def held(supervised: Supervised) -> None:
    wait_for(lambda: supervised.status().stands_still, 20, "it to be held")
    wait_for(lambda: stands_still(supervised), 5, "every process to be stopped")


def prints_nothing(supervised: Supervised, seconds: float = 0.7) -> bool:
    before = log_of(supervised).stat().st_size
    time.sleep(seconds)
    return log_of(supervised).stat().st_size == before


def catch_up(supervised: Supervised) -> int:
    size = log_of(supervised).stat().st_size
    supervised.committed(size)
    return size


def test_it_stands_still_until_storage_has_caught_up(run: Make) -> None:
    supervised = run(PRINTER)
    held(supervised)
    assert supervised.status().state == "RUNNING"
    assert "wait for storage" in str(supervised.status().stands_still)
    assert prints_nothing(supervised)
    size = log_of(supervised).stat().st_size
    assert size > MIB
    supervised.committed(size - MIB * 3 // 4)  # not half of it yet
    assert prints_nothing(supervised)
    for _ in range(3):
        size = catch_up(supervised)
        wait_for(lambda size=size: log_of(supervised).stat().st_size > size, 10, "it to go on")
        held(supervised)
    supervised.stop("cancelled", "enough")
    outcome = supervised.wait(20)
    assert outcome is not None
    assert outcome.held > 1.0
    assert outcome.duration < outcome.ended_at - outcome.started_at - 1.0


def test_every_line_is_there_in_order(run: Make) -> None:
    supervised = run(COUNTED, room=Room(backlog=MIB // 4))
    while supervised.wait(0.05) is None:
        catch_up(supervised)
    outcome = supervised.wait(1)
    assert outcome is not None and outcome.state == "COMPLETED"
    lines = [line for line in log_of(supervised).read_bytes().splitlines() if not line.startswith(b"{")]
    assert lines == [(b"%06d" % number) * 1000 for number in range(400)]


def test_whoever_is_forked_meanwhile_stands_still_too(run: Make) -> None:
    supervised = run(FAMILY)
    held(supervised)
    assert len(psutil.Process(supervised.worker_pid).children()) == 3
    assert prints_nothing(supervised, 1.0)
    size = catch_up(supervised)
    wait_for(lambda: log_of(supervised).stat().st_size > size, 10, "it to go on")


@pytest.mark.parametrize("order", ["pause first", "held first"])
def test_pause_and_hold_do_not_wake_each_other(run: Make, order: str) -> None:
    supervised = run(PRINTER)
    held(supervised)
    supervised.pause()
    wait_for(lambda: supervised.status().state == "PAUSED", 10)
    if order == "held first":
        size = catch_up(supervised)
        wait_for(lambda: supervised.status().stands_still is None, 10)
        assert stands_still(supervised) and prints_nothing(supervised)
        supervised.unpause()
    else:
        supervised.unpause()
        wait_for(lambda: supervised.status().state == "RUNNING", 10)
        assert supervised.status().stands_still
        assert stands_still(supervised) and prints_nothing(supervised)
        size = catch_up(supervised)
    wait_for(lambda: log_of(supervised).stat().st_size > size, 10, "it to go on")


SAVES = """
    import os, signal, sys
    def bye(*_):
        os.write(1, b"saved " * 500_000 + b"\\n")
        sys.exit(143)
    signal.signal(signal.SIGTERM, bye)
    while True:
        os.write(1, b"x" * 999 + b"\\n")
"""


@pytest.mark.parametrize("paused", [False, True])
def test_a_held_worker_can_save_and_end(run: Make, paused: bool) -> None:
    """What it prints on the way may exceed the limit."""
    supervised = run(SAVES)
    held(supervised)
    if paused:
        supervised.pause()
        wait_for(lambda: supervised.status().state == "PAUSED", 10)
    supervised.stop("cancelled", "enough")
    outcome = supervised.wait(20)
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("CANCELLED", 143)
    assert b"saved " * 500_000 in log_of(supervised).read_bytes()


def test_time_does_not_run_while_it_is_held(run: Make) -> None:
    """Neither silence nor running time."""
    supervised = run(PRINTER, limits=Limits(max_duration=6.0, no_heartbeat=4.0))
    held(supervised)
    assert supervised.wait(7.0) is None
    while supervised.wait(0.02) is None:  # now it runs, nearly all the time
        catch_up(supervised)
    outcome = supervised.wait(1)
    assert outcome is not None
    assert (outcome.code, outcome.held > 6.5) == ("max_duration", True)


def test_limits_that_were_reached_count_while_it_is_held(run: Make) -> None:
    greedy = "held = bytearray(300 << 20)\n" + textwrap.dedent(PRINTER)
    outcome = run(greedy, limits=Limits(memory=150 << 20)).wait(20)
    assert outcome is not None and outcome.code == "out_of_memory"


def test_steps_that_were_reached_count_while_it_is_held(run: Make) -> None:
    outcome = run(PRINTER, limits=Limits(max_steps=900), room=Room(backlog=MIB // 4)).wait(20)
    assert outcome is not None and (outcome.state, outcome.code) == ("COMPLETED", "max_steps")


def test_a_held_worker_that_is_killed(run: Make) -> None:
    supervised = run(FAMILY)
    held(supervised)
    os.kill(int(supervised.worker_pid or 0), signal.SIGKILL)
    outcome = supervised.wait(20)
    assert outcome is not None and (outcome.code, outcome.signal) == ("signal", "SIGKILL")


def test_the_owner_may_go_while_it_is_held(run: Make) -> None:
    supervised = run(FAMILY)
    held(supervised)
    supervised.close()
    assert not processes_of(RUN)


def test_a_full_disk_holds_it(run: Make, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        room = Room(disk_reserve=24 * MIB)
        ballast = disk / "ballast"
        supervised = run(COUNTED.replace("range(400)", "range(100000)"), folder=disk, room=room)
        wait_for(lambda: log_of(supervised).exists() and log_of(supervised).stat().st_size, 20)
        ballast.write_bytes(bytes(45 * MIB))
        held(supervised)
        why = str(supervised.status().stands_still)
        assert str(disk) in why and "telemetry.disk_reserve is 24MiB" in why
        assert prints_nothing(supervised, 1.2)
        size = log_of(supervised).stat().st_size
        ballast.unlink()
        wait_for(lambda: log_of(supervised).stat().st_size > size, 10, "it to go on")
        supervised.stop("cancelled", "enough")
        outcome = supervised.wait(20)
        assert outcome is not None and outcome.held > 1.0
        supervised.close()


def test_a_printer_never_fills_the_disk(run: Make, tmp_path: Path) -> None:
    """It is held before there is no room for its outcome."""
    with small_disk(tmp_path / "disk", 512 * MIB) as disk:
        supervised = run(PRINTER, folder=disk, room=Room(disk_reserve=400 * MIB))
        held(supervised)
        assert os.statvfs(disk).f_bavail > 0
        supervised.stop("cancelled", "enough")
        outcome = supervised.wait(20)
        assert outcome is not None and outcome.state == "CANCELLED"
        supervised.close()


def test_of_a_long_log_the_middle_is_let_go(run: Make) -> None:
    code = """
        import os, sys, time
        for number in range(20_000):
            os.write(1, b'{"event":"heartbeat","payload":{"step":%d,"x":"%s"}}\\n' % (number, b"y" * 900))
            if number % 10 == 0:
                os.write(1, b"chatter\\n\\n")
            os.write(2, b"z" * 999 + b"\\r")
            if number % 20 == 0:
                time.sleep(0.01)
    """
    supervised = run(code, room=Room(keep_log=2 * MIB))
    log, errors = log_of(supervised), log_of(supervised).with_name("stderr.log")
    most = 0
    while supervised.wait(0.05) is None:
        most = max(most, log.stat().st_blocks * 512, errors.stat().st_blocks * 512)
        catch_up(supervised)
    assert most < 10 * MIB, "what it keeps, and what is printed between two looks"
    assert log.stat().st_size > 18 * MIB
    gap = read_released(log)
    assert gap is not None
    data = log.read_bytes()
    assert gap.first >= MIB and data[gap.first - 1 : gap.first] == b"\n" and data[gap.upto - 1] == 0
    assert data[gap.first : gap.upto].count(0) == gap.size
    # Each tenth line is followed by chatter: what is gone is what is not left.
    before, after = data[: gap.first].count(b"chatter"), data[gap.upto :].count(b"chatter")
    assert gap.log_lines == 2000 - before - after
    gone = read_released(errors)
    assert gone is not None and gone.size > 14 * MIB
    told = [json.loads(line) for line in data[gap.upto :].splitlines() if b"log_released" in line]
    assert [line["payload"] for line in told] == [
        {"bytes": gap.size, "log_lines": gap.log_lines, "stderr_bytes": gone.size, "stderr_lines": gone.log_lines}
    ]
    assert told[0]["source"] == "supervisor"


def test_what_is_not_committed_stays(run: Make) -> None:
    supervised = run(PRINTER, room=Room(keep_log=MIB, backlog=8 * MIB))
    held(supervised)
    assert read_released(log_of(supervised)) is None
    assert b"\0" not in log_of(supervised).read_bytes()
    supervised.committed(3 * MIB)
    wait_for(lambda: read_released(log_of(supervised)), 10)
    wait_for(lambda: supervised.status().released, 10)
    gap = read_released(log_of(supervised))
    assert gap is not None and gap.upto <= 3 * MIB
    assert b"\0" not in log_of(supervised).read_bytes()[3 * MIB :]


def test_holds_in_any_order() -> None:
    """It runs exactly while there is no reason not to."""
    draw = random.Random(3)
    now = 0.0
    holds, mine, stopped, slowed = Holds(clock=lambda: now), set[str](), False, 0.0
    for _ in range(2000):
        what = draw.choice([PAUSE, BACKLOG, DISK])
        if draw.random() < 0.5:
            stopped |= holds.add(what, what)
            mine.add(what)
        else:
            stopped = stopped and not holds.remove(what)
            mine.discard(what)
        assert (stopped, bool(holds)) == (bool(mine), bool(mine))
        now += 1
        slowed += bool(mine - {PAUSE}) and PAUSE not in mine
        assert holds.seconds == slowed


def test_what_waits_must_come_down_to_half(tmp_path: Path) -> None:
    want = Want(tmp_path, Room(backlog=1000))
    assert want.backlog(1000, held=False) is None
    assert want.backlog(1001, held=False) == "stands still: 1001B of telemetry wait for storage"
    assert want.backlog(501, held=True) is not None
    want.committed = 1
    assert want.backlog(501, held=True) is None
    assert Want(tmp_path, Room()).backlog(1 << 60, held=False) is None
    assert Want(tmp_path, Room()).disk(held=False) is None
