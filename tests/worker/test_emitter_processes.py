"""The emitter on a real stdout: threads, forks, signals, readers that go away, disks that are full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MANY = """
    import os, sys, threading
    from mosaic_cluster.worker import TelemetryEmitter

    emitters = [TelemetryEmitter("run"), TelemetryEmitter("run", sink=sys.stdout)]

    def talk(me):
        for number in range(200):
            emitters[number % 2].heartbeat({"me": me, "number": number, "filler": "x" * (number * 40)})

    def all_at_once(base):
        threads = [threading.Thread(target=talk, args=(base + me,)) for me in range(4)]
        for thread in threads: thread.start()
        return threads
"""


def counted(lines: list[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for line in lines:
        payload = json.loads(line)["payload"]
        assert payload["filler"] == "x" * (payload["number"] * 40)
        found.setdefault(payload["me"], []).append(payload["number"])
    return found


def test_lines_of_threads_never_interleave(sandbox: Any) -> None:
    """Through a pipe, where a long line takes several writes."""
    done = sandbox.code(MANY + "\n    for thread in all_at_once(0): thread.join()\n")
    assert done.returncode == 0, done.stderr
    assert counted(done.stdout.splitlines()) == {me: list(range(200)) for me in range(4)}


def test_forks_in_the_middle_of_writing(sandbox: Any) -> None:
    """A child forked while another thread holds the lock must not wait for it for ever."""
    code = """
    threads = all_at_once(0)
    children = []
    for child in range(8):
        pid = os.fork()
        if pid == 0:
            emitters[0].heartbeat({"me": 100 + child, "number": 0, "filler": ""})
            os._exit(0)
        children.append(pid)
    for thread in threads: thread.join()
    sys.exit(max(os.waitpid(pid, 0)[1] for pid in children))
    """
    path = sandbox.folder / "stdout.log"
    env = {**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    with open(path, "ab") as log:
        script = sandbox.folder / "script.py"
        script.write_text(_joined(MANY, code))
        done = subprocess.run([sys.executable, str(script)], stdout=log, env=env, timeout=60, check=False)
    assert done.returncode == 0
    expected = {**{me: list(range(200)) for me in range(4)}, **{100 + child: [0] for child in range(8)}}
    assert counted(path.read_text().splitlines()) == expected


def _joined(*parts: str) -> str:
    import textwrap

    return "".join(textwrap.dedent(part) for part in parts)


def test_a_signal_handler_may_emit(sandbox: Any) -> None:
    done = sandbox.code("""
    import signal
    from mosaic_cluster.worker import TelemetryEmitter
    emitter = TelemetryEmitter("run")
    beats = 0
    def beat(*_):
        global beats
        beats += 1
        emitter.heartbeat({"from": "handler"})
    signal.signal(signal.SIGALRM, beat)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while beats < 100:
        emitter.heartbeat({"from": "main", "odd": {1, 2}})
    signal.setitimer(signal.ITIMER_REAL, 0)
    """)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(line["payload"]["from"] == "handler" for line in lines) >= 100


def test_printed_text_stands_in_order(sandbox: Any) -> None:
    done = sandbox.code("""
    from mosaic_cluster.worker import TelemetryEmitter
    emitter = TelemetryEmitter("run")
    print("one"); emitter.heartbeat(); print("two"); emitter.heartbeat(); print("three")
    """)
    assert [line[:7] for line in done.stdout.splitlines()] == ["one", '{"event', "two", '{"event', "three"]


@pytest.mark.parametrize(
    "how",
    [
        "os.close(1)",
        "sys.stdout.close()",
        "sys.stdout = None",
        "reader, writer = os.pipe(); os.dup2(writer, 1); os.close(writer); os.close(reader)",
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
        "os.dup2(os.open('/dev/null', os.O_RDONLY), 1)",
    ],
    ids=["closed descriptor", "closed stream", "no stream", "reader gone", "disk full", "read only"],
)
def test_a_broken_stdout_does_not_stop_the_worker(sandbox: Any, how: str) -> None:
    done = sandbox.code(f"""
    import os, sys
    from mosaic_cluster.worker import TelemetryEmitter
    emitter = TelemetryEmitter("run")
    {how}
    for number in range(3):
        emitter.heartbeat({{"number": number}})
        emitter.step(reward=1)
    sys.stderr.write("went on")
    """)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("telemetry cannot be written") == 1
    assert done.stderr.endswith("went on")


def test_a_broken_stderr_too(sandbox: Any) -> None:
    done = sandbox.code("""
    import os, sys
    from mosaic_cluster.worker import TelemetryEmitter
    os.close(1); os.close(2)
    sys.stderr = None
    TelemetryEmitter("run").heartbeat()
    os._exit(7)
    """)
    assert done.returncode == 7


def test_after_half_a_line_the_next_begins_on_a_new_one(sandbox: Any) -> None:
    """The file may not grow beyond a limit for a while: the line that hits it is torn, the next ones are whole."""
    path = sandbox.folder / "log"
    done = sandbox.code(
        """
    import os, resource, signal, sys
    from mosaic_cluster.worker import TelemetryEmitter
    os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    emitter = TelemetryEmitter("run")
    emitter.heartbeat({"number": 0})
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.fstat(1).st_size + 10, hard))
    emitter.heartbeat({"number": 1})
    emitter.heartbeat({"number": 2})
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    emitter.heartbeat({"number": 3})
    emitter.heartbeat({"number": 4})
    """,
        str(path),
    )
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event":"'
    assert [json.loads(line)["payload"]["number"] for line in (lines[0], *lines[2:])] == [0, 3, 4]


def test_a_pipe_that_does_not_block(sandbox: Any) -> None:
    """Lines wait for a slow reader of a non-blocking pipe, and stay whole."""
    script = sandbox.folder / "script.py"
    script.write_text(_joined(MANY, "\nos.set_blocking(1, False)\ntalk(0)\n"))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert counted(lines) == {0: list(range(1, 200))}


def test_the_benchmark_runs(sandbox: Any) -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "bench_emitter.py"
    done = sandbox.python(str(script), "--json", "--calls", "200", "--repeats", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["ratio_min"] <= found["ratio"] <= found["ratio_max"]


def test_without_a_sink_it_writes_where_stdout_was_claimed(sandbox: Any, strict: Any) -> None:
    done = sandbox.code("""
        from mosaic_cluster.worker import TelemetryEmitter
        from mosaic_cluster.worker.program import claim_stdout

        emitter = TelemetryEmitter("run")
        lingering = TelemetryEmitter("run", linger=0.05)
        claim_stdout()
        print("what a library prints")
        emitter.heartbeat({"step": 1})
        emitter.step(step=2)
        lingering.heartbeat({"step": 3})
    """)
    assert [strict(line).get("event", "step") for line in done.stdout.split()] == ["heartbeat", "step", "heartbeat"]
    assert done.stderr == "what a library prints\n"
