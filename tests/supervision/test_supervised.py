"""Real worker processes under a real supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import processes_of, wait_for
from ulid import ULID

from mosaic_cluster.supervision import (
    Limits,
    Order,
    Outcome,
    Supervised,
    close_lost,
    read_outcome,
    seal,
    start,
    sweep,
)
from mosaic_cluster.worker.errors import SupervisionError

RUN = str(ULID())  # each process of the test suite has its own: processes are found by it
Make = Callable[..., Supervised]


def order(folder: Path, code: str, attempt: int = 1, **more: Any) -> Order:
    environment = {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": RUN, "MOSAIC_ATTEMPT": str(attempt)}
    settings: dict[str, Any] = {
        "run_id": RUN,
        "attempt": attempt,
        "command": (sys.executable, "-u", "-c", textwrap.dedent(code)),
        "cwd": str(folder),
        "environment": environment,
        "attempt_dir": str(folder / "attempts" / str(attempt)),
        "grace": 5.0,
    }
    return Order(**{**settings, **more})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Make]:
    """Starts code as a worker."""
    made: list[Supervised] = []

    def begin(code: str, **more: Any) -> Supervised:
        made.append(start(order(tmp_path, code, **more)))
        return made[-1]

    yield begin
    for each in made:
        each.close()
    wait_for(lambda: not processes_of(RUN), 10, "every process to end")


def ended(supervised: Supervised, seconds: float = 30) -> Outcome:
    outcome = supervised.wait(seconds)
    assert outcome is not None, "it goes on"
    return outcome


def lines(folder: Path, attempt: int = 1) -> list[str]:
    return (folder / "attempts" / str(attempt) / "stdout.log").read_text().splitlines()


def events(folder: Path) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in lines(folder) if line.startswith("{")]
    return [(line["event"], line.get("source", "worker")) for line in found]


def test_completes(run: Make, tmp_path: Path) -> None:
    outcome = ended(run("print('hello'); import sys; print('warned', file=sys.stderr)"))
    assert (outcome.state, outcome.code, outcome.exit_code) == ("COMPLETED", "completed", 0)
    assert outcome.stderr_tail == ["warned"]
    assert outcome.peak_rss > 1 << 20
    assert outcome.cpu_seconds > 0
    assert lines(tmp_path)[0] == "hello"
    assert events(tmp_path) == [("run_started", "supervisor"), ("run_completed", "supervisor")]
    assert read_outcome(tmp_path / "attempts" / "1") == outcome


def test_only_what_is_missing_is_added(run: Make, tmp_path: Path) -> None:
    ended(run("""print('{"event":"run_started","payload":{}}')"""))
    assert events(tmp_path) == [("run_started", "worker"), ("run_completed", "supervisor")]


@pytest.mark.parametrize(
    ("code", "expected", "retryable"),
    [
        ("raise SystemExit(3)", ("exit_code", "the worker exited with code 3"), True),
        ("raise ValueError('bad luck')", ("exit_code", "code 1; it said: ValueError: bad luck"), True),
        ("import sys; sys.exit('no such thing')", ("exit_code", "it said: no such thing"), True),
        ("import sys; print('lr: not > 0', file=sys.stderr); sys.exit(2)", ("bad_config", "lr: not > 0"), False),
        ("import os; os.kill(os.getpid(), 11)", ("signal", "SIGSEGV"), True),
        ("x = [0] * (1 << 62)", ("out_of_memory", "MemoryError"), False),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
            ("out_of_memory", "resources.gpu_memory"),
            False,
        ),
        (
            """print('{"event":"run_failed","payload":{"error":"diverged"}}')""",
            ("exit_code", "reported run_failed, then exited with code 0; it said: diverged"),
            True,
        ),
    ],
)
def test_reasons_of_failures(run: Make, code: str, expected: tuple[str, str], retryable: bool) -> None:
    outcome = ended(run(code))
    assert outcome.state == "FAILED"
    assert outcome.code == expected[0]
    assert expected[1] in outcome.message
    assert outcome.retryable is retryable


def test_a_command_that_does_not_exist(run: Make) -> None:
    outcome = ended(run("", command=("/no/such/program",)))
    assert (outcome.state, outcome.code) == ("FAILED", "start_failed")
    assert "/no/such/program" in outcome.message


def test_a_folder_that_does_not_exist(run: Make, tmp_path: Path) -> None:
    outcome = ended(run("pass", cwd=str(tmp_path / "gone")))
    assert outcome.code == "start_failed"
    assert "gone" in outcome.message


SLEEPER = "import time; print('up'); time.sleep(1000)"
FAMILY = """
    import os, subprocess, signal, time
    for number in range(4):
        subprocess.Popen(["sleep", "1000"], start_new_session=number % 2 == 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('up')
    time.sleep(1000)
"""


def is_up(folder: Path, attempt: int = 1) -> None:
    log = folder / "attempts" / str(attempt) / "stdout.log"
    wait_for(lambda: log.exists() and "up" in log.read_text(), 20)


def test_stop_asks_first(run: Make, tmp_path: Path) -> None:
    supervised = run(
        """
        import signal, sys, time
        def bye(*_):
            print('saved')
            sys.exit(143)
        signal.signal(signal.SIGTERM, bye)
        print('up')
        time.sleep(1000)
        """
    )
    is_up(tmp_path)
    supervised.stop("cancelled", "stopped by a test")
    outcome = ended(supervised)
    assert (outcome.state, outcome.code, outcome.message) == ("CANCELLED", "cancelled", "stopped by a test")
    assert outcome.exit_code == 143
    assert "saved" in lines(tmp_path)


def test_stop_then_kills_everything(run: Make, tmp_path: Path) -> None:
    supervised = run(FAMILY, grace=0.5)
    is_up(tmp_path)
    assert len(processes_of(RUN)) >= 6
    supervised.stop("cancelled", "stopped")
    outcome = ended(supervised)
    assert (outcome.state, outcome.signal) == ("CANCELLED", "SIGKILL")
    assert not [each for each in processes_of(RUN) if each.pid != supervised.pid]


def test_the_first_reason_stands(run: Make, tmp_path: Path) -> None:
    supervised = run(FAMILY, grace=1.0)
    is_up(tmp_path)
    supervised.stop("paused", "paused by one")
    supervised.stop("cancelled", "stopped by another")
    assert ended(supervised).state == "PAUSED"


def test_children_do_not_outlive_the_worker(run: Make) -> None:
    outcome = ended(run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"))
    assert outcome.state == "COMPLETED"
    wait_for(lambda: not processes_of(RUN), 5)


def test_pause_freezes_all_and_its_clock(run: Make, tmp_path: Path) -> None:
    supervised = run(
        """
        import time
        for number in range(30):
            print('up', number)
            time.sleep(0.05)
        """,
        limits=Limits(max_duration=6.0, no_heartbeat=6.0),
    )
    is_up(tmp_path)
    supervised.pause()
    wait_for(lambda: supervised.status().state == "PAUSED", 10)
    worker = psutil.Process(supervised.worker_pid)
    wait_for(lambda: worker.status() == psutil.STATUS_STOPPED, 5)
    before = lines(tmp_path)
    time.sleep(1.5)
    assert lines(tmp_path) == before
    supervised.unpause()
    outcome = ended(supervised)
    assert outcome.state == "COMPLETED"
    assert outcome.duration < outcome.ended_at - outcome.started_at - 1.4


def test_a_paused_worker_can_be_stopped(run: Make, tmp_path: Path) -> None:
    supervised = run(SLEEPER)
    is_up(tmp_path)
    supervised.pause()
    wait_for(lambda: supervised.status().state == "PAUSED", 10)
    supervised.stop("cancelled", "stopped")
    assert ended(supervised).signal == "SIGTERM"


BEATS = """
    import time
    for step in range(10, 100000, 10):
        print('{"event":"heartbeat","payload":{"step":%d}}' % step)
        time.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("code", "limits", "state", "reason", "retryable"),
    [
        (SLEEPER, Limits(max_duration=1.0), "FAILED", "max_duration", False),
        (SLEEPER, Limits(no_heartbeat=1.0), "FAILED", "no_heartbeat", True),
        (BEATS, Limits(max_steps=200), "COMPLETED", "max_steps", False),
        ("while True: print('x' * 1000)", Limits(max_log=500_000), "FAILED", "max_log", False),
        (
            "import time; held = bytearray(300 << 20); print('up'); time.sleep(1000)",
            Limits(memory=150 << 20),
            "FAILED",
            "out_of_memory",
            False,
        ),
    ],
    ids=["duration", "heartbeat", "steps", "log", "memory"],
)
def test_limits(run: Make, code: str, limits: Limits, state: str, reason: str, retryable: bool) -> None:
    outcome = ended(run(code, limits=limits))
    assert (outcome.state, outcome.code, outcome.retryable) == (state, reason, retryable)
    assert "limits." in outcome.message or "resources.memory" in outcome.message


