"""The hub's core: takes batches of rows, hands them over in commits, and acknowledges what is committed.

Pure but for the storage: no thread, and the clock is passed in. What takes long, writing a commit, needs nothing
of the core: whoever runs it may go on appending meanwhile (:meth:`HubCore.begin`, :meth:`CommitWriter.write`,
:meth:`HubCore.end`).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.commits import Commit, CommitWriter, Range, Rows, Written, claim
from mosaic_cluster.telemetry.files import data_files, next_number, read_footer
from mosaic_cluster.telemetry.live import LiveValues, read_live
from mosaic_cluster.telemetry.schema import TABLES, check_table
from mosaic_cluster.worker.errors import AlreadyExists, Fenced, StorageError

HUBS = "hubs"
"""Folder with one small record for each hub there ever was."""

HUB_MEMORY = 512_000_000
COMMIT_SHARE, REFUSE_SHARE = 16, 4
"""A commit begins when one part in so many of the memory waits, and nothing more is taken at one in so many. The
rest is what a process of Ray takes anyway, and what sorting and writing a commit take on top."""

FIRST_ROLL, LAST_ROLL, ROLL_SHARE = 2.0, 600.0, 0.05
"""A commit at least this often, in seconds: 5 % of the hub's age, within bounds. A young experiment is seen at
once, and a day of an old one leaves hundreds of files, not thousands."""

FIRST_FLUSH, LAST_FLUSH, FLUSH_SHARE = 0.25, 5.0, 0.0005
"""How long a wish for a commit waits for others, in seconds: a share of the hub's age, within bounds."""

READERS = 16
"""Footers read at once by a hub that begins: of an object store, each is a request."""

RETRY_SECONDS = 2.0
SUCCESSOR_SECONDS = 5.0

Key = tuple[str, int]


@dataclass(frozen=True)
class Batch:
    """Rows of consecutive lines of one log.

    Attributes:
        first: byte offset of the first line; last: byte after the last one.
        tables: rows by table name.
        last_step: what the parser knew at ``last``, for whoever goes on from there; last_ts: likewise.
        metrics: latest step and value of every metric in these lines.
        events: telemetry lines among them.
        unread: bytes of the log beyond ``last``.
    """

    run_id: str
    attempt: int
    first: int
    last: int
    tables: Mapping[str, pa.RecordBatch]
    last_step: int | None = None
    last_ts: int | None = None
    metrics: Mapping[str, tuple[int | None, float]] = field(default_factory=dict)
    events: int = 0
    unread: int = 0


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
    unread: int = 0
    written: dict[str, int] = field(default_factory=dict)

    def ack(self) -> Ack:
        return Ack(self.accepted, self.committed, self.last_step, self.last_ts)


