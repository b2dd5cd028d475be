"""Looking at one metric as it goes by: its first value at or after each of some steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mosaic_cluster.logs import Released, read_released
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.fields import find_step
from mosaic_cluster.telemetry.parse import STEP_EVENTS, parse
from mosaic_cluster.telemetry.reading import TelemetryReader
from mosaic_cluster.telemetry.tail import LogTail

SCAN_BYTES = 4 << 20
MOST_NAMES = 50
_GLOBAL_STEP = r'"global_step":\s*(?P<step>\d{1,18})\b'

Reading = tuple[int, float]
"""A step and the value reported there."""


@dataclass(frozen=True)
class Watched:
    """What was seen of a metric.

    Attributes:
        rungs: for each step asked about, the first reading at or after it.
        last: the last reading.
        names: metrics that were reported, for those who look for one that was not.
    """

    rungs: Mapping[int, Reading] = field(default_factory=dict)
    last: Reading | None = None
    names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``null`` stands for values that are no finite number."""
        return {
            "rungs": {str(rung): _plain(reading) for rung, reading in self.rungs.items()},
            "last": None if self.last is None else _plain(self.last),
            "names": list(self.names),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Watched:
        """The way back."""
        last = document.get("last")
        return cls(
            rungs={int(rung): _reading(each) for rung, each in document["rungs"].items()},
            last=None if last is None else _reading(last),
            names=tuple(document.get("names", ())),
        )

    def upto(self, rung: int) -> Watched:
        """Without what was seen beyond a rung."""
        return Watched({at: reading for at, reading in self.rungs.items() if at <= rung}, None, self.names)

    def until(self, step: int) -> Watched:
        """Without what was read after a step."""
        last = self.last if self.last is not None and self.last[0] <= step else None
        return Watched({at: reading for at, reading in self.rungs.items() if reading[0] <= step}, last, self.names)

    def then(self, later: Watched | None) -> Watched:
        """With what was seen after it: a rung keeps its first reading, the last one is the later."""
        if later is None:
            return self
        names = tuple(sorted({*self.names, *later.names})[:MOST_NAMES])
        return Watched({**later.rungs, **self.rungs}, later.last or self.last, names)


def _plain(reading: Reading) -> list[Any]:
    step, value = reading
    return [step, value if math.isfinite(value) else None]


def _reading(plain: Sequence[Any]) -> Reading:
    step, value = plain
    return int(step), math.nan if value is None else float(value)


class Watch:
    """Takes rows of the metrics table and keeps what was asked for.

    Args:
        metric: its name.
        rungs: steps, rising.
    """

    def __init__(self, metric: str, rungs: tuple[int, ...] = ()) -> None:
        self.metric = metric
        self.rungs = rungs
        self._hit: dict[int, Reading] = {}
        self._last: Reading | None = None
        self._names: dict[str, None] = {}

    def feed(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """Take the rows of some consecutive lines; the same lines again change nothing."""
        rows = tables.get("metrics")
        if rows is None or rows.num_rows == 0:
            return
        names = rows.column("name").cast(pa.string())
        if len(self._names) < MOST_NAMES:
            self._names.update(dict.fromkeys(pc.unique(names).to_pylist()))
        rows = rows.filter(pc.equal(names, self.metric))
        for step, value in zip(rows.column("step").to_pylist(), rows.column("value").to_pylist(), strict=True):
            if step is None or value is None:
                continue
            self._last = (step, value)
            for rung in self.rungs:
                if rung > step:
                    break
                self._hit.setdefault(rung, (step, value))

    def seen(self) -> Watched:
        """What has been seen so far."""
        return Watched(dict(self._hit), self._last, tuple(sorted(self._names)[:MOST_NAMES]))


def scan_log(path: Path, watch: Watch, run_id: str, attempt: int, telemetry: Path | Storage) -> None:
    """Feed ``watch`` a whole log.

    Args:
        telemetry: the experiment's ``telemetry`` folder: it has what of the log was let go, and all that was
            committed of a log that is not on this machine.
    """
    for rows in _metrics(path, run_id, attempt, telemetry):
        watch.feed({"metrics": rows})


def offset_at_step(path: Path, step: int, run_id: str, attempt: int, telemetry: Path | Storage) -> int | None:
    """Byte offset of a log's last line with metrics of ``step`` or before; ``None`` if there is none.

    Args:
        telemetry: as in :func:`scan_log`.
    """
    found = None
    for rows in _metrics(path, run_id, attempt, telemetry):
        early = rows.filter(pc.less_equal(rows.column("step"), step)).column("offset")
        if len(early):
            found = int(pc.max(early).as_py())
    return found


def _metrics(path: Path, run_id: str, attempt: int, telemetry: Path | Storage) -> Iterator[pa.RecordBatch]:
    """All of a log's metrics in order: from itself, and of what was let go or is not here, from Parquet."""
    if not path.is_file():
        rows = TelemetryReader(telemetry).table("metrics", run_id=run_id, view=False)
        yield from rows.filter(pc.equal(rows["attempt"], attempt)).to_batches()
        return
    gap = read_released(path)
    tail, last_step = LogTail(path), None
    while lines := tail.read(SCAN_BYTES, final=True):
        if gap is not None and lines[0][0] >= gap.upto:
            gone = released_rows("metrics", gap, run_id, attempt, telemetry)
            last_step = _step_after(gap, last_step, gone, run_id, attempt, telemetry)
            gap = None
            yield from gone.to_batches()
        parsed = parse(lines, run_id, attempt, last_step=last_step)
        last_step = parsed.last_step
        if "metrics" in parsed.tables:
            yield parsed.tables["metrics"]


def released_rows(table: str, gap: Released, run_id: str, attempt: int, telemetry: Path | Storage) -> pa.Table:
    """What one table has of a range that was let go, in order."""
    rows = TelemetryReader(telemetry).table(table, run_id=run_id, view=False)
    offsets = rows["offset"]
    inside = pc.and_(pc.greater_equal(offsets, gap.first), pc.less(offsets, gap.upto))
    return rows.filter(pc.and_(inside, pc.equal(rows["attempt"], attempt)))


def _step_after(
    gap: Released, before: int | None, metrics: pa.Table, run_id: str, attempt: int, telemetry: Path | Storage
) -> int | None:
    """The step that the parser knew at the end of what was let go: metrics without one of their own take it."""
    found = [before, pc.max(metrics["step"]).as_py()]
    steps = released_rows("steps", gap, run_id, attempt, telemetry)["payload"]
    named = pc.struct_field(pc.extract_regex(steps, _GLOBAL_STEP), "step")
    found.append(pc.max(pc.cast(named, pa.int64())).as_py())
    for row in released_rows("lifecycle", gap, run_id, attempt, telemetry).select(["event", "payload"]).to_pylist():
        if row["event"] in STEP_EVENTS:
            found.append(find_step(json.loads(row["payload"]))[1])
    return max((step for step in found if step is not None), default=None)
