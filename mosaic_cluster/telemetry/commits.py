"""One commit of a hub: rows that wait, sorted, and written as one numbered file for each table that has some.

Every file's footer says which byte ranges of which logs its rows come from; the last file of a commit is marked
complete. So a hub that died between two files is no harm: its successor reads the footers, and filters what is
sent again table by table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.files import FOOTER, file_name, next_number, read_footer
from mosaic_cluster.telemetry.schema import SCHEMA_VERSION, SCHEMAS, TABLES
from mosaic_cluster.worker.errors import AlreadyExists, Fenced

ROW_GROUP = 1 << 16
"""Rows of a row group: readers pass over groups that hold none of the runs they look for."""

MANY = 512
PIECE_BYTES = 2048
"""What a record batch takes beside its values."""


@dataclass(frozen=True)
class Range:
    """Consecutive lines of one log.

    Attributes:
        first: byte offset of the first line; last: byte after the last one.
        last_step: what the parser knew at ``last``; last_ts: likewise.
    """

    run_id: str
    attempt: int
    first: int
    last: int
    last_step: int | None
    last_ts: int | None


class Rows:
    """Rows of one table on their way to storage."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._loose = 0  # of it, bytes of values that are not merged
        self._pieces: list[tuple[tuple[str, int, int], pa.RecordBatch]] = []
        self._merged: list[pa.Table] = []

    def add(self, run_id: str, attempt: int, first: int, rows: pa.RecordBatch) -> None:
        """Take rows of one log, all of lines from the byte offset ``first`` on."""
        self._pieces.append(((run_id, attempt, first), rows))
        self.nbytes += rows.nbytes + PIECE_BYTES
        self._loose += rows.nbytes
        if len(self._pieces) >= MANY and self._loose < len(self._pieces) * PIECE_BYTES:
            # Thousands of runs with a line a second each: their batches would take many times what they hold.
            self._merged.append(self._joined([rows for _, rows in self._pieces]).combine_chunks())
            self.nbytes += self._merged[-1].nbytes - self._loose - len(self._pieces) * PIECE_BYTES
            self._pieces, self._loose = [], 0

    def sorted(self, schema: pa.Schema) -> pa.Table:
        """All rows, by run, attempt and offset."""
        pieces = [rows for _, rows in sorted(self._pieces, key=lambda each: each[0])]
        if not self._merged:
            return self._joined(pieces).cast(schema)
        batches = [batch for table in self._merged for batch in table.to_batches()]
        return _by_run(self._joined([*batches, *pieces]).combine_chunks()).cast(schema)

    @staticmethod
    def _joined(batches: Sequence[pa.RecordBatch]) -> pa.Table:
        return pa.Table.from_batches(batches).unify_dictionaries()


def _by_run(table: pa.Table) -> pa.Table:
    runs = table["run_id"].chunk(0)
    rank = pc.sort_indices(pc.sort_indices(runs.dictionary))  # the inverse of the order is the rank
    keys = pa.table({"run": rank.take(runs.indices), "attempt": table["attempt"], "offset": table["offset"]})
    order = [("run", "ascending"), ("attempt", "ascending"), ("offset", "ascending")]
    return table.take(pc.sort_indices(keys, sort_keys=order))


@dataclass
class Commit:
    """What is being written. It outlives a storage that fails for a while.

    Attributes:
        tables: rows by table name; those that are written are taken out.
        ranges: the logs they come from.
        size: bytes in memory.
        number: which commit of its hub it is.
        written: names of the tables that are in storage.
    """

    tables: dict[str, Rows]
    ranges: list[Range]
    size: int
    number: int
    written: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """What a commit left in storage."""

    rows: int
    size: int


class CommitWriter:
    """Writes commits of one shard, numbered without a gap.

    Args:
        storage: the experiment's ``telemetry`` folder.
        shard: whose files.
        hub: names this hub in footers, so that it knows its own files.
        numbers: the next free number of each table.
    """

    def __init__(self, storage: Storage, shard: int, hub: str, numbers: Mapping[str, int]) -> None:
        self._storage = storage
        self._shard = shard
        self._hub = hub
        self._next = dict(numbers)

    def write(self, commit: Commit) -> list[Written]:
        """Write what is not written yet.

        Raises:
            Fenced: another hub has taken a number.
            StorageError, OSError, pa.ArrowException: try again later.
        """
        found = []
        for name in [name for name in TABLES if name in commit.tables]:
            found.append(self._write(name, commit, complete=len(commit.tables) == 1))
            del commit.tables[name]
            commit.written.append(name)
        return found

    def _write(self, name: str, commit: Commit, complete: bool) -> Written:
        footer = {
            "schema_version": SCHEMA_VERSION,
            "complete": complete,
            "ranges": [list(vars(each).values()) for each in commit.ranges],
            "hub": self._hub,
            "commit": commit.number,
        }
        schema = SCHEMAS[name].with_metadata({FOOTER: json.dumps(footer).encode()})
        table = commit.tables[name].sorted(schema)
        data = encoded(table)
        target = file_name(name, self._shard, self._next[name])
        try:
            self._storage.create(target, data)
        except AlreadyExists as error:
            if not self._is_ours(target, commit.number):
                raise Fenced(f"{target} exists: another hub writes the telemetry of this experiment") from error
        self._next[name] += 1
        return Written(table.num_rows, len(data))

    def _is_ours(self, target: str, number: int) -> bool:
        """Whether an earlier try got there, and only its answer was lost."""
        footer = read_footer(self._storage, target)
        return (footer.get("hub"), footer.get("commit")) == (self._hub, number)


def encoded(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = pa.BufferOutputStream()
    kinds = {field.name: field.type for field in table.schema}
    # Differences of numbers that rise take a tenth of the room, and less time than zstd alone.
    rising = [name for name, kind in kinds.items() if kind == pa.int64() or pa.types.is_timestamp(kind)]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP,
        use_dictionary=[name for name, kind in kinds.items() if pa.types.is_dictionary(kind)],
        column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def claim(storage: Storage, shard: int, hub: str) -> dict[str, int]:
    """Take the next number of every table, with files that have no rows.

    Whoever was the hub before cannot write any more, whatever it still holds. Call it before reading what is there.

    Returns:
        The next free number of each table.
    """
    numbers = {}
    for name in TABLES:
        footer = {"schema_version": SCHEMA_VERSION, "complete": False, "ranges": [], "hub": hub, "commit": -1}
        schema = SCHEMAS[name].with_metadata({FOOTER: json.dumps(footer).encode()})
        data = encoded(schema.empty_table())
        number = next_number(storage, name, shard)
        while True:
            try:
                storage.create(file_name(name, shard, number), data)
                break
            except AlreadyExists:
                number += 1
        numbers[name] = number + 1
    return numbers