def test_heartbeats_keep_it_alive(run: Make) -> None:
    supervised = run(BEATS, limits=Limits(no_heartbeat=1.0, max_steps=1200))
    assert ended(supervised).code == "max_steps"


def test_earlier_attempts_count(run: Make) -> None:
    supervised = run(SLEEPER, limits=Limits(max_duration=100.0), elapsed_before=99.5)
    assert ended(supervised, 10).code == "max_duration"


def test_half_a_line_is_ended(run: Make, tmp_path: Path) -> None:
    ended(run("import os; os.write(1, b'{\"event\": \"heart')"))
    assert lines(tmp_path)[0] == '{"event": "heart'
    assert lines(tmp_path)[-1].endswith("}")


def test_secrets_are_not_written(run: Make, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": RUN, "MOSAIC_ATTEMPT": "1", "TOKEN": "s3cret"}
    ended(run("import os; assert len(os.environ['TOKEN']) == 6", environment=environment))
    folder = tmp_path / "attempts" / "1"
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "TOKEN" in json.loads((folder / "launch.json").read_text())["environment"]
    assert "s3cret" not in written


def test_kill_the_supervisor(run: Make, tmp_path: Path) -> None:
    supervised = run(FAMILY)
    is_up(tmp_path)
    assert supervised.pid is not None
    os.kill(supervised.pid, signal.SIGKILL)
    outcome = ended(supervised)
    assert (outcome.state, outcome.code, outcome.retryable) == ("FAILED", "supervisor_lost", True)
    assert not processes_of(RUN)
    assert events(tmp_path)[-1] == ("run_failed", "supervisor")


def test_a_supervisor_told_to_go(run: Make, tmp_path: Path) -> None:
    supervised = run(SLEEPER)
    is_up(tmp_path)
    assert supervised.pid is not None
    os.kill(supervised.pid, signal.SIGTERM)
    assert ended(supervised).code == "node_lost"


OWNER = """
import os, sys, time
from mosaic_cluster.supervision import Order, start
import json
supervised = start(Order.from_dict(json.loads(sys.argv[1])))
time.sleep(1000)
"""


def test_kill_the_owner(tmp_path: Path) -> None:
    what = json.dumps(order(tmp_path, FAMILY).to_dict())
    owner = subprocess.Popen([sys.executable, "-c", OWNER, what])
    is_up(tmp_path)
    owner.kill()
    owner.wait()
    outcome = wait_for(lambda: read_outcome(tmp_path / "attempts" / "1"), 10)
    assert (outcome.code, outcome.retryable) == ("actor_lost", True)
    wait_for(lambda: not processes_of(RUN), 5)


def test_kill_the_owner_while_paused(tmp_path: Path) -> None:
    code = OWNER.replace("time.sleep(1000)", "time.sleep(1); supervised.pause(); time.sleep(1000)")
    owner = subprocess.Popen([sys.executable, "-c", code, json.dumps(order(tmp_path, FAMILY).to_dict())])
    is_up(tmp_path)
    time.sleep(2)
    owner.kill()
    owner.wait()
    wait_for(lambda: not processes_of(RUN), 10)
    assert read_outcome(tmp_path / "attempts" / "1") is not None


def test_closing_lets_nothing_live(tmp_path: Path) -> None:
    supervised = start(order(tmp_path, FAMILY))
    is_up(tmp_path)
    supervised.close()
    assert not processes_of(RUN)
    assert ended(supervised).code == "actor_lost"


def test_an_ended_attempt_is_not_started_again(run: Make, tmp_path: Path) -> None:
    ended(run("pass"))
    with pytest.raises(SupervisionError, match="an attempt of its own"):
        start(order(tmp_path, "pass"))


def test_sealing_again_changes_nothing(run: Make, tmp_path: Path) -> None:
    first = ended(run("print('x')"))
    before = lines(tmp_path)
    assert seal(tmp_path / "attempts" / "1", RUN, Outcome("FAILED", "actor_lost", "late")) == first
    assert close_lost(tmp_path / "attempts" / "1", RUN, 1, "actor_lost", "late") == first
    assert lines(tmp_path) == before


def test_closing_what_never_began(tmp_path: Path) -> None:
    outcome = close_lost(tmp_path / "attempts" / "1", RUN, 1, "node_lost", "its node is gone")
    assert (outcome.state, outcome.message) == ("FAILED", "its node is gone")
    assert events(tmp_path) == [("run_started", "supervisor"), ("run_failed", "supervisor")]


def test_sweep_takes_only_its_own(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": RUN, "MOSAIC_ATTEMPT": "1"}
    mine = subprocess.Popen(["sleep", "1000"], env=environment)
    other = subprocess.Popen(["sleep", "1000"], env={**environment, "MOSAIC_ATTEMPT": "2"})
    third = subprocess.Popen(["sleep", "1000"], env={**environment, "MOSAIC_RUN_ID": str(ULID())})
    try:
        assert sweep(RUN, 1) == [mine.pid]
        assert other.poll() is None
        assert sweep(RUN) == [other.pid]
        assert third.poll() is None
    finally:
        for each in (mine, other, third):
            each.kill()
            each.wait()
