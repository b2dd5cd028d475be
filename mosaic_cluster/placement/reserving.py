"""Room kept free for what waits at the head of the queue, so that small runs behind it do not starve it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mosaic_cluster.placement.answers import Placement
from mosaic_cluster.placement.planner import Planner
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import Demand, Room
from mosaic_cluster.placement.turns import Unit


@dataclass(frozen=True)
class Ending:
    """A placement that will end.

    Attributes:
        until: unix time in seconds; infinite: nobody knows.
    """

    until: float
    placement: Placement


@dataclass(frozen=True)
class Reservation:
    """Nodes kept for a unit.

    Attributes:
        until: unix time at which it can start, in seconds; infinite: nobody knows.
        later: by node id, what will be free then beside the unit itself.
    """

    unit: Unit
    until: float
    later: dict[str, Room]

    def lets(self, request: Request, now: float) -> bool:
        """Whether the request will have ended before the unit can start."""
        return request.duration is not None and now + request.duration <= self.until < math.inf

    def spares(self, request: Request, room: Room) -> bool:
        """Whether the unit still has room at its time if the request takes its place now and keeps it."""
        demand, later = Demand(request), self.later[room.node.node_id]
        steps = demand.steps_on(room.make)
        places = room.choose(demand, steps)
        if steps is None or places is None or demand.cpus > later.cpus or demand.memory > later.memory:
            return False
        return demand.agents <= later.slots and all(later.gpus[place] >= steps for place in places)

    def give(self, request: Request, room: Room) -> None:
        """Let it have what :meth:`spares` found."""
        demand = Demand(request)
        steps = demand.steps_on(room.make)
        places = room.choose(demand, steps)
        assert steps is not None
        assert places is not None
        self.later[room.node.node_id].take(demand, steps, places)


def reserve(
    planner: Planner, unit: Unit, endings: Sequence[Ending], place: Callable[[], list[Placement] | None]
) -> Reservation | None:
    """Find the nodes where ``unit`` will fit soonest: runs are thought away in the order in which they end, those of
    which nobody knows at last, from the nodes that are least held first, until it has a place.

    Args:
        endings: what may be thought away.
        place: places the unit, or answers ``None``.

    Returns:
        ``None``: it would not fit even then. The planner is as it was.
    """
    order = _in_order(planner, endings)
    before = {ending.placement.node_id: planner.room(ending.placement.node_id).copy() for ending in order}

    def after(count: int) -> list[Placement] | None:
        for room in before.values():
            planner.restore(room)
        for ending in order[:count]:
            planner.release(ending.placement)
        return place()

    enough = _fewest(len(order), lambda count: _undone(planner, after(count)))
    found = None if enough is None else after(enough)
    later = {placement.node_id: planner.room(placement.node_id).copy() for placement in found or ()}
    for placement in found or ():
        planner.release(placement)
    for room in before.values():
        planner.restore(room)
    if found is None or enough is None:
        return None
    return Reservation(unit, order[enough - 1].until if enough else -math.inf, later)


def _in_order(planner: Planner, endings: Sequence[Ending]) -> list[Ending]:
    held: dict[str, float] = {}
    for ending in endings:
        if ending.until == math.inf:
            placement = ending.placement
            room = planner.room(placement.node_id)
            part = max(placement.cpus / (room.node.cpus or 1), placement.gpus / (room.make.count or 1))
            held[placement.node_id] = held.get(placement.node_id, 0.0) + part
    return sorted(
        endings,
        key=lambda ending: (
            ending.until,
            held.get(ending.placement.node_id, 0.0) if ending.until == math.inf else 0.0,
            ending.placement.node_id,
            ending.placement.run_id,
        ),
    )


def _undone(planner: Planner, placed: list[Placement] | None) -> bool:
    for placement in placed or ():
        planner.release(placement)
    return placed is not None


def _fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """The least number up to ``most`` that is enough; more is never less enough."""
    low, high = 0, 1
    while not enough(min(high, most)):
        if high >= most:
            return None
        low, high = high, high * 2
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
