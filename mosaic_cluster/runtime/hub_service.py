"""The telemetry hub as a running service: a lock and a clock round the pure core, and one hub or several."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import HUB_MEMORY, Ack, Batch, HubClient, HubCore, live_name
from mosaic_cluster.worker.errors import Fenced, StorageError

TICK_SECONDS = 0.05
LIVE_SECONDS, REMOTE_LIVE_SECONDS = 0.25, 2.0
"""Where each write is a paid request, a value is seen a little later."""

LIVE_SHARE = 0.05
"""Publishing the latest values takes no more than this share of the time."""


class HubService:
    """Takes batches from many threads and commits when they are due. Batches are taken during a commit, too.

    Args:
        telemetry: storage at ``<experiment>/telemetry``.
        on_fenced: called once when another hub has taken over; must not return to normal work.
        shard: which of the experiment's hubs this is.
        memory: bytes that the process may take for events on their way.
        on_tick: called about once a second with :meth:`stats`.
    """

    def __init__(
        self,
        telemetry: Storage,
        on_fenced: Callable[[], None],
        *,
        shard: int = 0,
        memory: int = HUB_MEMORY,
        on_tick: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._on_fenced = on_fenced
        self._on_tick = on_tick
        self._core = HubCore(telemetry, shard=shard, memory=memory)
        self._publish_at = self._report_at = 0.0
        self._closed = threading.Event()
        self._committer = threading.Thread(target=self._commit_when_due, name="hub-committer", daemon=True)
        self._publisher = threading.Thread(target=self._publish_and_report, name="hub-publisher", daemon=True)
        self._committer.start()
        self._publisher.start()

    def append(self, batch: Batch) -> Ack:
        """Take a batch; see :meth:`HubCore.append`."""
        with self._lock:
            return self._core.append(batch)

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon; returns at once."""
        with self._lock:
            self._core.flush(run_id, attempt, upto)

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What the hub has of one attempt's log."""
        with self._lock:
            return self._core.watermark(run_id, attempt)

    def stats(self) -> dict[str, Any]:
        """See :meth:`HubCore.stats`."""
        with self._lock:
            return self._core.stats()

    def close(self) -> None:
        """Commit what is there and stop."""
        self._closed.set()
        self._committer.join()
        self._publisher.join()
        try:
            self._commit(at_once=True)
        except Fenced:
            self._on_fenced()
        self._publish()

    def _commit_when_due(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            try:
                self._core.check_successor()
                self._commit()
            except Fenced:
                self._on_fenced()
                return
            except Exception:  # a hub that stopped committing for a defect would fill up without a word
                logging.getLogger(__name__).exception("a commit failed; it is tried again")

    def _commit(self, *, at_once: bool = False) -> None:
        with self._lock:
            commit = self._core.begin(at_once=at_once)
        if commit is None:
            return
        try:
            written = self._core.writer.write(commit)
        except Fenced:
            raise
        except Exception as error:
            with self._lock:
                self._core.failed(commit, error)
            if not isinstance(error, StorageError | OSError):
                raise
            return
        with self._lock:
            self._core.end(commit, written)

    def _publish_and_report(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            try:
                self._look_out(time.monotonic())
            except Exception:  # a hub does not stop being seen for a defect either
                logging.getLogger(__name__).exception("the latest values were not published")

    def _look_out(self, now: float) -> None:
        if now >= self._publish_at:
            self._publish()
        if self._on_tick is not None and now >= self._report_at:
            self._report_at = now + 1.0
            self._on_tick(self.stats())

    def _publish(self) -> None:
        """Let others see the latest values, as often as that is cheap."""
        if not self._core.live.changed:
            return
        begun = time.monotonic()
        with self._lock:
            document = self._core.live.document(time.time())
        try:
            self._telemetry.put(live_name(self._core.shard), document)
        except (StorageError, OSError):  # commits tell what is wrong with the storage
            self._core.live.changed = True
        took = time.monotonic() - begun
        often = LIVE_SECONDS if self._telemetry.is_local else REMOTE_LIVE_SECONDS
        self._publish_at = begun + max(often, took / LIVE_SHARE)


def shard_of(run_id: str, shards: int) -> int:
    """Which of several hubs has a run: the same wherever and whenever it is asked."""
    return zlib.crc32(run_id.encode()) % shards


class ShardedHub:
    """Several hubs that look like one. Each run has one of them."""

    def __init__(self, hubs: Sequence[HubClient]) -> None:
        self.hubs = hubs

    def of(self, run_id: str) -> HubClient:
        """The hub of a run."""
        return self.hubs[shard_of(run_id, len(self.hubs))]

    def append(self, batch: Batch) -> Ack:
        """Take a batch."""
        return self.of(batch.run_id).append(batch)

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon."""
        self.of(run_id).flush(run_id, attempt, upto)

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What the hub has of one attempt's log."""
        return self.of(run_id).watermark(run_id, attempt)

    def close(self) -> None:
        """Close those that are services."""
        for hub in self.hubs:
            if isinstance(hub, HubService):
                hub.close()
