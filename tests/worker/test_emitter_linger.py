"""Lines that wait a moment: their order, what they say, and what is lost when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

# Stdout is a file, as under a supervisor. Nothing is written for a third of `linger` after a write.
START = """
    import json, os, signal, sys, threading, time
    from mosaic_cluster.worker import TelemetryEmitter
    from mosaic_cluster.worker._lines import MOST_LINES, queue
    path = sys.argv[1]
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)

    def written():
        with open(path) as log:
            return [json.loads(line) for line in log.read().splitlines() if line.strip()]

    def until(true):
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end
            time.sleep(0.005)
"""


def script(sandbox: Any, code: str) -> tuple[Path, Path]:
    """Paths of a script and of what it will have printed."""
    path = sandbox.folder / "script.py"
    path.write_text(textwrap.dedent(START) + textwrap.dedent(code))
    return path, sandbox.folder / "stdout.log"


def ran(sandbox: Any, code: str, *flags: str, returncode: int = 0) -> list[dict[str, Any]]:
    path, log = script(sandbox, code)
    done = sandbox.python(*flags, str(path), str(log))
    assert done.returncode == returncode, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines() if line.strip()]


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [line["payload"]["number"] for line in lines]


def test_lines_wait_and_lifecycle_comes_after_them_at_once(sandbox: Any) -> None:
    lines = ran(
        sandbox,
        """
        emitter, other = TelemetryEmitter("run", linger=10), TelemetryEmitter("run")
        before = time.time()
        for number in range(20): emitter.heartbeat({"number": number})
        after = time.time()
        assert [line["payload"]["number"] for line in written()] == [0]  # nothing came before the first
        emitter.checkpoint_saved({"number": 20})
        assert len(written()) == 21
        for number in range(21, 30): emitter.heartbeat({"number": number})
        other.heartbeat({"number": 30})  # one that does not linger keeps the order, too
        assert len(written()) == 31
        assert all(before - 0.001 <= line["timestamp"] <= after for line in written()[:20])
        emitter.step(number=31, reward=1.0)
        emitter.step(number=32, observation=[1, 2])
        emitter.episode(number=33, total_reward=2)
        assert len(written()) == 31
        emitter.flush()
        assert len(written()) == 34
        """,
    )
    assert numbers(lines[:31]) == list(range(31))
    assert [line["event"] for line in lines[18:22]] == ["heartbeat", "heartbeat", "checkpoint_saved", "heartbeat"]
    assert [(line["type"], line["number"]) for line in lines[31:]] == [("step", 31), ("step", 32), ("episode", 33)]
    assert lines[32]["observation"] == [1, 2]
    assert all(line["run_id"] == "run" and line["timestamp"] > 1e9 for line in lines)


def test_a_payload_is_as_it_was_when_it_was_given(sandbox: Any) -> None:
    lines = ran(
        sandbox,
        """
        class Tensor:
            value = 1
            def tolist(self): return self.value

        emitter = TelemetryEmitter("run", linger=10)
        emitter.heartbeat()
        plain, nested, tensor = {"a": 1, "b": float("nan")}, {"a": [1], "s": "text"}, Tensor()
        emitter.heartbeat(plain); emitter.heartbeat(nested); emitter.heartbeat({"a": tensor})
        emitter.heartbeat({"a": 1}, constant="LOG_1")
        fields = {"observation": [1]}
        emitter.step(**fields)
        plain["a"] = plain["c"] = 2
        nested["a"].append(2)
        tensor.value = 2
        fields["observation"].append(2)
        assert len(written()) == 1
        """,
    )
    given = [{"a": 1, "b": "NaN"}, {"a": [1], "s": "text"}, {"a": 1}, {"a": 1}]
    assert [line["payload"] for line in lines[1:5]] == given
    assert lines[4]["constant"] == "LOG_1"
    assert lines[5]["observation"] == [1]


@pytest.mark.parametrize(
    "end", ["", "sys.exit(0)", "raise ValueError('on purpose')", "raise KeyboardInterrupt"], ids=str
)
def test_what_waits_is_written_at_the_end(sandbox: Any, end: str) -> None:
    code = """
    import atexit
    atexit.register(lambda: emitter.heartbeat({"number": 50}))  # is called after the emitter's own
    emitter = TelemetryEmitter("run", linger=10)
    for number in range(50): emitter.heartbeat({"number": number})
    """
    path, log = script(sandbox, code)
    path.write_text(path.read_text() + end)
    sandbox.python(str(path), str(log))
    assert numbers([json.loads(line) for line in log.read_text().splitlines()]) == list(range(51))


def test_what_waits_is_written_though_nobody_calls_any_more(sandbox: Any) -> None:
    """Again and again: the thread that does it must not sleep through a line."""
    lines = ran(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=0.02)
        for burst in range(20):
            for number in range(burst * 5, burst * 5 + 5): emitter.heartbeat({"number": number})
            until(lambda: len(written()) == burst * 5 + 5)
        os._exit(0)
        """,
    )
    assert numbers(lines) == list(range(100))


