"""Lines of a log into rows of the four tables.

Any line survives. A JSON object becomes a row, fields that do not fit their column staying in its ``payload``;
a line that begins like one but is not is kept as it is, as the lifecycle event ``unparsed``; every other line is
a log line, which the log itself keeps: it is counted here, not stored.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pyarrow as pa

from mosaic_cluster.telemetry.alike import heartbeat_columns, step_columns
from mosaic_cluster.telemetry.arrays import record_batch, spread
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
from mosaic_cluster.telemetry.schema import STEPS

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
        "log_released",
        "warned",
    }
)
STEP_EVENTS = frozenset({"heartbeat", "checkpoint_saved", "checkpoint_loaded", "run_completed"})
UNPARSED = "unparsed"
UNKNOWN = "unknown"
REST = "_line"
"""Key in a lifecycle payload for what else stood on the line beside it."""

CHUNK_BYTES = 1 << 16
FEW = 8
"""Fewer lines than this are not worth a look at whether they are alike."""

Columns = tuple[list[Any], ...]

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
    with _no_garbage_collection():
        reader.take(lines)
        return reader.parsed(run_id, attempt)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Thousands of dicts at a time, none of them in a cycle, would set it off again and again: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Lines:
    """Collects rows as columns; Arrow is touched once, at the end."""

    def __init__(self, run_id: str, last_step: int | None, last_ts: int | None, now: float, keep_render: bool) -> None:
        self.run_id = run_id
        self.last_step = last_step
        self.last_ts = last_ts
        self.now = int(now * 1e6)
        self.keep_render = keep_render
        self.json = ObjectReader()
        # What the contract's emitter writes. If group 2 is one JSON object, the line is one with these four
        # keys, and the payload's text can be kept as it is: half the work of taking the line apart.
        line = (
            r'\{"event":"([a-z_]+)","payload":(\{[^\n]*\}),"run_id":"'
            + re.escape(run_id)
            + r'","timestamp":(\d{1,11}(?:\.\d+)?)\}'
        )
        self.emitted = re.compile(line).fullmatch
        self.all_emitted = re.compile(f"^{line}$", re.MULTILINE).findall
        self.lifecycle: Columns = ([], [], [], [], [])
        self.steps: Columns = tuple([] for _ in STEPS.names[2:])
        self.episodes: list[tuple[Any, ...]] = []
        self.names: list[str] = []
        self.values: list[float] = []
        self.spans: list[tuple[int, int, int | None, int]] = []
        self.checkpoints: list[SavedCheckpoint] = []
        self.resumed_from_step: int | None = None
        self.events = self.log_lines = self.unparsed = 0

    def take(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Take lines in order, in chunks that are parsed at once."""
        chunk: list[tuple[int, bytes]] = []
        size = 0
        for line in lines:
            chunk.append(line)
            size += len(line[1])
            if size > CHUNK_BYTES:
                self._take(chunk)
                chunk, size = [], 0
        if chunk:
            self._take(chunk)

    def _take(self, chunk: list[tuple[int, bytes]]) -> None:
        if not self._alike(chunk):
            self._one_by_one(chunk)

    def _alike(self, chunk: list[tuple[int, bytes]]) -> bool:
        """Lines that all look the same, as most do, column by column; false, and nothing done, if they do not."""
        raws = [raw for _, raw in chunk]
        if len(raws) < FEW or raws[0][:1] != b"{":
            return False
        try:
            text = b"\n".join(raws).decode()
        except UnicodeDecodeError:
            return False
        offsets = [offset for offset, _ in chunk]
        found = self.all_emitted(text)
        if len(found) == len(chunk):
            return self._heartbeats(offsets, found)
        return not found and self._step_lines(offsets, text.split("\n"))

    def _heartbeats(self, offsets: list[int], found: list[tuple[str, str, str]]) -> bool:
        events, texts, times = zip(*found, strict=True)
        if set(events) != {"heartbeat"}:
            return False
        payloads = self.json.read_quickly(list(texts))
        metrics = None if payloads is None else heartbeat_columns(payloads)
        if metrics is None:
            return False
        stamps = [int(float(each) * 1e6 + 0.5) for each in times]
        self.last_ts = stamps[-1]
        self.events += len(offsets)
        if metrics.names:
            self.names += metrics.names * len(offsets)
            self.values += metrics.values
            self.spans += zip(offsets, stamps, metrics.steps, repeat(len(metrics.names)), strict=False)
        self._seen_step(max(metrics.steps))
        self._add_lifecycle(offsets, stamps, ["heartbeat"] * len(offsets), ["worker"] * len(offsets), list(texts))
        return True

    def _step_lines(self, offsets: list[int], texts: list[str]) -> bool:
        items = None if self.keep_render else self.json.read_many(texts)
        columns = None if items is None else step_columns(items, self.run_id)
        if columns is None:
            return False
        self.last_ts = columns[0][-1]
        self.events += len(offsets)
        for own, more in zip(self.steps, (offsets, *columns), strict=True):
            own += more
        return True

    def _add_lifecycle(self, *columns: list[Any]) -> None:
        for own, more in zip(self.lifecycle, columns, strict=True):
            own += more

    def add_lifecycle(self, row: tuple[Any, ...]) -> None:
        """One row, from ``offset`` on."""
        for own, value in zip(self.lifecycle, row, strict=True):
            own.append(value)

    def _one_by_one(self, lines: list[tuple[int, bytes]]) -> None:
        heads: list[tuple[int, re.Match[str] | None, bytes]] = []
        texts: list[str] = []
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
        for own, value in zip(self.steps, row, strict=True):
            own.append(value)

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
        self.episodes.append(row)

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
        episodes = tuple(zip(*self.episodes, strict=True))
        columns = {"lifecycle": self.lifecycle, "steps": self.steps, "episodes": episodes}
        tables = {
            name: record_batch(name, run_id, attempt, found) for name, found in columns.items() if found and found[0]
        }
        latest: dict[str, tuple[int | None, float]] = {}
        if self.spans:
            offsets, times, steps = spread(self.spans)
            metrics = (offsets, times, self.names, steps, self.values)
            tables["metrics"] = record_batch("metrics", run_id, attempt, metrics)
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
