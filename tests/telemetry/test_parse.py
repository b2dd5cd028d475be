"""Lines into rows: any line survives, nothing is bent to fit."""

from __future__ import annotations

import importlib
import io
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_cluster.telemetry import SCHEMAS, Parsed, parse
from mosaic_cluster.worker import TelemetryEmitter


def rows(parsed: Parsed, table: str) -> list[dict[str, Any]]:
    return parsed.tables[table].to_pylist() if table in parsed.tables else []


def one(text: str | bytes, **more: Any) -> Parsed:
    return parse([(7, text if isinstance(text, bytes) else text.encode())], "run", 2, now=50.0, **more)


def line(**fields: Any) -> str:
    return json.dumps(fields)


def test_a_heartbeat() -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat({"step": 64, "loss": 0.5, "nested": {"kl": 2}, "name": "x"})
    parsed = one(sink.getvalue().rstrip("\n"))
    (row,) = rows(parsed, "lifecycle")
    assert (row["run_id"], row["attempt"], row["offset"], row["event"]) == ("run", 2, 7, "heartbeat")
    assert json.loads(row["payload"]) == {"step": 64, "loss": 0.5, "nested": {"kl": 2}, "name": "x"}
    found = {(row["name"], row["step"], row["value"]) for row in rows(parsed, "metrics")}
    assert found == {("loss", 64, 0.5), ("nested/kl", 64, 2.0)}
    assert parsed.metrics == {"loss": (64, 0.5), "nested/kl": (64, 2.0)}
    assert parsed.last_step == 64
    assert parsed.events == 1


def test_numbers_that_json_does_not_know() -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat({"step": 1, "a": math.nan, "b": math.inf, "c": -math.inf})
    values = {row["name"]: row["value"] for row in rows(one(sink.getvalue().rstrip()), "metrics")}
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


def test_a_step() -> None:
    text = line(
        type="step", run_id="run", episode=3, step_index=4, action=[1], observation={"x": 1}, reward=0.5,
        terminated=False, truncated=True, agent_id="a0", policy_label="ppo", episode_seed=9, worker_id="w",
        ts_unix_ns=2_000_000_000, render="x" * 100, colour="red",
    )  # fmt: skip
    (row,) = rows(one(text), "steps")
    assert (row["episode"], row["step"], row["action"], row["observation"]) == (3, 4, "[1]", '{"x":1}')
    assert (row["reward"], row["terminated"], row["truncated"]) == (0.5, False, True)
    assert (row["agent_id"], row["policy_label"], row["episode_seed"], row["worker_id"]) == ("a0", "ppo", 9, "w")
    assert row["ts"].timestamp() == 2.0
    assert json.loads(row["payload"]) == {"colour": "red"}
    assert "render" in json.loads(rows(one(text, keep_render=True), "steps")[0]["payload"])


def test_an_episode_and_its_metrics() -> None:
    text = line(
        type="episode", episode=1, total_reward=10, steps=12, terminated=True, agent_id="a1",
        metadata={"global_step": 99, "win": 1},
    )  # fmt: skip
    parsed = one(text, last_step=90)
    (row,) = rows(parsed, "episodes")
    assert (row["episode"], row["total_reward"], row["steps"], row["agent_id"]) == (1, 10.0, 12, "a1")
    assert parsed.metrics == {
        "episode/return/a1": (99, 10.0),
        "episode/length/a1": (99, 12.0),
        "episode/win/a1": (99, 1.0),
    }


def test_names_used_by_others() -> None:
    (row,) = rows(one(line(type="step", step=5, metadata={"episode_index": 2})), "steps")
    assert (row["episode"], row["step"]) == (2, 5)
    (row,) = rows(one(line(type="episode", reward=3.5)), "episodes")
    assert row["total_reward"] == 3.5


def test_an_episode_takes_the_last_known_step() -> None:
    parsed = one(line(type="episode", total_reward=1), last_step=40)
    assert parsed.metrics["episode/return"] == (40, 1.0)


def test_a_value_of_another_type_stays_in_the_payload() -> None:
    (row,) = rows(one(line(type="episode", total_reward="lots", steps=1.5)), "episodes")
    assert (row["total_reward"], row["steps"]) == (None, None)
    assert json.loads(row["payload"]) == {"total_reward": "lots", "steps": 1.5}


def test_a_plan_is_no_progress() -> None:
    assert one(line(event="run_started", payload={"total_steps": 1000})).last_step is None