def test_in_the_middle_of_a_print(sandbox: Any) -> None:
    """Under -u each piece of a print is a write."""
    path, log = script(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=0.02)
        emitter.heartbeat({"number": 0}); emitter.heartbeat({"number": 1})
        print("half a line", end="")
        until(lambda: not queue.waits())
        print(", and the rest")
        """,
    )
    assert sandbox.python("-u", str(path), str(log)).returncode == 0
    lines = [line for line in log.read_text().splitlines() if line]
    assert numbers([json.loads(line) for line in lines if line.startswith("{")]) == [0, 1]
    assert "".join(line for line in lines if not line.startswith("{")) == "half a line, and the rest"


def test_a_forked_child_leaves_its_parents_lines_alone(sandbox: Any) -> None:
    lines = ran(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=10)
        for number in range(10): emitter.heartbeat({"number": number})
        if os.fork() == 0:
            emitter.heartbeat({"number": 100})
            emitter.heartbeat({"number": 101})
            os._exit(0)  # as the children of multiprocessing do: no exit handlers
        assert os.wait()[1] == 0
        emitter.heartbeat({"number": 10})
        """,
    )
    assert numbers(lines) == [0, 100, 101, *range(1, 11)]


def test_no_more_than_so_many_wait(sandbox: Any) -> None:
    lines = ran(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=10)
        for number in range(5000):
            emitter.heartbeat({"number": number})
            assert len(queue._lines) < MOST_LINES
        assert len(written()) > MOST_LINES
        emitter.heartbeat({"number": 5000, "text": "x" * 100_000})  # nor long ones
        assert len(written()) == 5001
        """,
    )
    assert numbers(lines) == list(range(5001))


def test_threads(sandbox: Any) -> None:
    """Each thread's lines are in its order, all are there once, with and without text in the payload."""
    lines = ran(
        sandbox,
        """
        emitters = [TelemetryEmitter("run", linger=0.005), TelemetryEmitter("run", linger=0.01, sink=sys.stdout)]
        def talk(me):
            for number in range(2000):
                payload = {"me": me, "number": number}
                if number % 7 == 0: payload["filler"] = "x" * number
                if number % 100 == 99: emitters[0].checkpoint_saved(payload)
                else: emitters[number % 2].heartbeat(payload)
                if number % 500 == 0: time.sleep(0.02)
        threads = [threading.Thread(target=talk, args=(me,)) for me in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
    )
    found: dict[int, list[int]] = {}
    for line in lines:
        found.setdefault(line["payload"]["me"], []).append(line["payload"]["number"])
    assert found == {me: list(range(2000)) for me in range(4)}


def test_a_signal_handler_may_emit(sandbox: Any) -> None:
    """It may interrupt the writing of what waits: nothing comes twice, and nothing gets lost."""
    lines = ran(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=0.003)
        beats, inside = 0, False
        def beat(*_):
            global beats, inside
            if inside: return
            inside = True
            (emitter.run_started if beats % 2 else emitter.heartbeat)({"beat": beats})
            beats += 1
            inside = False
        signal.signal(signal.SIGALRM, beat)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
        number = 0
        while beats < 1000:
            emitter.heartbeat({"number": number})
            number += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        emitter.run_completed({"number": number, "beat": beats})
        """,
    )
    mine = [line["payload"]["number"] for line in lines if "number" in line["payload"]]
    beats = [line["payload"]["beat"] for line in lines if "beat" in line["payload"]]
    assert mine == list(range(len(mine)))
    assert sorted(beats) == list(range(len(beats)))  # one may overtake what it interrupted
    assert len(mine) + len(beats) == lines[-1]["payload"]["number"] + lines[-1]["payload"]["beat"] + 2
    assert lines[-1]["event"] == "run_completed"


def test_a_handler_that_ends_the_process(sandbox: Any) -> None:
    """SIGTERM, as workers handle it: they say that they are cancelled, and exit."""
    path, log = script(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=10)
        def stop(*_):
            emitter.run_cancelled({"emitted": number})
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        number = 0
        while True:
            emitter.heartbeat({"number": number})
            number += 1
        """,
    )
    process = subprocess.Popen([sys.executable, str(path), str(log)], env=_environment())
    _wait_for(log, 1000, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = lines.pop()
    assert last["event"] == "run_cancelled"
    assert len(lines) - last["payload"]["emitted"] in (0, 1)  # 1: before the loop had counted it
    assert numbers(lines) == list(range(len(lines)))


def test_a_handler_that_ends_the_process_while_lines_are_written(sandbox: Any) -> None:
    """The signal comes between two pieces of what waited: the others are written before the handler's own line."""
    path, log = script(
        sandbox,
        """
        import atexit
        class Sink:
            def __init__(self):
                self.texts = []
            def write(self, text):
                self.texts.append(text)
                if len(self.texts) == 2:  # the first line does not wait
                    signal.raise_signal(signal.SIGTERM)
            def flush(self):
                pass
        sink = Sink()
        atexit.register(lambda: open(sys.argv[1], "w").write("".join(sink.texts)))
        emitter = TelemetryEmitter("run", sink=sink, linger=10)
        def stop(*_):
            emitter.run_cancelled({})
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        for number in range(200):
            emitter.heartbeat({"number": number})
        emitter.checkpoint_saved({"path": "x"})
        """,
    )
    done = subprocess.run([sys.executable, str(path), str(log)], env=_environment(), timeout=60, check=False)
    assert done.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines[200:]] == ["checkpoint_saved", "run_cancelled"]
    assert numbers(lines[:200]) == list(range(200))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM not handled"])
