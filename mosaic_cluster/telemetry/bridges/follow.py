"""Following the metrics of an experiment: its committed files, each once, from where a cursor stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.bridges.protocols import Points
from mosaic_cluster.telemetry.files import data_files, file_number
from mosaic_cluster.worker.errors import NotFound

COLUMNS = ["run_id", "attempt", "offset", "ts", "name", "step", "value"]
BATCH_ROWS = 1 << 15


@dataclass(frozen=True)
class DataFile:
    """One committed file: number ``number`` of shard ``shard``."""

    number: int
    shard: str
    name: str


@dataclass
class RunMark:
    """How far one run has been written.

    Attributes:
        where: where the tracker has it; ``None``: nowhere yet.
        declined: why it is not written.
        attempt: last attempt that was written; 0: none.
        rows: log lines written.
        counts: points so far of each metric reported before the run had any step.
    """

    where: str | None = None
    declined: str | None = None
    attempt: int = 0
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class Cursor:
    """What has been written to one tracker, kept in storage as ``bridges/<name>.json``."""

    def __init__(self, storage: Storage, bridge: str) -> None:
        self.runs: dict[str, RunMark] = {}
        self._storage = storage
        self._name = f"bridges/{bridge}.json"
        self._files: dict[str, int] = {}
        try:
            document: dict[str, Any] = storage.get_json(self._name)
        except NotFound:
            return
        self._files = {shard: int(number) for shard, number in document["files"].items()}
        self.runs = {run_id: RunMark(**mark) for run_id, mark in document["runs"].items()}

    def run(self, run_id: str) -> RunMark:
        """The mark of a run; a fresh one for a new run."""
        return self.runs.setdefault(run_id, RunMark())

    def new_files(self) -> list[DataFile]:
        """Committed files that have not been written, oldest first within each shard."""
        found = []
        for name in data_files(self._storage.at("telemetry"), "metrics"):
            shard, number = file_number(name) or (0, -1)
            if number > self._files.get(str(shard), -1):
                found.append(DataFile(number, str(shard), f"telemetry/{name}"))
        return sorted(found, key=lambda file: (file.number, file.shard))

    def written(self, file: DataFile) -> None:
        """Note that a file is done; :meth:`save` makes it last."""
        self._files[file.shard] = file.number

    def save(self) -> None:
        """Put the cursor into storage."""
        runs = {run_id: vars(mark) for run_id, mark in self.runs.items()}
        self._storage.put_json(self._name, {"files": self._files, "runs": runs})


@dataclass
class Thinning:
    """Thins what is far denser than a tracker can take: of each metric, the first and the last point of each slot.

    Attributes:
        per_second: most points kept, of one metric and second.
        dropped: points left out so far.
    """

    per_second: float
    dropped: int = 0

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of one run. What is sparse enough stays as it is."""
        slot = pc.divide(rows["ts"].cast(pa.int64()), max(1, int(2_000_000 / self.per_second)))
        marked = pa.table({"name": rows["name"], "slot": slot, "row": pa.array(range(rows.num_rows), pa.int64())})
        ends = marked.group_by(["name", "slot"]).aggregate([("row", "min"), ("row", "max")])
        kept = pc.unique(pa.chunked_array([*ends["row_min"].chunks, *ends["row_max"].chunks]))
        if len(kept) == rows.num_rows:
            return rows
        self.dropped += rows.num_rows - len(kept)
        return rows.take(kept.sort())


def read_points(storage: Storage, file: DataFile, cursor: Cursor, thin: Thinning) -> Iterator[Points]:
    """Points of a file, a bounded number at a time, by run and attempt; marks in the cursor move on with them."""
    with storage.open_input(file.name) as source, pq.ParquetFile(source) as opened:
        for batch in opened.iter_batches(BATCH_ROWS, columns=COLUMNS):
            rows = pa.Table.from_batches([batch])
            rows = rows.set_column(0, "run_id", rows["run_id"].cast(pa.string()))
            rows = rows.set_column(4, "name", rows["name"].cast(pa.string()))
            rows = rows.filter(pc.is_valid(rows["value"]))
            for run_id in pc.unique(rows["run_id"]).to_pylist():
                of_run = rows.filter(pc.equal(rows["run_id"], run_id))
                for attempt in sorted(pc.unique(of_run["attempt"]).to_pylist()):
                    part = thin(of_run.filter(pc.equal(of_run["attempt"], attempt)).sort_by("offset"))
                    yield _points(run_id, attempt, part, cursor.run(run_id))


def _points(run_id: str, attempt: int, rows: pa.Table, mark: RunMark) -> Points:
    names, steps = rows["name"].to_pylist(), rows["step"].to_pylist()
    if rows["step"].null_count:
        # The parser gives a row without a step the last one known. Before there is any, points are counted.
        for index, (name, step) in enumerate(zip(names, steps, strict=True)):
            if step is None:
                steps[index] = mark.counts.get(name, 0)
                mark.counts[name] = steps[index] + 1
    points = Points(
        run_id=run_id,
        attempt=attempt,
        first_row=mark.rows,
        lines=rows["offset"].to_pylist(),
        times=rows["ts"].cast(pa.int64()).to_pylist(),
        names=names,
        steps=steps,
        values=rows["value"].to_pylist(),
    )
    mark.rows += points.row_count()
    return points
