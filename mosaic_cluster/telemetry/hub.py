"""The hub's core: takes batches of rows, writes them as numbered Parquet files, then acknowledges.

A *commit* writes one file for each table that has rows. Every file's footer says which byte ranges of which logs
its rows come from; the last file of a commit is marked complete. So a hub that died between two files of a
commit is no harm: its successor reads the footers, and filters what is sent again table by table.

Pure but for the storage: no thread, and the clock is passed in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.files import FOOTER, SHARD, file_number, read_footer
from mosaic_cluster.telemetry.schema import SCHEMA_VERSION, SCHEMAS, TABLES, check_table
from mosaic_cluster.worker.errors import AlreadyExists, Fenced, StorageError

FIRST_ROLL, LAST_ROLL, ROLL_SHARE = 2.0, 120.0, 0.05
"""A commit at least this often, in seconds: 5 % of the hub's age, within bounds. A young experiment is seen at
once, and one that runs for days leaves thousands of files, not millions."""

COMMIT_BYTES = 32 << 20
REFUSE_BYTES = 4 * COMMIT_BYTES
FLUSH_SECONDS = 0.25
RETRY_SECONDS = 2.0

Key = tuple[str, int]


@dataclass(frozen=True)
class Batch:
    """Rows of consecutive lines of one log.

    Attributes:
        first: byte offset of the first line; last: byte after the last one.
        tables: rows by table name.
        last_step: what the parser knew at ``last``, for whoever goes on from there; last_ts: likewise.
    """

    run_id: str
    attempt: int
    first: int
    last: int
    tables: Mapping[str, pa.RecordBatch]
    last_step: int | None = None
    last_ts: int | None = None


@dataclass(frozen=True)
class Ack:
    """What the hub has of one log.

    Attributes:
        accepted: byte offset up to which lines were taken: where the next batch must begin.
        committed: byte offset up to which their rows are in Parquet.
        last_step: parser state at ``accepted``; last_ts: likewise.
    """

    accepted: int
    committed: int
    last_step: int | None = None
    last_ts: int | None = None


@dataclass
class _Log:
    """State of one attempt's log.

    Attributes:
        recorded: offset up to which a footer accounts for it; lines without rows leave no file.
        written: for each table, the offset up to which its rows are in files.
    """

    accepted: int = 0
    committed: int = 0
    recorded: int = 0
    last_step: int | None = None
    last_ts: int | None = None
    written: dict[str, int] = field(default_factory=dict)

    def ack(self) -> Ack:
        return Ack(self.accepted, self.committed, self.last_step, self.last_ts)


@dataclass(frozen=True)
class _Range:
    run_id: str
    attempt: int
    first: int
    last: int
    last_step: int | None
    last_ts: int | None


@dataclass
class _Commit:
    """What is being written. It outlives a storage that fails for a while."""

    tables: dict[str, list[pa.RecordBatch]]
    ranges: list[_Range]
    size: int


class HubCore:
    """See the module. Not thread-safe: its service holds a lock.

    Args:
        storage: the experiment's ``telemetry`` folder.
        clock: monotonic seconds.

    Raises:
        StorageError: the files there cannot be read, or were written by a newer version.
    """

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._logs: dict[Key, _Log] = {}
        self._next = dict.fromkeys(TABLES, 0)
        self._pending: dict[str, list[pa.RecordBatch]] = {}
        self._pending_bytes = 0
        self._commit: _Commit | None = None
        self._began = self._committed_at = clock()
        self._flush_at: float | None = None
        self._retry_at = 0.0
        self._totals = {"rows": 0, "bytes": 0, "commits": 0, "files": 0}
        self._error: str | None = None
        self._recover()

    def append(self, batch: Batch) -> Ack:
        """Take a batch, or leave it: the acknowledgement says from where to go on.

        A batch that does not begin where the last one ended is not taken, nor is any while too much waits for
        a storage that does not answer.

        Raises:
            StorageError: its columns are not those of this version.
        """
        for name, rows in batch.tables.items():
            check_table(name, rows)
        log = self._log(batch.run_id, batch.attempt)
        if batch.first != log.accepted or batch.last <= batch.first or self._full():
            return log.ack()
        for name, rows in batch.tables.items():
            new = _after(rows, log.written.get(name, 0))
            if new.num_rows:
                self._pending.setdefault(name, []).append(new)
                self._pending_bytes += new.nbytes
        log.accepted, log.last_step, log.last_ts = batch.last, batch.last_step, batch.last_ts
        return log.ack()

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon, unless ``upto`` is committed already. Several such wishes become one commit."""
        if self._log(run_id, attempt).committed < upto and self._flush_at is None:
            self._flush_at = self._clock() + FLUSH_SECONDS

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What is there of one attempt's log."""
        return self._log(run_id, attempt).ack()

    def tick(self) -> None:
        """Commit if it is time to.

        Raises:
            Fenced: another hub has taken over; this one must not go on.
        """
        now = self._clock()
        if now >= self._retry_at and self._due(now):
            self.commit(now)

    def commit(self, now: float | None = None) -> None:
        """Write all that waits. A storage that fails is tried again later; nothing is dropped.

        Raises:
            Fenced: another hub has taken over.
        """
        now = self._clock() if now is None else now
        self._flush_at = None
        self._committed_at = now
        if self._commit is None:
            self._commit = self._freeze()
        try:
            self._write(self._commit)
        except Fenced:
            raise
        except (StorageError, OSError, pa.ArrowException) as error:
            self._error = str(error)
            self._retry_at = now + RETRY_SECONDS
            return
        self._error = None
        self._commit = None

    def stats(self) -> dict[str, Any]:
        """Rows, bytes, commits and files so far, what waits, and why it does if storage fails."""
        return {**self._totals, "pending_bytes": self._waiting(), "logs": len(self._logs), "error": self._error}

    def _log(self, run_id: str, attempt: int) -> _Log:
        return self._logs.setdefault((run_id, attempt), _Log())

    def _waiting(self) -> int:
        return self._pending_bytes + (self._commit.size if self._commit else 0)

    def _full(self) -> bool:
        return self._waiting() > REFUSE_BYTES

    def _due(self, now: float) -> bool:
        if self._flush_at is not None and now >= self._flush_at:
            return True
        if self._pending_bytes > COMMIT_BYTES:
            return True
        if self._commit is None and all(log.accepted == log.committed for log in self._logs.values()):
            return False
        interval = min(LAST_ROLL, max(FIRST_ROLL, ROLL_SHARE * (now - self._began)))
        return now - self._committed_at >= interval

    def _freeze(self) -> _Commit:
        ranges = [
            _Range(run_id, attempt, log.recorded, log.accepted, log.last_step, log.last_ts)
            for (run_id, attempt), log in self._logs.items()
            if log.accepted > log.recorded
        ]
        frozen = _Commit(self._pending, ranges, self._pending_bytes)
        self._pending, self._pending_bytes = {}, 0
        return frozen

    def _write(self, commit: _Commit) -> None:
        any_rows = bool(commit.tables)
        for name in [name for name in TABLES if name in commit.tables]:
            self._write_table(name, commit, complete=len(commit.tables) == 1)
            del commit.tables[name]
            for each in commit.ranges:
                self._log(each.run_id, each.attempt).written[name] = each.last
        for each in commit.ranges:
            log = self._log(each.run_id, each.attempt)
            log.committed = each.last
            if any_rows:
                log.recorded = each.last
        self._totals["commits"] += any_rows

    def _write_table(self, name: str, commit: _Commit, complete: bool) -> None:
        footer = {
            "schema_version": SCHEMA_VERSION,
            "complete": complete,
            "ranges": [list(vars(each).values()) for each in commit.ranges],
        }
        schema = SCHEMAS[name].with_metadata({FOOTER: json.dumps(footer).encode()})
        table = pa.Table.from_batches(commit.tables[name]).unify_dictionaries().cast(schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        number = self._next[name]
        target = f"{name}/{SHARD}-{number:08d}.parquet"
        try:
            self._storage.create(target, data.to_pybytes())
        except AlreadyExists as error:
            raise Fenced(f"{target} exists: another hub writes the telemetry of this experiment") from error
        self._next[name] = number + 1
        self._totals["rows"] += table.num_rows
        self._totals["bytes"] += data.size
        self._totals["files"] += 1

    def _recover(self) -> None:
        """Learn from the footers what is there."""
        complete: dict[Key, list[_Range]] = {}
        for name in TABLES:
            for target in self._storage.list(name):
                number = file_number(target)
                if number is None:
                    continue
                self._next[name] = max(self._next[name], number + 1)
                footer = read_footer(self._storage, target)
                for values in footer["ranges"]:
                    found = _Range(*values)
                    log = self._log(found.run_id, found.attempt)
                    log.written[name] = max(log.written.get(name, 0), found.last)
                    if footer["complete"]:
                        complete.setdefault((found.run_id, found.attempt), []).append(found)
        for key, ranges in complete.items():
            self._resume(self._logs[key], ranges)

    def _resume(self, log: _Log, ranges: list[_Range]) -> None:
        for each in sorted(ranges, key=lambda item: item.first):
            if each.first <= log.committed < each.last:
                log.accepted = log.committed = log.recorded = each.last
                log.last_step, log.last_ts = each.last_step, each.last_ts


def _after(rows: pa.RecordBatch, offset: int) -> pa.RecordBatch:
    """Rows of lines at or beyond ``offset``."""
    if offset == 0 or rows.num_rows == 0 or rows.column("offset")[0].as_py() >= offset:
        return rows
    return rows.filter(pc.greater_equal(rows.column("offset"), offset))
