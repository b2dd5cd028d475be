"""Few requests, tried in every way: best fit sometimes leaves one out that another arrangement would hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mosaic_cluster.placement.answers import Placement
from mosaic_cluster.placement.planner import Planner
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import STEPS, Demand, Room

# Up to so many requests, and so many places tried, it is worth the time.
MOST = 10
TRIES = 3000


def rearranged(
    planner: Planner, requests: Sequence[Request], placed: Mapping[int, Placement], request: Request
) -> tuple[Placement, dict[int, Placement]] | None:
    """Room for ``request`` by giving the requests that this plan placed other places.

    Args:
        requests: all that were asked; ``placed`` has places of theirs.

    Returns:
        The place of ``request``, and new places of the others; ``None``: there is no such arrangement, or there are
        too many to try. Then nothing has changed.
    """
    if len(placed) >= MOST:
        return None
    movable = {place: mine for place, mine in placed.items() if not requests[place].gang}
    if not movable or not planner.could_hold(request):
        return None
    names = [*movable, -1]
    wanted = [_as_placed(requests[place], movable[place]) for place in movable] + [request]
    for old in movable.values():
        planner.release(old)
    order = sorted(range(len(wanted)), key=lambda number: (*(-size for size in Demand(wanted[number]).size), number))
    found = _Search(planner, [wanted[number] for number in order]).found()
    if found is None:
        for old in movable.values():
            planner.hold(old)
        return None
    seated: dict[int, Placement] = {}
    # In the order in which they start, since Ray gives each the GPU that is right at that moment.
    node_of = dict(zip(order, found, strict=True))
    for number, name in enumerate(names):
        placement = planner.seat_on(wanted[number], node_of[number])
        if placement is None:
            for other in seated.values():
                planner.release(other)
            for old in movable.values():
                planner.hold(old)
            return None
        seated[name] = placement
    mine = seated.pop(-1)
    return mine, {place: _told(new, movable[place]) for place, new in seated.items()}


def _as_placed(request: Request, placement: Placement) -> Request:
    return request if placement.gpus or not request.gpus else request.without_gpus()


def _told(new: Placement, old: Placement) -> Placement:
    return new if new.node_id != old.node_id or new.gpu_indices != old.gpu_indices else old


class _Search:
    """Depth first over nodes, the largest request first; nodes with the same left free are tried once."""

    def __init__(self, planner: Planner, wanted: Sequence[Request]) -> None:
        self._planner = planner
        self._wanted = wanted
        self._demands = [Demand(request) for request in wanted]
        self._rooms = [room.copy() for room in sorted(planner.usable(), key=lambda room: room.key)]
        self._plain = not any(demand.labels or demand.avoid for demand in self._demands)
        self._tries = 0

    def found(self) -> list[str] | None:
        """Ids of the nodes."""
        totals = sum(room.cpus for room in self._rooms), sum(room.memory for room in self._rooms)
        asked = sum(demand.cpus for demand in self._demands), sum(demand.memory for demand in self._demands)
        free = sum(sum(room.gpus) for room in self._rooms)
        gpus = sum(STEPS * demand.gpus for demand in self._demands if not demand.shared)
        if asked[0] > totals[0] or asked[1] > totals[1] or gpus > free:
            return None
        return self._place(0)

    def _place(self, number: int) -> list[str] | None:
        if number == len(self._wanted):
            return []
        demand, seen = self._demands[number], set()
        choices: list[tuple[Any, Room, int, tuple[int, ...]]] = []
        for room in self._rooms:
            steps = demand.steps_on(room.make)
            places = room.choose(demand, steps)
            state = (room.make, room.cpus, room.memory, room.slots, tuple(sorted(room.gpus)))
            if steps is None or places is None or (self._plain and state in seen):
                continue
            if self._plain or self._planner.permits(self._wanted[number], room):
                seen.add(state)
                choices.append((self._rank(demand, room, steps, places), room, steps, places))
        for _, room, steps, places in sorted(choices, key=lambda choice: choice[0]):
            self._tries += 1
            if self._tries > TRIES:
                return None
            before = room.copy()
            room.take(demand, steps, places)
            rest = self._place(number + 1)
            room.become(before)
            if rest is not None:
                return [room.node.node_id, *rest]
        return None

    @staticmethod
    def _rank(demand: Demand, room: Room, steps: int, places: tuple[int, ...]) -> Any:
        left = (room.gpus[places[0]] - steps) * (room.make.least or 0) if demand.shared else 0
        return (demand.guesses(room.make), left, room.make.count > 0, room.whole, room.cpus, room.key)