def test_an_attempt_says_where_it_went_on() -> None:
    parsed = one(line(event="attempt_started", source="supervisor", payload={"resumed_from_step": 50}))
    assert (parsed.resumed_from_step, parsed.last_step) == (50, 50)
    assert rows(parsed, "lifecycle")[0]["source"] == "supervisor"


def test_checkpoints() -> None:
    (saved,) = one(line(event="checkpoint_saved", payload={"path": "a.pt", "step": 5})).checkpoints
    assert (saved.path, saved.step, saved.offset) == ("a.pt", 5, 7)


def test_unknown_objects_are_kept_as_they_came() -> None:
    text = line(event="custom", x=1)
    (row,) = rows(one(text), "lifecycle")
    assert (row["event"], row["payload"]) == ("custom", text)
    assert rows(one('{"a":1}'), "lifecycle")[0]["event"] == "unknown"


@pytest.mark.parametrize("text", ["hello", "[1, 2]", "3", "Traceback (most recent call last):", ""])
def test_log_lines_make_no_rows(text: str) -> None:
    parsed = one(text)
    assert parsed.tables == {}
    assert parsed.log_lines == bool(text)


@pytest.mark.parametrize("text", ["{", '{"event": "heart', b'{"a": "\xff', "{" * 5000, '{"a":1} {"b":2}'])
def test_broken_objects_are_kept(text: str | bytes) -> None:
    parsed = one(text)
    (row,) = rows(parsed, "lifecycle")
    assert row["event"] == "unparsed"
    assert parsed.unparsed == 1


def test_a_line_of_megabytes() -> None:
    text = line(event="heartbeat", payload={"step": 1, "blob": "x" * 5_000_000})
    assert len(rows(one(text), "lifecycle")[0]["payload"]) > 5_000_000


def test_times() -> None:
    lines = [
        (0, line(event="heartbeat", timestamp=10.5, payload={}).encode()),
        (1, line(event="heartbeat", payload={}).encode()),
    ]
    first, second = rows(parse(lines, "run", 1, now=99.0), "lifecycle")
    assert first["ts"].timestamp() == second["ts"].timestamp() == 10.5
    assert rows(one(line(event="heartbeat", payload={})), "lifecycle")[0]["ts"].timestamp() == 50.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("event", "type", "payload", "run_id", "timestamp", "step", "episode", "total_reward", "metadata", "reward")
objects = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), json_values, max_size=6)
kinds = st.sampled_from(["heartbeat", "run_started", "checkpoint_saved", "attempt_started", "x"])
telemetry = objects | objects.map(lambda item: {**item, "type": "step"}) | objects.map(
    lambda item: {**item, "type": "episode"}
) | st.tuples(objects, kinds).map(lambda pair: {**pair[0], "event": pair[1]})  # fmt: skip
any_line = telemetry.map(lambda item: json.dumps(item).encode()) | st.binary(max_size=30).map(
    lambda data: data.replace(b"\n", b"")
)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(any_line, max_size=8))
def test_every_line_is_accounted_for(lines: list[bytes]) -> None:
    numbered = [(number * 100, text) for number, text in enumerate(lines)]
    parsed = parse(numbered, "run", 1, now=0.0)
    kept = sorted(row["offset"] for table in ("lifecycle", "steps", "episodes") for row in rows(parsed, table))
    assert kept == [offset for offset, text in numbered if text.lstrip(b" \t\r\n").startswith(b"{")]
    assert parsed.events + parsed.unparsed == len(kept)
    for name, batch in parsed.tables.items():
        assert batch.schema == SCHEMAS[name]


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(any_line, max_size=8), cut=st.integers(0, 8))
def test_in_two_batches_as_in_one(lines: list[bytes], cut: int) -> None:
    numbered = [(number * 100, text) for number, text in enumerate(lines)]
    whole = parse(numbered, "run", 1, now=0.0)
    first = parse(numbered[:cut], "run", 1, now=0.0)
    second = parse(numbered[cut:], "run", 1, now=0.0, last_step=first.last_step, last_ts=first.last_ts)
    for name in SCHEMAS:
        assert repr(rows(first, name) + rows(second, name)) == repr(rows(whole, name))
    assert (second.last_step, second.last_ts) == (whole.last_step, whole.last_ts)


