"""Reading telemetry: Arrow tables from the Parquet files, with what was trained twice shown once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.files import data_files, footer_of, opened
from mosaic_cluster.telemetry.schema import SCHEMAS, TABLES
from mosaic_cluster.worker.errors import StorageError

ATTEMPT_STARTED = "attempt_started"
REQUESTS = 8
"""Files of an object store that are read at once."""


@dataclass(frozen=True)
class Visible:
    """What counts of one attempt.

    Attributes:
        upto: offset of the last line that counts; ``None``: all of it.
    """

    attempt: int
    upto: int | None


class TelemetryReader:
    """Reads an experiment's tables, also while they are being written.

    Args:
        folder: the experiment's ``telemetry`` folder: a path, a URI, or a storage.
    """

    def __init__(self, folder: str | Path | Storage) -> None:
        self._storage = Storage.open(folder)

    def table(
        self, name: str, *, run_id: str | None = None, view: bool = True, columns: list[str] | None = None
    ) -> pa.Table:
        """Rows of ``lifecycle``, ``steps``, ``episodes`` or ``metrics``, by run, attempt and offset.

        Args:
            run_id: only this run's.
            view: leave out what a later attempt did again: rows written after the checkpoint it went on from.
                ``False`` gives every row there is.
            columns: only these.

        Raises:
            StorageError: there is no such table, or its files cannot be read.
        """
        if name not in SCHEMAS:
            raise StorageError(f"there is no telemetry table {name!r}; there are {', '.join(TABLES)}")
        rows = self._rows(name, run_id)
        if view:
            rows = self._hide(rows, run_id)
        order = [("run_id", "ascending"), ("attempt", "ascending"), ("offset", "ascending")]
        rows = rows.take(pc.sort_indices(rows, sort_keys=order))
        return rows.select(columns) if columns else rows

    def metric(self, name: str, run_id: str, *, view: bool = True) -> pa.Table:
        """One metric of one run as a curve: columns ``step``, ``value`` and ``ts``, in the order reported."""
        rows = self.table("metrics", run_id=run_id, view=view)
        return rows.filter(pc.equal(rows["name"], name)).select(["step", "value", "ts"])

    def metric_names(self, run_id: str | None = None) -> list[str]:
        """Names of all metrics, sorted."""
        return sorted(pc.unique(self._rows("metrics", run_id)["name"]).to_pylist())

    def visible(self, run_id: str) -> list[Visible]:
        """Which attempts of a run count, and how far, the last first."""
        return visible_parts(self._starts(run_id).get(run_id, {}))

    def _rows(self, name: str, run_id: str | None) -> pa.Table:
        schema = plain(SCHEMAS[name])
        targets = list(data_files(self._storage, name))
        if self._storage.is_local:
            parts = [self._part(target, schema, run_id) for target in targets]
        else:  # most of the time goes by in waiting for answers
            with ThreadPoolExecutor(REQUESTS) as pool:
                parts = list(pool.map(lambda target: self._part(target, schema, run_id), targets))
        return pa.concat_tables([schema.empty_table(), *parts])

    def _part(self, target: str, schema: pa.Schema, run_id: str | None) -> pa.Table:
        """One file's rows."""
        with opened(self._storage, target) as file:
            footer = footer_of(file, self._storage.describe(target))
            if run_id is not None and all(values[0] != run_id for values in footer["ranges"]):
                return schema.empty_table()
            # Names as plain text: dictionaries differ from file to file, and compare badly.
            part = file.read().replace_schema_metadata(None).cast(schema)
        return part if run_id is None else part.filter(pc.equal(part["run_id"], run_id))

    def _starts(self, run_id: str | None) -> dict[str, dict[int, dict[str, Any]]]:
        """What each attempt said when it began, by run and attempt."""
        rows = self._rows("lifecycle", run_id)
        rows = rows.filter(pc.equal(rows["event"], ATTEMPT_STARTED)).select(["run_id", "attempt", "payload"])
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows.to_pylist():
            found.setdefault(row["run_id"], {})[row["attempt"]] = json.loads(row["payload"])
        return found

    def _hide(self, rows: pa.Table, run_id: str | None) -> pa.Table:
        hidden = None
        for run, starts in self._starts(run_id).items():
            if len(starts) < 2:
                continue
            here = pc.equal(rows["run_id"], run)
            kept = pa.scalar(False)
            for part in visible_parts(starts):
                shown = pc.equal(rows["attempt"], part.attempt)
                if part.upto is not None:
                    shown = pc.and_(shown, pc.less_equal(rows["offset"], part.upto))
                kept = pc.or_(shown, kept)
            gone = pc.and_(here, pc.invert(kept))
            hidden = gone if hidden is None else pc.or_(hidden, gone)
        return rows if hidden is None else rows.filter(pc.invert(hidden))


def plain(schema: pa.Schema) -> pa.Schema:
    """A table's schema with names as text."""
    return pa.schema(
        [
            pa.field(each.name, pa.string()) if pa.types.is_dictionary(each.type) else each
            for each in schema
        ]
    )  # fmt: skip


def visible_parts(starts: dict[int, dict[str, Any]]) -> list[Visible]:
    """From the last attempt back through the checkpoints each went on from."""
    if not starts:
        return []
    attempt, upto = max(starts), None
    found = [Visible(attempt, upto)]
    while True:
        payload = starts.get(attempt, {})
        earlier, offset = payload.get("resumed_from_attempt"), payload.get("resumed_from_offset")
        if not isinstance(earlier, int) or not isinstance(offset, int) or earlier >= attempt:
            return found
        attempt = earlier
        found.append(Visible(attempt, offset))
