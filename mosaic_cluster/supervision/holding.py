"""Why a worker stands still, and when it must: its log runs ahead of storage, or its disk is nearly full."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mosaic_cluster.supervision.order import Room
from mosaic_cluster.units import format_bytes

PAUSE, BACKLOG, DISK = "pause", "backlog", "disk"
DISK_SECONDS = 1.0
NEARLY = 4
"""A disk with less than so many times the reserve is looked at each time."""


@dataclass
class Holds:
    """The reasons for which a worker stands still: it runs only while there is none.

    Attributes:
        reasons: a sentence for each.
        seconds: how long it stood still for want of room, pauses that a person asked for left out.
    """

    clock: Callable[[], float] = time.monotonic
    reasons: dict[str, str] = field(default_factory=dict)
    _before: float = 0.0
    _since: float | None = None

    def __contains__(self, what: str) -> bool:
        return what in self.reasons

    def __bool__(self) -> bool:
        return bool(self.reasons)

    @property
    def seconds(self) -> float:
        """See the class."""
        return self._before + (self.clock() - self._since if self._since is not None else 0.0)

    @property
    def sentence(self) -> str | None:
        """Why it stands still for want of room; ``None`` if it does not."""
        return self.reasons.get(DISK) or self.reasons.get(BACKLOG)

    def add(self, what: str, why: str) -> bool:
        """Take a reason; returns whether it must stand still from now on, and did not before."""
        first = not self.reasons
        self.reasons[what] = why
        self._account()
        return first

    def remove(self, what: str) -> bool:
        """Drop a reason; returns whether it may go on now."""
        last = self.reasons.pop(what, None) is not None and not self.reasons
        self._account()
        return last

    def _account(self) -> None:
        slowed = self.sentence is not None and PAUSE not in self.reasons
        if slowed and self._since is None:
            self._since = self.clock()
        elif not slowed and self._since is not None:
            self._before, self._since = self.seconds, None


class Want:
    """Looks at a worker's room.

    Args:
        folder: where its logs are.
        room: what it may take.
        clock: monotonic seconds.

    Attributes:
        committed: bytes of its log that are in storage, as far as we were told.
    """

    def __init__(self, folder: Path, room: Room, clock: Callable[[], float] = time.monotonic) -> None:
        self.committed = 0
        self._folder = folder
        self._room = room
        self._clock = clock
        self._free: int | None = None
        self._looked_at = -DISK_SECONDS

    def backlog(self, size: int, held: bool) -> str | None:
        """Why it must stand still for what waits for storage.

        Args:
            size: of its log.
            held: whether it does: then it goes on only at half the limit.
        """
        limit = self._room.backlog
        waiting = size - self.committed
        if limit is None or waiting <= (limit // 2 if held else limit):
            return None
        return f"stands still: {format_bytes(waiting)} of telemetry wait for storage"

    def disk(self, held: bool) -> str | None:
        """Why it must stand still for what the disk has left; ``held`` as above, with a quarter to spare."""
        reserve = self._room.disk_reserve
        if not reserve:
            return None
        now = self._clock()
        near = self._free is None or self._free < NEARLY * reserve
        if near or now - self._looked_at >= DISK_SECONDS:
            self._looked_at = now
            try:
                found = os.statvfs(self._folder)
            except OSError:
                return None
            self._free = found.f_bavail * found.f_frsize
        assert self._free is not None
        if self._free >= (reserve + reserve // 4 if held else reserve):
            return None
        return (
            f"stands still: {self._folder} has {format_bytes(self._free)} left, "
            f"telemetry.disk_reserve is {format_bytes(reserve)}"
        )
