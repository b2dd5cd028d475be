"""What an experiment decided, in order: the record that a resume replays.

Entry n is ``journal/<n>.json``, created only if absent. Two drivers of one experiment therefore cannot
both go on: the one whose next number is taken is fenced.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import AlreadyExists, Fenced

FOLDER = "journal"


class Journal:
    """Appends to, and reads, an experiment's journal.

    Args:
        storage: storage at the experiment's folder.
        clock: unix time in seconds.
    """

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._next = len(self._names()) + 1

    def append(self, kind: str, **data: Any) -> None:
        """Write the next entry, before what it says is done.

        Raises:
            Fenced: another driver has written that entry.
        """
        entry = {"entry": self._next, "type": kind, "at": self._clock(), **data}
        try:
            self._storage.create_json(f"{FOLDER}/{self._next:08d}.json", entry)
        except AlreadyExists as error:
            raise Fenced(
                f"another driver has taken over the experiment at {self._storage.location}: "
                "this one stops and leaves it alone"
            ) from error
        self._next += 1

    def entries(self) -> list[dict[str, Any]]:
        """Every entry, oldest first."""
        return [self._storage.get_json(name) for name in self._names()]

    def _names(self) -> list[str]:
        return self._storage.list(FOLDER)
