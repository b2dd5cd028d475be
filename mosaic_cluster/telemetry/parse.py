"""Lines of a log into rows of the four tables.

Any line survives. A JSON object becomes a row, fields that do not fit their column staying in its ``payload``;
a line that begins like one but is not is kept as it is, as the lifecycle event ``unparsed``; every other line is
a log line, which the log itself keeps: it is counted here, not stored.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mosaic_cluster.telemetry.fields import (
    Object,
    as_int,
    find_step,
    numbers,
    take_bool,
    take_float,
    take_int,
    take_json,
    take_text,
    take_time,
)
from mosaic_cluster.telemetry.jsontext import WHITESPACE, ObjectReader, dumps, to_raw_text, to_text
from mosaic_cluster.telemetry.schema import SCHEMAS, TIME

LIFECYCLE_EVENTS = frozenset(
    {
        "run_started",
        "heartbeat",
        "checkpoint_saved",
        "checkpoint_loaded",
        "run_completed",
        "run_failed",
        "run_cancelled",
        "attempt_started",
    }
)
STEP_EVENTS = frozenset({"heartbeat", "checkpoint_saved", "checkpoint_loaded", "run_completed"})
UNPARSED = "unparsed"
UNKNOWN = "unknown"
REST = "_line"
"""Key in a lifecycle payload for what else stood on the line beside it."""

CHUNK_BYTES = 1 << 16

_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that a worker announced.

    Attributes:
        path: as announced, relative to the run's folder or absolute.
        step: global step, if it was given.
        offset: byte offset of the announcing line.
    """

    path: str
    step: int | None
    offset: int


@dataclass(frozen=True)
class Parsed:
    """What some consecutive lines held.

    Attributes:
        tables: rows by table name, tables without rows left out, each in offset order.
        last_step: last global step seen, these lines or before.
        last_ts: time of the last line that had one, microseconds since 1970 UTC.
        checkpoints: announced in these lines.
        resumed_from_step: step of the checkpoint that the worker said it loaded.
        metrics: latest step and value of every metric in these lines.
        events: JSON objects among the lines.
        log_lines: lines that are not telemetry; blank ones are not counted.
        unparsed: lines that begin like a JSON object but are not one.
    """

    tables: dict[str, pa.RecordBatch]
    last_step: int | None = None
    last_ts: int | None = None
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    resumed_from_step: int | None = None
    metrics: Mapping[str, tuple[int | None, float]] = field(default_factory=dict)
    events: int = 0
    log_lines: int = 0
    unparsed: int = 0


def parse(
    lines: Iterable[tuple[int, bytes]],
    run_id: str,
    attempt: int,
    *,
    last_step: int | None = None,
    last_ts: int | None = None,
    now: float | None = None,
    keep_render: bool = False,
) -> Parsed:
    """Turn lines into rows. Never raises for what a line holds.

    Args:
        lines: ``(byte offset, line without its end)``, in file order.
        run_id: whose log it is; attempt: which attempt's.
        last_step: global step known from the lines before.
        last_ts: time of the lines before, microseconds since 1970 UTC.
        now: seconds since 1970, for lines without a time of their own and none before; default: the clock.
        keep_render: keep the ``render`` field of step lines.
    """
    reader = _Lines(run_id, last_step, last_ts, time.time() if now is None else now, keep_render)
    reader.take(lines)
    return reader.parsed(run_id, attempt)