RUN = "01JAAAAAAAAAAAAAAAAAAAAAAA"
PARSE = importlib.import_module("mosaic_cluster.telemetry.parse")  # the package has a function of that name
PLAIN = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.none(), st.sampled_from(["x", "NaN", "\ud800", "é"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.sampled_from("ab"), st.floats(), max_size=2),
)  # fmt: skip
FIELDS = st.sampled_from(
    ["step", "loss", "env_steps", "episode", "step_index", "agent_id", "action", "observation", "reward", "terminated",
     "truncated", "episode_seed", "worker_id", "metadata", "render", "info"]
)  # fmt: skip


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Lines of one shape, values of one kind in each field; sometimes with one that is not."""
    fields = draw(st.lists(FIELDS, unique=True, max_size=6))
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**62), 2**62)
    kinds = {name: draw(st.sampled_from([number, st.integers(0, 9), st.booleans(), PLAIN])) for name in fields}
    step = draw(st.booleans())
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        values = {name: draw(kind) for name, kind in kinds.items()}
        if step:
            line = {"type": "step", **values, "run_id": RUN, "timestamp": draw(st.floats(0, 2e9))}
        else:
            payload = {"step": draw(st.integers(0, 2**63)), **values}
            line = {"event": "heartbeat", "payload": payload, "run_id": RUN, "timestamp": draw(st.floats(0, 2e9))}
        lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=draw(st.booleans())))
    odd = ["chatter", "{broken", "", '{"event":"heartbeat"}', '{"type":["step"],"x":1}', '{"type":"step","run_id":{}}']
    lines += draw(st.lists(st.sampled_from(odd), max_size=1)) * draw(st.sampled_from([1, 1, 9]))
    if draw(st.booleans()):
        lines = lines[-9:]
    return [line.encode("utf-8", "surrogatepass") for line in lines]


@settings(max_examples=300, deadline=None)
@given(alike())
def test_alike_as_one_by_one(lines: list[bytes]) -> None:
    """The quick way through lines of one shape gives the same rows as the careful one."""
    numbered = [(index * 1000, line) for index, line in enumerate(lines)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PARSE, "FEW", 1)
        quick = parse(numbered, RUN, 1, now=5.0)
        patch.setattr(PARSE, "FEW", 1 << 30)
        careful = parse(numbered, RUN, 1, now=5.0)
    assert quick.tables.keys() == careful.tables.keys()
    for name, rows in quick.tables.items():
        assert repr(rows.to_pylist()) == repr(careful.tables[name].to_pylist())
    assert repr(quick.metrics) == repr(careful.metrics)
    for name in ("last_step", "last_ts", "events", "log_lines", "unparsed", "checkpoints", "resumed_from_step"):
        assert getattr(quick, name) == getattr(careful, name)


def test_lines_of_one_shape_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise AssertionError("one by one")

    monkeypatch.setattr(PARSE._Lines, "_one_by_one", refuses)
    beats = [{"event": "heartbeat", "payload": {"step": n, "loss": 0.5, "best": True}, "run_id": RUN, "timestamp": 1.5}
             for n in range(20)]  # fmt: skip
    steps = [{"type": "step", "episode": 1, "step": n, "action": [1, 2], "reward": 1.0, "terminated": False,
              "timestamp": 1.5, "info": {}} for n in range(20)]  # fmt: skip
    for lines, table in ((beats, "lifecycle"), (steps, "steps")):
        texts = [(n, json.dumps(line, separators=(",", ":")).encode()) for n, line in enumerate(lines)]
        assert parse(texts, RUN, 1).tables[table].num_rows == 20


@pytest.mark.parametrize(
    "fields",
    [
        {"type": ["step"], "x": 1},
        {"type": {}, "x": 1},
        {"type": "step", "run_id": [1]},
        {"type": "step", "step": 2**70},
    ],
)
def test_odd_lines_of_one_shape(fields: dict[str, Any]) -> None:
    """What cannot be taken as a whole is taken one by one, whatever it holds."""
    lines = [(number, line(**fields).encode()) for number in range(20)]
    parsed = parse(lines, RUN, 1)
    assert parsed.events == 20
    assert sum(rows.num_rows for rows in parsed.tables.values()) == 20


def test_an_integer_that_no_column_holds_stays_exact() -> None:
    lines = [
        (number, json.dumps({"event": "heartbeat", "payload": {"step": number, "big": 2**70 + number}, "run_id": RUN,
                             "timestamp": 1.5}, separators=(",", ":")).encode())
        for number in range(20)
    ]  # fmt: skip
    found = rows(parse(lines, RUN, 1), "lifecycle")
    assert [json.loads(row["payload"])["big"] for row in found] == [2**70 + number for number in range(20)]
