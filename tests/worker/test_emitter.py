"""What the emitter writes, and that nothing makes it raise."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import io
import json
import logging
import pathlib
import threading
import time
from collections import OrderedDict, deque, namedtuple
from typing import Any

import numpy as np
import pytest

from mosaic_cluster.worker import LifecycleEvent, LifecycleEventType, TelemetryEmitter, _lines

EVENTS = [event.value for event in LifecycleEventType]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "_complained", False)


def emitted(payload: Any, strict: Any) -> Any:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat(payload)
    text = sink.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text.isascii()
    return strict(text)["payload"]


@pytest.mark.parametrize("event", EVENTS)
def test_one_method_per_event(event: str, strict: Any) -> None:
    sink = io.StringIO()
    before = time.time()
    getattr(TelemetryEmitter("run-1", sink=sink), event)({"b": 1, "a": [1.5, None, True, "é"]})
    line = sink.getvalue()
    assert line.startswith(f'{{"event":"{event}","payload":{{"a":[1.5,null,true,"\\u00e9"],"b":1}},"run_id":"run-1"')
    parsed = strict(line)
    assert list(parsed) == ["event", "payload", "run_id", "timestamp"]
    assert before - 0.001 <= parsed["timestamp"] <= time.time()


def test_payload_may_be_left_out(strict: Any) -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat()
    assert strict(sink.getvalue())["payload"] == {}


@pytest.mark.parametrize("constant", ["LOG_1", type("Constant", (), {"code": "LOG_1", "level": "INFO"})()])
def test_constant_adds_its_code(constant: Any, strict: Any) -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).run_started({"a": 1}, constant=constant)
    parsed = strict(sink.getvalue())
    assert list(parsed) == ["constant", "event", "payload", "run_id", "timestamp"]
    assert parsed["constant"] == "LOG_1"


def test_logger_gets_events_at_the_constants_level(caplog: pytest.LogCaptureFixture) -> None:
    constant = type("Constant", (), {"code": "LOG_1", "level": "WARNING"})()
    with caplog.at_level(logging.DEBUG):
        emitter = TelemetryEmitter("run", sink=io.StringIO(), logger=logging.getLogger("worker"))
        emitter.run_started({"a": 1})
        emitter.run_failed({}, constant=constant)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.WARNING]
    assert "run_started" in caplog.text


def test_run_failed_adds_the_traceback(strict: Any) -> None:
    sink = io.StringIO()
    emitter = TelemetryEmitter("run", sink=sink)
    given = {"error": "mine"}
    try:
        raise ValueError("boom")
    except ValueError as error:
        emitter.run_failed(given, exc_info=True)
        emitter.run_failed({}, exc_info=error)
        emitter.run_failed(None, exc_info=(ValueError, error, error.__traceback__))
    emitter.run_failed({"error": "mine"}, exc_info=True)  # nothing is being handled
    first, second, third, fourth = (strict(line)["payload"] for line in sink.getvalue().splitlines())
    assert given == {"error": "mine"}
    assert first["error"] == "mine"
    assert second["error"] == third["error"] == "boom"
    for payload in (first, second, third):
        assert payload["error_type"] == "ValueError"
        assert "test_emitter.py" in payload["traceback"]
    assert fourth == {"error": "mine"}


def test_run_failed_survives_an_exception_that_cannot_be_printed(strict: Any) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).run_failed({"a": 1}, exc_info=Silent())
    payload = strict(sink.getvalue())["payload"]
    assert payload["error_type"] == "Silent"
    assert payload["a"] == 1


def test_step_and_episode_lines(strict: Any) -> None:
    sink = io.StringIO()
    emitter = TelemetryEmitter("run", sink=sink)
    emitter.step(episode=1, step=2, action=np.int64(3), reward=float("nan"))
    emitter.episode(episode=1, total_reward=2.5, timestamp=5, metadata={"global_step": 7})
    step, episode = map(strict, sink.getvalue().splitlines())
    assert step.pop("timestamp") > 1e9
    assert step == {"type": "step", "run_id": "run", "episode": 1, "step": 2, "action": 3, "reward": "NaN"}
    assert episode["timestamp"] == 5
    assert list(episode) == sorted(episode)


def test_events_that_are_not_listed(strict: Any) -> None:
    sink = io.StringIO()
    emitter = TelemetryEmitter("run", sink=sink)
    emitter.emit("custom", {})
    emitter.emit(LifecycleEventType.RUN_CANCELLED, {})
    assert [strict(line)["event"] for line in sink.getvalue().splitlines()] == ["custom", "run_cancelled"]


def test_run_id_that_needs_escaping(strict: Any) -> None:
    sink = io.StringIO()
    emitter = TelemetryEmitter('a"\n', sink=sink)
    emitter.heartbeat()
    assert strict(sink.getvalue())["run_id"] == emitter.run_id == 'a"\n'
    assert TelemetryEmitter(7).run_id == "7"  # type: ignore[arg-type]


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: Any


Pair = namedtuple("Pair", "a b")


class Bad:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Worse(Bad):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class either")


class Tensor:
    """Quacks like a tensor."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