class _Lines:
    """Collects rows as tuples and metrics as columns; Arrow is touched once, at the end."""

    def __init__(
        self, run_id: str, last_step: int | None, last_ts: int | None, now: float, keep_render: bool
    ) -> None:
        self.run_id = run_id
        self.last_step = last_step
        self.last_ts = last_ts
        self.now = int(now * 1e6)
        self.keep_render = keep_render
        self.json = ObjectReader()
        # What the contract's emitter writes. If group 2 is one JSON object, the line is one with these four
        # keys, and the payload's text can be kept as it is: half the work of taking the line apart.
        self.emitted = re.compile(
            r'\{"event":"([a-z_]+)","payload":(\{.*\}),"run_id":"'
            + re.escape(run_id)
            + r'","timestamp":(\d{1,11}(?:\.\d+)?)\}'
        ).fullmatch
        self.rows: dict[str, list[tuple[Any, ...]]] = {"lifecycle": [], "steps": [], "episodes": []}
        self.add_lifecycle = self.rows["lifecycle"].append
        self.names: list[str] = []
        self.values: list[float] = []
        self.spans: list[tuple[int, int, int | None, int]] = []
        self.checkpoints: list[SavedCheckpoint] = []
        self.resumed_from_step: int | None = None
        self.events = self.log_lines = self.unparsed = 0

    def take(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Take lines in order, in chunks that are parsed at once."""
        heads: list[tuple[int, re.Match[str] | None, bytes]] = []
        texts: list[str] = []
        size = 0
        for offset, raw in lines:
            if raw[:1] != b"{":
                stripped = raw.lstrip(_BLANK)
                if stripped[:1] != b"{":
                    self.log_lines += bool(stripped)
                    continue
            text = to_text(raw).strip(WHITESPACE)
            found = self.emitted(text)
            heads.append((offset, found, raw))
            texts.append(text if found is None else found[2])
            size += len(raw)
            if size > CHUNK_BYTES:
                self._chunk(heads, texts)
                heads, texts, size = [], [], 0
        if heads:
            self._chunk(heads, texts)

    def _chunk(self, heads: list[tuple[int, re.Match[str] | None, bytes]], texts: list[str]) -> None:
        items = self.json.read_many(texts)
        if items is None:
            for offset, _, raw in heads:
                self._carefully(offset, raw)
            return
        for (offset, found, raw), text, item in zip(heads, texts, items, strict=True):
            if found is None:
                self._object(offset, text, item, raw)
            else:
                self._emitted(offset, found, item, raw)

    def _carefully(self, offset: int, raw: bytes) -> None:
        """One line of a chunk in which something is not plain JSON."""
        text = to_text(raw).strip(WHITESPACE)
        found = self.emitted(text)
        try:
            if found is not None:
                payload = self.json.read(found[2])
                if not self.json.saw_literal:
                    self._emitted(offset, found, payload, raw)
                    return
            self._object(offset, text, self.json.read(text), raw)
        except (ValueError, RecursionError):
            self._keep_raw(offset, raw)

    def _keep_raw(self, offset: int, raw: bytes) -> None:
        self.unparsed += 1
        self.add_lifecycle((offset, self._time({}), UNPARSED, "worker", to_raw_text(raw)))

    def _emitted(self, offset: int, found: re.Match[str], payload: Object, raw: bytes) -> None:
        event = found[1]
        if event not in LIFECYCLE_EVENTS:
            item = {"event": event, "timestamp": float(found[3])}
            self._object(offset, found[0], item, raw)
            return
        self.events += 1
        self.last_ts = ts = int(float(found[3]) * 1e6 + 0.5)
        self._lifecycle(offset, ts, event, payload)
        self.add_lifecycle((offset, ts, event, "worker", found[2]))

    def _object(self, offset: int, text: str, item: Object, raw: bytes) -> None:
        event = item.get("event")
        kind = item.get("type")
        try:
            if type(event) is str and event in LIFECYCLE_EVENTS:
                self._other_lifecycle(offset, event, item)
            elif kind == "step":
                self._step(offset, item)
            elif kind == "episode":
                self._episode(offset, item)
            else:
                own = next((name for name in (event, kind) if type(name) is str and name), UNKNOWN)
                self.add_lifecycle((offset, self._time(item), own, _source(item), text))
            self.events += 1
        except RecursionError:
            # Nested so deeply that it could be read but not be written again.
            self._keep_raw(offset, raw)

    def _time(self, item: Object) -> int:
        found = take_time(item)
        if found is not None:
            self.last_ts = found
            return found
        return self.now if self.last_ts is None else self.last_ts

    def _take_common(self, item: Object) -> int:
        """Drop what every row says in its own columns; returns the line's time."""
        if item.get("run_id") in (self.run_id, None):
            item.pop("run_id", None)
        return self._time(item)

    def _other_lifecycle(self, offset: int, event: str, item: Object) -> None:
        del item["event"]
        ts = self._take_common(item)
        source = _source(item)
        if item.get("source") == source:
            del item["source"]
        payload = item.pop("payload", None)
        text = dumps(_with_rest(payload, item))
        self._lifecycle(offset, ts, event, payload if type(payload) is dict else {})
        self.add_lifecycle((offset, ts, event, source, text))

    def _lifecycle(self, offset: int, ts: int, event: str, payload: Object) -> None:
        """What a lifecycle event says beyond its own row."""
        # A run_started payload tells the plan: its total_steps are none that were trained.
        name, step = find_step(payload) if event in STEP_EVENTS else (None, None)
        if event == "heartbeat":
            self._add_metrics(offset, ts, step, numbers(payload, name))
        elif event == "checkpoint_saved" and type(payload.get("path")) is str:
            self.checkpoints.append(SavedCheckpoint(payload["path"], as_int(payload.get("step")), offset))
        elif event == "attempt_started":
            step = self.resumed_from_step = as_int(payload.get("resumed_from_step"))
        elif event == "checkpoint_loaded" and step is not None:
            self.resumed_from_step = self.last_step = step
        self._seen_step(step)

    def _step(self, offset: int, item: Object) -> None:
        del item["type"]
        ts = self._take_common(item)
        if not self.keep_render:
            item.pop("render", None)
        metadata = item.get("metadata")
        fields: Object = metadata if type(metadata) is dict else {}
        episode = take_int(item, "episode")
        if episode is None:
            episode = as_int(fields.get("episode_index"))
        step = take_int(item, "step_index")
        if step is None:
            step = take_int(item, "step")
        row = (
            offset,
            ts,
            episode,
            step,
            take_text(item, "agent_id"),
            take_text(item, "policy_label"),
            take_json(item, "action"),
            take_json(item, "observation"),
            take_float(item, "reward"),
            take_bool(item, "terminated"),
            take_bool(item, "truncated"),
            take_int(item, "episode_seed"),
            take_text(item, "worker_id"),
            dumps(item) if item else None,
        )
        self._seen_step(as_int(fields.get("global_step")))
        self.rows["steps"].append(row)

    def _episode(self, offset: int, item: Object) -> None:
        del item["type"]
        ts = self._take_common(item)
        metadata = item.get("metadata")
        fields: Object = metadata if type(metadata) is dict else {}
        total = take_float(item, "total_reward")
        if total is None:
            total = take_float(item, "reward")
        length = take_int(item, "steps")
        agent = take_text(item, "agent_id")
        row = (
            offset,
            ts,
            take_int(item, "episode"),
            total,
            length,
            take_bool(item, "terminated"),
            take_bool(item, "truncated"),
            agent,
            take_json(item, "metadata"),
            dumps(item) if item else None,
        )
        step = as_int(fields.get("global_step"))
        found = numbers(fields, None if step is None else "global_step")
        # The episode's own figures stand above what its metadata calls by the same name.
        if total is not None:
            found["return"] = total
        if length is not None:
            found["length"] = float(length)
        suffix = f"/{agent}" if agent is not None else ""
        named = {f"episode/{name}{suffix}": value for name, value in found.items()}
        self._add_metrics(offset, ts, step, named)
        self._seen_step(step)
        self.rows["episodes"].append(row)

    def _add_metrics(self, offset: int, ts: int, step: int | None, found: Mapping[str, float]) -> None:
        if found:
            self.names += found.keys()
            self.values += found.values()
            self.spans.append((offset, ts, self.last_step if step is None else step, len(found)))

    def _seen_step(self, step: int | None) -> None:
        # The largest: several environments report slightly out of order.
        if step is not None and (self.last_step is None or step > self.last_step):
            self.last_step = step

    def parsed(self, run_id: str, attempt: int) -> Parsed:
        tables = {
            name: _batch(name, run_id, attempt, list(zip(*rows, strict=True)))
            for name, rows in self.rows.items()
            if rows
        }
        latest: dict[str, tuple[int | None, float]] = {}
        if self.spans:
            offsets, times, steps = _spread(self.spans)
            columns = [offsets, times, self.names, steps, self.values]
            tables["metrics"] = _batch("metrics", run_id, attempt, columns)
            latest = dict(zip(self.names, zip(steps, self.values, strict=True), strict=True))
        return Parsed(
            tables=tables,
            last_step=self.last_step,
            last_ts=self.last_ts,
            checkpoints=tuple(self.checkpoints),
            resumed_from_step=self.resumed_from_step,
            metrics=latest,
            events=self.events,
            log_lines=self.log_lines,
            unparsed=self.unparsed,
        )


def _source(item: Object) -> str:
    return "supervisor" if item.get("source") == "supervisor" else "worker"


def _with_rest(payload: Any, rest: Object) -> Object:
    """A lifecycle payload as an object, with what else stood on the line under :data:`REST`."""
    if payload is None and not rest:
        return {}
    if type(payload) is not dict:
        return {REST: {**rest, "payload": payload}}
    if not rest:
        return payload
    if REST in payload:
        rest[REST] = payload[REST]
    return {**payload, REST: rest}


def _spread(spans: list[tuple[int, int, int | None, int]]) -> tuple[list[int], list[int], list[int | None]]:
    """Offset, time and step of each line, repeated for each of its metrics."""
    offsets: list[int] = []
    times: list[int] = []
    steps: list[int | None] = []
    for offset, ts, step, count in spans:
        offsets += [offset] * count
        times += [ts] * count
        steps += [step] * count
    return offsets, times, steps


def _batch(name: str, run_id: str, attempt: int, columns: list[Any]) -> pa.RecordBatch:
    """``columns``: values from ``offset`` on, in the order of the schema."""
    schema = SCHEMAS[name]
    rows = len(columns[0])
    arrays = [
        pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([run_id], pa.string())),
        pa.repeat(pa.scalar(attempt, pa.int32()), rows),
    ]
    arrays += [_array(values, schema.field(2 + index).type) for index, values in enumerate(columns)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        return pa.array(values, pa.int64()).cast(TIME)
    if pa.types.is_dictionary(kind):
        return _texts(values).dictionary_encode()
    if kind == pa.string():
        return _texts(values)
    return pa.array(values, kind)


def _texts(values: Any) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # A lone surrogate, legal in a JSON string ("\ud800") but not in UTF-8.
        escaped = [text and text.encode("utf-8", "backslashreplace").decode() for text in values]
        return pa.array(escaped, pa.string())