def test_a_kill_loses_nothing_but_what_waits(sandbox: Any, number: int) -> None:
    """A prefix is left, at least up to the last lifecycle line whose call returned."""
    path, log = script(
        sandbox,
        """
        emitter = TelemetryEmitter("run", linger=0.02)
        truth = os.open(path + ".truth", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        number = 0
        while True:
            if number % 500 == 499:
                emitter.checkpoint_saved({"number": number})
                os.write(truth, b"%d\\n" % number)
            else:
                emitter.heartbeat({"number": number})
            number += 1
        """,
    )
    process = subprocess.Popen([sys.executable, str(path), str(log)], env=_environment())
    _wait_for(log, 5000, process)
    process.send_signal(number)
    assert process.wait(30) == -number
    whole, _, half = log.read_text().rpartition("\n")
    found = numbers([json.loads(line) for line in whole.splitlines() if line])
    assert found == list(range(len(found)))
    assert half == "" or f'"number":{len(found)}'.startswith(half[30:]) or half.startswith('{"event":')
    truth = (sandbox.folder / "stdout.log.truth").read_text().splitlines()
    assert found[-1] >= int(truth[-1])


def test_the_variable(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    TelemetryEmitter("run").heartbeat({"number": 0})
    TelemetryEmitter("run").heartbeat({"number": 1})
    TelemetryEmitter("run", linger=0).heartbeat({"number": 2})
    sys.stderr.write("waited" if len(written()) < 3 else "at once")
    TelemetryEmitter("run").heartbeat({"number": 3})
    sys.stderr.write(", waited" if len(written()) < 4 else ", at once")
    """
    path, log = script(sandbox, code)
    said = {}
    for value in ("", "0", "10", "20", "-1", "nan", "soon"):
        monkeypatch.setenv("MOSAIC_TELEMETRY_LINGER", value)
        log.unlink(missing_ok=True)
        done = sandbox.python(str(path), str(log))
        assert done.returncode == 0, done.stderr
        assert numbers([json.loads(line) for line in log.read_text().splitlines()]) == [0, 1, 2, 3]
        said[value] = done.stderr
    assert said.pop("") == said.pop("0") == "at once, at once"
    assert said.pop("10") == "at once, waited"  # the one that does not linger wrote what waited
    for value, text in said.items():
        assert f"MOSAIC_TELEMETRY_LINGER is '{value}'; give seconds from 0 to 10" in text
        assert "waited" not in text


@pytest.mark.parametrize("given", [-1, 11, float("nan"), "soon", [], 10**400], ids=lambda given: str(given)[:8])
def test_a_wrong_linger_is_said_and_is_none(given: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from mosaic_cluster.worker import TelemetryEmitter

    TelemetryEmitter("run", linger=given).heartbeat({"number": 1})
    said = capsys.readouterr()
    assert json.loads(said.out)["payload"] == {"number": 1}
    assert "give seconds from 0 to 10" in said.err


@pytest.mark.parametrize(
    "how", ["os.close(1)", "sys.stdout = None", "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"], ids=str
)
def test_a_broken_stdout_does_not_stop_the_worker(sandbox: Any, how: str) -> None:
    done = sandbox.code(f"""
    import os, sys, time
    from mosaic_cluster.worker import TelemetryEmitter
    emitter = TelemetryEmitter("run", linger=0.01)
    {how}
    for number in range(100):
        emitter.heartbeat({{"number": number}})
        emitter.step(reward=1)
    time.sleep(0.05)
    emitter.flush()
    sys.stderr.write("went on")
    """)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("telemetry cannot be written") == 1
    assert done.stderr.endswith("went on")


def _environment() -> dict[str, str]:
    import mosaic_cluster

    return {**os.environ, "PYTHONPATH": str(Path(mosaic_cluster.__file__).parent.parent)}


def _wait_for(log: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        if time.monotonic() > end or process.poll() is not None:
            process.kill()
            raise AssertionError(f"not {lines} lines in {log}")
        time.sleep(0.005)
