"""Which node fits a demand tightest, found without looking at every node.

Nodes whose GPUs are of one make lie in one :class:`Shelf`. There they are parted into tiers by the order of magnitude
of their free CPUs, memory and agent slots, so that nodes which lack any of these much are never looked at, and inside
of a tier they are sorted by what is free on their GPUs. The number of tiers does not depend on the number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sortedcontainers import SortedList

from mosaic_cluster.placement.rooms import Demand, Make, Room, levels

# Of a tier whose nodes may lack a little, so many are looked at before larger ones are.
PROBES = 24
Allows = Callable[[Room], bool]


class _Tier:
    """Nodes of one tier, sorted."""

    __slots__ = ("nodes", "shares")

    def __init__(self) -> None:
        # (whole GPUs free, CPUs, memory, key, room): one a node.
        self.nodes: Any = SortedList()
        # (steps free on a GPU, whole GPUs free, CPUs, memory, key, room): one for each such share of a node.
        self.shares: Any = SortedList()


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
        tail = (room.whole, room.cpus, room.memory, room.key, room)
        tier.nodes.add(tail)
        for share in {*room.gpus}:
            if share:
                tier.shares.add((share, *tail))

    def remove(self, room: Room) -> None:
        """Take a node out, as it was sorted in."""
        del self.rooms[room.key]
        level = levels(room.cpus, room.memory, room.slots)
        tier = self.tiers[level]
        tail = (room.whole, room.cpus, room.memory, room.key, room)
        tier.nodes.remove(tail)
        for share in {*room.gpus}:
            if share:
                tier.shares.remove((share, *tail))
        if not tier.nodes:
            del self.tiers[level]

    def tightest(self, demand: Demand, steps: int, allows: Allows | None) -> tuple[Any, ...] | None:
        """The entry of the node that is left with least; ``None``: none has room.

        Shares of a GPU go where least of a GPU is left, whole GPUs and runs without any where fewest whole GPUs are
        free; then where least CPUs are, then memory. Of nodes that lack a little of what is needed, :data:`PROBES`
        are passed over in each tier; all are looked at before the answer is no.
        """
        found, cut = self._look(demand, steps, allows, PROBES)
        if found is None and cut:
            found, _ = self._look(demand, steps, allows, len(self.rooms) * (self.make.count + 1))
        return found

    def _look(
        self, demand: Demand, steps: int, allows: Allows | None, probes: int
    ) -> tuple[tuple[Any, ...] | None, bool]:
        cpus, memory, agents = demand.levels
        shared = demand.shared and steps > 0
        start: tuple[int, ...] = (steps,) if shared else (demand.gpus, demand.cpus)
        best: tuple[Any, ...] | None = None
        cut = False
        for level, tier in self.tiers.items():
            if level[0] < cpus or level[1] < memory or level[2] < agents:
                continue
            rows = tier.shares if shared else tier.nodes
            place, end = rows.bisect_left(start), len(rows)
            left = probes
            while place < end:
                row = rows[place]
                if best is not None and row >= best:
                    break
                room = row[-1]
                if demand.cpus <= room.cpus and demand.memory <= room.memory and demand.agents <= room.slots:
                    if allows is None or allows(room):
                        best = row
                        break
                else:
                    left -= 1
                    if left < 0:
                        cut = True
                        break
                place += 1
        return best, cut
