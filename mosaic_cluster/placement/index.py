"""Which node fits a demand tightest, found without looking at every node.

Nodes whose GPUs are of one make lie in one :class:`Shelf`. There they are parted into tiers by the order of magnitude
of their free CPUs, memory and agent slots, so that nodes which lack much of any of these are never looked at, and
inside of a tier they are sorted by what is free on their GPUs. The number of tiers does not depend on the number of
nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sortedcontainers import SortedList

from mosaic_cluster.placement.rooms import Demand, Make, Room, levels

# Of a tier whose nodes may lack a little, so many are looked at before larger ones are.
PROBES = 24
Allows = Callable[[Room], bool]
Row = tuple[Any, ...]


class _Rows:
    """Rows in buckets, the buckets sorted by their number, the rows of each sorted too."""

    __slots__ = ("buckets", "numbers")

    def __init__(self) -> None:
        self.buckets: dict[int, Any] = {}
        self.numbers: Any = SortedList()

    def add(self, number: int, row: Row) -> None:
        rows = self.buckets.get(number)
        if rows is None:
            rows = self.buckets[number] = SortedList()
            self.numbers.add(number)
        rows.add(row)

    def remove(self, number: int, row: Row) -> None:
        rows = self.buckets[number]
        rows.remove(row)
        if not rows:
            del self.buckets[number]
            self.numbers.remove(number)


class _Tier:
    """Nodes of one tier, by the number of whole GPUs that are free, and by each share that is free on a GPU."""

    __slots__ = ("nodes", "shares")

    def __init__(self) -> None:
        self.nodes = _Rows()
        self.shares = _Rows()


class Shelf:
    """Nodes of one make."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.tiers: dict[tuple[int, int, int], _Tier] = {}
        self.rooms: dict[str, Room] = {}

    def add(self, room: Room) -> None:
        """Sort a node in."""
        self.rooms[room.key] = room
        level = levels(room.cpus, room.memory, room.slots)
        tier = self.tiers.get(level)
        if tier is None:
            tier = self.tiers[level] = _Tier()
        row = (room.cpus, room.memory, room.key, room)
        tier.nodes.add(room.whole, row)
        for share in {*room.gpus}:
            if share:
                tier.shares.add(share, (room.whole, *row))

    def remove(self, room: Room) -> None:
        """Take a node out, as it was sorted in."""
        del self.rooms[room.key]
        level = levels(room.cpus, room.memory, room.slots)
        tier = self.tiers[level]
        row = (room.cpus, room.memory, room.key, room)
        tier.nodes.remove(room.whole, row)
        for share in {*room.gpus}:
            if share:
                tier.shares.remove(share, (room.whole, *row))
        if not tier.nodes.buckets:
            del self.tiers[level]

    def tightest(self, demand: Demand, steps: int, allows: Allows | None) -> tuple[int, Row] | None:
        """The node that is left with least; ``None``: none has room.

        Shares of a GPU go where least of a GPU is left, whole GPUs and runs without any where fewest whole GPUs are
        free; then where least CPUs are, then memory. Of nodes that lack a little of what is needed, :data:`PROBES`
        are passed over in each tier; all are looked at before the answer is no.

        Returns:
            Steps free on the GPU (for a share) or whole GPUs free, and the row: last in it is the room.
        """
        found, cut = self._look(demand, steps, allows, PROBES)
        if found is None and cut:
            found, _ = self._look(demand, steps, allows, len(self.rooms) * (self.make.count + 1))
        return found

    def _look(
        self, demand: Demand, steps: int, allows: Allows | None, probes: int
    ) -> tuple[tuple[int, Row] | None, bool]:
        cpus, memory, agents = demand.levels
        shared = demand.shared and steps > 0
        least = steps if shared else demand.gpus
        best: tuple[int, Row] | None = None
        cut = False
        for level, tier in self.tiers.items():
            if level[0] < cpus or level[1] < memory or level[2] < agents:
                continue
            there = tier.shares if shared else tier.nodes
            left = probes
            for number in there.numbers.irange(least):
                if best is not None and number > best[0]:
                    break
                rows = there.buckets[number]
                row, left = _first(rows, demand, 0 if shared else rows.bisect_left((demand.cpus,)), allows, left)
                if row is not None and (best is None or (number, row) < best):
                    best = (number, row)
                if row is not None or left < 0:
                    cut = cut or left < 0
                    break
        return best, cut


def _first(rows: Any, demand: Demand, place: int, allows: Allows | None, left: int) -> tuple[Row | None, int]:
    """The first row from ``place`` on that has room, and how many more may be passed over; below 0: too many were."""
    end = len(rows)
    while place < end:
        row = rows[place]
        room = row[-1]
        if demand.cpus <= room.cpus and demand.memory <= room.memory and demand.agents <= room.slots:
            if allows is None or allows(room):
                return row, left
        else:
            left -= 1
            if left < 0:
                break
        place += 1
    return None, left
