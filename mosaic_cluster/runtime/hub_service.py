"""The telemetry hub as a running service: a lock and a clock round the pure core."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Ack, Batch, HubCore
from mosaic_cluster.worker.errors import Fenced

TICK_SECONDS = 0.05


class HubService:
    """Takes batches from many threads and commits when they are due.

    Args:
        telemetry: storage at ``<experiment>/telemetry``.
        on_fenced: called once when another hub has taken over; must not return to normal work.
    """

    def __init__(self, telemetry: Storage, on_fenced: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._on_fenced = on_fenced
        self._core = HubCore(telemetry)
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="hub-ticker", daemon=True)
        self._ticker.start()

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
        """Rows, bytes, commits and files so far."""
        with self._lock:
            return self._core.stats()

    def close(self) -> None:
        """Commit what is there and stop."""
        self._closed.set()
        self._ticker.join()
        with self._lock:
            self._core.commit()

    def _tick(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            try:
                with self._lock:
                    self._core.tick()
            except Fenced:
                self._on_fenced()
                return
            except Exception:  # a hub that stopped committing for a defect would fill up without a word
                logging.getLogger(__name__).exception("a commit failed; it is tried again")