class HubCore:
    """See the module. Not thread-safe: its service holds a lock.

    Args:
        storage: the experiment's ``telemetry`` folder.
        clock: monotonic seconds.
        shard: which of the experiment's hubs this is.
        memory: bytes that the hub's process may take; see :data:`COMMIT_SHARE`.

    Raises:
        StorageError: the files there cannot be read, or were written by a newer version.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float] = time.monotonic,
        *,
        shard: int = 0,
        memory: int = HUB_MEMORY,
    ) -> None:
        self.shard = shard
        self.live = LiveValues()
        self._storage = storage
        self._clock = clock
        self._commit_bytes, self._refuse_bytes = memory // COMMIT_SHARE, memory // REFUSE_SHARE
        self._logs: dict[Key, _Log] = {}
        self._open: set[Key] = set()
        self._pending: dict[str, Rows] = {}
        self._commit: Commit | None = None
        self._commits = 0
        self._began = self._committed_at = self._looked_at = clock()
        self._commit_began = 0.0
        self._flush_at: float | None = None
        self._retry_at = 0.0
        self._totals = {"rows": 0, "bytes": 0, "commits": 0, "files": 0, "events": 0}
        self._commit_seconds = 0.0
        self._error: str | None = None
        hub, self._number = self._register()
        # Files without a record of their hub are from before there were such records.
        first = self._number == 0 and not any(next_number(storage, name, shard) for name in TABLES)
        numbers = dict.fromkeys(TABLES, 0) if first else claim(storage, shard, hub)
        self.writer = CommitWriter(storage, shard, hub, numbers)
        self._recover()
        self.live.runs.update(read_live(storage, shard))

    def append(self, batch: Batch) -> Ack:
        """Take a batch, or leave it: the acknowledgement says from where to go on.

        A batch that does not begin where the last one ended is not taken, nor is any while too much waits for
        a storage that does not answer.

        Raises:
            StorageError: its columns are not those of this version.
        """
        for name, rows in batch.tables.items():
            check_table(name, rows)
        key = (batch.run_id, batch.attempt)
        log = self._log(*key)
        if batch.first != log.accepted or batch.last <= batch.first or self._full():
            return log.ack()
        for name, rows in batch.tables.items():
            new = _after(rows, log.written.get(name, 0))
            if new.num_rows:
                self._pending.setdefault(name, Rows()).add(batch.run_id, batch.attempt, batch.first, new)
        log.accepted, log.last_step, log.last_ts = batch.last, batch.last_step, batch.last_ts
        log.unread = batch.unread
        self._open.add(key)
        self._totals["events"] += batch.events
        self.live.take(batch.run_id, batch.attempt, batch.last_step, batch.last_ts, batch.metrics, batch.events)
        return log.ack()

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon, unless ``upto`` is committed already. Several such wishes become one commit."""
        if self._log(run_id, attempt).committed < upto and self._flush_at is None:
            now = self._clock()
            self._flush_at = now + min(LAST_FLUSH, max(FIRST_FLUSH, FLUSH_SHARE * (now - self._began)))

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What is there of one attempt's log."""
        return self._log(run_id, attempt).ack()

    def begin(self, *, at_once: bool = False) -> Commit | None:
        """What is to be written now, if anything is: for :attr:`writer`, and then :meth:`end`.

        Args:
            at_once: whether it is time or not.
        """
        now = self._clock()
        if not at_once and (now < self._retry_at or not self._due(now)):
            return None
        self._flush_at = None
        self._committed_at = self._commit_began = now
        if self._commit is None:
            self._commit = self._freeze()
        return self._commit

    def end(self, commit: Commit, written: list[Written]) -> None:
        """A commit is in storage."""
        self._note(commit)
        for each in commit.ranges:
            log = self._log(each.run_id, each.attempt)
            log.committed = each.last
            if commit.written:
                log.recorded = each.last
            if log.accepted == log.committed:
                self._open.discard((each.run_id, each.attempt))
        self._commit_seconds = self._clock() - self._commit_began
        self._totals["commits"] += bool(commit.written)
        self._totals["files"] += len(commit.written)
        self._totals["rows"] += sum(each.rows for each in written)
        self._totals["bytes"] += sum(each.size for each in written)
        self._error = None
        self._commit = None

    def failed(self, commit: Commit, error: Exception) -> None:
        """Storage did not take it: it is tried again later, and nothing is dropped."""
        self._note(commit)
        self._error = str(error)
        self._retry_at = self._clock() + RETRY_SECONDS

    def tick(self, *, at_once: bool = False) -> None:
        """Commit if it is time to, or ``at_once``.

        Raises:
            Fenced: another hub has taken over; this one must not go on.
        """
        self.check_successor()
        commit = self.begin(at_once=at_once)
        if commit is None:
            return
        try:
            written = self.writer.write(commit)
        except Fenced:
            raise
        except (StorageError, OSError, pa.ArrowException) as error:
            self.failed(commit, error)
            return
        self.end(commit, written)

    def commit(self) -> None:
        """Write all that waits."""
        self.tick(at_once=True)

    def check_successor(self) -> None:
        """Now and then, look whether another hub has begun. One with nothing to write would never know.

        Raises:
            Fenced: so it is.
        """
        now = self._clock()
        if now - self._looked_at < SUCCESSOR_SECONDS:
            return
        self._looked_at = now
        try:
            there = self._storage.exists(_record_name(self.shard, self._number + 1))
        except (StorageError, OSError):
            return
        if there:
            raise Fenced(f"another hub has taken over shard {self.shard} of {self._storage.location}")

    def stats(self) -> dict[str, Any]:
        """Events, rows, bytes, commits and files so far; what waits, and why it does if storage fails.

        ``unread``: bytes of logs that were there but not sent when last heard; ``commit_seconds``: how long the
        last commit took; ``oldest``: seconds since the last commit began, 0 if nothing waits.
        """
        waits = bool(self._open)
        return {
            **self._totals,
            "shard": self.shard,
            "pending_bytes": self._waiting(),
            "unread": sum(log.unread for log in self._logs.values()),
            "logs": len(self._logs),
            "commit_seconds": round(self._commit_seconds, 6),
            "oldest": round(self._clock() - self._committed_at, 3) if waits else 0.0,
            "error": self._error,
        }

    def _log(self, run_id: str, attempt: int) -> _Log:
        return self._logs.setdefault((run_id, attempt), _Log())

    def _waiting(self) -> int:
        return sum(rows.nbytes for rows in self._pending.values()) + (self._commit.size if self._commit else 0)

    def _full(self) -> bool:
        return self._waiting() > self._refuse_bytes

    def _due(self, now: float) -> bool:
        if self._commit is not None or (self._flush_at is not None and now >= self._flush_at):
            return True
        if sum(rows.nbytes for rows in self._pending.values()) > self._commit_bytes:
            return True
        if not self._open:
            return False
        interval = min(LAST_ROLL, max(FIRST_ROLL, ROLL_SHARE * (now - self._began)))
        return now - self._committed_at >= interval

    def _freeze(self) -> Commit:
        ranges = [
            Range(*key, log.recorded, log.accepted, log.last_step, log.last_ts)
            for key, log in sorted((key, self._logs[key]) for key in self._open)
            if log.accepted > log.recorded
        ]
        self._commits += 1
        frozen = Commit(self._pending, ranges, sum(rows.nbytes for rows in self._pending.values()), self._commits)
        self._pending = {}
        return frozen

    def _note(self, commit: Commit) -> None:
        """Remember which tables have their rows, should the rest fail."""
        for each in commit.ranges:
            log = self._log(each.run_id, each.attempt)
            for name in commit.written:
                # Not back: a predecessor that died in the middle of a commit may have left more of this table.
                log.written[name] = max(log.written.get(name, 0), each.last)

    def _register(self) -> tuple[str, int]:
        """Leave a record that this hub began: its name, and how many there were before it."""
        hub = secrets.token_hex(8)
        record = {"hub": hub, "host": socket.gethostname(), "pid": os.getpid(), "started_at": time.time()}
        number = len(self._storage.list(f"{HUBS}/{self.shard}"))
        while True:
            try:
                self._storage.create_json(_record_name(self.shard, number), record)
            except AlreadyExists:
                number += 1
            else:
                return hub, number

    def _recover(self) -> None:
        """Learn from the footers what is there."""
        complete: dict[Key, list[Range]] = {}
        for name in TABLES:
            targets = list(data_files(self._storage, name, self.shard))
            with ThreadPoolExecutor(READERS) as readers:
                footers = list(readers.map(lambda target: read_footer(self._storage, target), targets))
            for footer in footers:
                for values in footer["ranges"]:
                    found = Range(*values)
                    log = self._log(found.run_id, found.attempt)
                    log.written[name] = max(log.written.get(name, 0), found.last)
                    if footer["complete"]:
                        complete.setdefault((found.run_id, found.attempt), []).append(found)
        for key, ranges in complete.items():
            self._resume(self._logs[key], ranges)

    def _resume(self, log: _Log, ranges: list[Range]) -> None:
        for each in sorted(ranges, key=lambda item: item.first):
            if each.first <= log.committed < each.last:
                log.accepted = log.committed = log.recorded = each.last
                log.last_step, log.last_ts = each.last_step, each.last_ts


def _record_name(shard: int, number: int) -> str:
    return f"{HUBS}/{shard}/{number:06d}.json"


def _after(rows: pa.RecordBatch, offset: int) -> pa.RecordBatch:
    """Rows of lines at or beyond ``offset``."""
    if offset == 0 or rows.num_rows == 0 or rows.column("offset")[0].as_py() >= offset:
        return rows
    return rows.filter(pc.greater_equal(rows.column("offset"), offset))