class OnlyItem:
    def item(self) -> float:
        return 2.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (-float("inf"), "-Infinity"),
        (np.float32(1.5), 1.5),
        (np.float64("nan"), "NaN"),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, np.nan, np.inf]), [1.0, "NaN", "Infinity"]),
        (np.array(7), 7),
        (np.array([{1, 2}], dtype=object), [[1, 2]]),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.str_("text"), "text"),
        (np.bytes_(b"raw"), "raw"),
        (np.complex64(1j), "1j"),
        (Tensor([1, 2.5]), [1, 2.5]),
        (Tensor(float("nan")), "NaN"),
        (OnlyItem(), 2.5),
        (Colour.RED, "red"),
        (Colour.PAIR, "PAIR"),
        (Level.LOW, 1),
        (LifecycleEventType.HEARTBEAT, "heartbeat"),
        (pathlib.Path("/a/b"), "/a/b"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", 1, None, "a"}), [1, "a", "b", None]),
        (b"text", "text"),
        (b"\xff\x00", "\\xff\x00"),
        (bytearray(b"x"), "x"),
        (memoryview(b"x"), "x"),
        (Point(1, {2}), {"x": 1, "y": [2]}),
        (Pair(1, 2), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (deque([1, 2]), [1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "one"}, {"1": "one"}),
        ({1: "a", "1": "b"}, {"1": "a", "1#2": "b"}),
        ({None: 1, True: 2, 2.5: 3, "x": 4}, {"null": 1, "true": 2, "2.5": 3, "x": 4}),
        ({(1, 2): 3}, {"[1,2]": 3}),
        ({Colour.RED: 1}, {"red": 1}),
        ({float("nan"): 1}, {"NaN": 1}),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(seconds=90), 90.0),
        (decimal.Decimal("1.25"), 1.25),
        (decimal.Decimal("NaN"), "NaN"),
        (1 + 2j, "(1+2j)"),
        (ValueError("boom"), "ValueError: boom"),
        (np.ndarray, "numpy.ndarray"),
        (Bad(), "<unprintable Bad>"),
        (Worse(), "<unprintable Worse>"),
        ("\ud800", "\ud800"),
        (2**200, 2**200),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_becomes_of_values(value: Any, expected: Any, strict: Any) -> None:
    # Beside a plain value, and within something that already needs care.
    assert emitted({"x": value}, strict) == {"x": expected}
    assert emitted({"x": [value], "y": {1}}, strict) == {"x": [expected], "y": [1]}


@pytest.mark.parametrize("payload", [5, "text", [1, 2], float("nan"), Bad(), b"x"])
def test_payload_that_is_no_object_is_wrapped(payload: Any, strict: Any) -> None:
    assert list(emitted(payload, strict)) == ["value"]


def test_payload_may_be_a_dataclass_or_another_mapping(strict: Any) -> None:
    assert emitted(Point(1, 2), strict) == {"x": 1, "y": 2}
    assert emitted(OrderedDict(b=1, a=2), strict) == {"a": 2, "b": 1}


def test_circles(strict: Any) -> None:
    circle: dict[str, Any] = {"a": [1]}
    circle["a"].append(circle)
    assert emitted(circle, strict) == {"a": [1, "<circular reference>"]}
    shared = [1]
    assert emitted({"a": shared, "b": shared}, strict) == {"a": [1], "b": [1]}


def test_nesting_without_end(strict: Any) -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert "<nested too deeply>" in json.dumps(emitted({"deep": deep}, strict))
    while isinstance(deep, list):  # freeing it recursively would be Python's problem, not ours
        deep = deep[0]


def test_integers_too_long_for_pythons_parser(strict: Any) -> None:
    assert emitted({"x": 10**5000}, strict) == {"x": hex(10**5000)}


def test_near_the_recursion_limit(strict: Any) -> None:
    sink = io.StringIO()
    emitter = TelemetryEmitter("run", sink=sink)

    def descend() -> None:
        try:
            descend()
        except RecursionError:
            emitter.heartbeat({"x": {1, 2}})
            raise

    with pytest.raises(RecursionError):
        descend()
    for line in sink.getvalue().splitlines():
        strict(line)


def test_a_dict_that_changes_while_it_is_written(strict: Any) -> None:
    changing: dict[Any, Any] = {"a": {1}}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            changing[number % 50] = number
            changing.pop((number + 25) % 50, None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        sink = io.StringIO()
        emitter = TelemetryEmitter("run", sink=sink)
        for _ in range(300):
            emitter.heartbeat(changing)
    finally:
        stop.set()
        thread.join()
    lines = sink.getvalue().splitlines()
    assert len(lines) == 300
    for line in lines:
        strict(line)


def test_stdout_is_looked_up_when_emitting(capsys: pytest.CaptureFixture[str], strict: Any) -> None:
    TelemetryEmitter("run").heartbeat({"a": 1})
    assert strict(capsys.readouterr().out)["payload"] == {"a": 1}


def test_binary_sink(tmp_path: pathlib.Path, strict: Any) -> None:
    with open(tmp_path / "log", "wb") as sink:
        TelemetryEmitter("run", sink=sink).heartbeat({"a": 1})
        assert strict((tmp_path / "log").read_text())["payload"] == {"a": 1}  # flushed


def test_text_sink_is_flushed(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "log", "w") as sink:
        TelemetryEmitter("run", sink=sink).heartbeat()
        assert (tmp_path / "log").read_text().endswith("}\n")


def test_a_sink_that_fails_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    sink = io.StringIO()
    sink.close()
    emitter = TelemetryEmitter("run", sink=sink)
    emitter.heartbeat()
    emitter.step(a=1)
    assert capsys.readouterr().err.count("telemetry cannot be written") == 1


def test_a_logger_that_raises_is_survived() -> None:
    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("no")

    logger = logging.Logger("raising", level=logging.DEBUG)
    logger.addHandler(Raising())
    TelemetryEmitter("run", sink=io.StringIO(), logger=logger).heartbeat()


def test_subclass_may_take_every_event() -> None:
    taken = []

    class Taking(TelemetryEmitter):
        def emit(self, event: Any, payload: Any = None, *, constant: Any = None) -> None:
            taken.append(event)

    emitter = Taking("run")
    for event in EVENTS:
        getattr(emitter, event)({})
    assert taken == EVENTS


def test_lifecycle_event_round_trip(strict: Any) -> None:
    event = LifecycleEvent(LifecycleEventType.RUN_STARTED, "run", 5.0, {"a": np.float32(1)})
    parsed = strict(event.to_json())
    assert parsed == {"event": "run_started", "payload": {"a": 1.0}, "run_id": "run", "timestamp": 5.0}
    assert LifecycleEvent.from_dict(parsed) == LifecycleEvent(LifecycleEventType.RUN_STARTED, "run", 5.0, {"a": 1.0})
    assert LifecycleEvent.from_dict({"event": "other", "run_id": "run"}).event == "other"


def test_torch_tensors(strict: Any) -> None:
    torch = pytest.importorskip("torch")
    payload = {"loss": torch.tensor(0.5, requires_grad=True), "v": torch.ones(2, dtype=torch.bfloat16)}
    assert emitted(payload, strict) == {"loss": 0.5, "v": [1.0, 1.0]}


def test_encoders_are_not_kept_after_a_failure(strict: Any) -> None:
    """An encoder that stopped half way remembers what it was inside of."""
    inner = [1, object]
    for _ in range(3):
        emitted({"inner": inner, "bad": float("nan")}, strict)
    assert emitted({"inner": inner}, strict) == {"inner": [1, "builtins.object"]}


class Hostile:
    """Looking at it raises."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("no")


def test_a_hostile_constant_does_not_cost_the_line() -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink, logger=logging.getLogger("x")).heartbeat({"step": 1}, constant=Hostile())
    assert json.loads(sink.getvalue())["payload"] == {"step": 1}
