"""Requests that are placed all together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mosaic_cluster.placement.answers import Placement
from mosaic_cluster.placement.planner import NOBODY, Planner
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import Demand, Room

Seat = Callable[[Request, frozenset[str]], Placement | None]


def place_gang(planner: Planner, members: Sequence[Request], barred: frozenset[str]) -> list[Placement] | None:
    """Places for all members, in their order; ``None``, with nothing taken, where not all have room.

    Members that keep together fill the node that holds most of them, then the next; members that keep apart go to
    different nodes as long as there are any. Where that leaves one without a place, each goes where it fits
    tightest. Members that ask for the same are all placed whenever that is possible at all.
    """
    order = sorted(range(len(members)), key=lambda place: (*(-size for size in Demand(members[place]).size), place))
    ordered = [members[place] for place in order]
    ways = [_apart] if ordered[0].spread else [_together, _one_by_one]
    for way in ways:
        placed = way(planner, ordered, barred)
        if len(placed) == len(members):
            return [placement for _, placement in sorted(zip(order, placed, strict=True), key=lambda pair: pair[0])]
        for placement in placed:
            planner.release(placement)
    return None


def seat_each(seat: Seat, members: Sequence[Request], barred: frozenset[str]) -> list[Placement]:
    """Seat members one by one, up to the first that has no room; apart where they ask for it."""
    placed: list[Placement] = []
    used: frozenset[str] = NOBODY
    for member in members:
        place = seat(member, barred | used) if member.spread and used else None
        place = place or seat(member, barred)
        if place is None:
            break
        placed.append(place)
        used |= {place.node_id}
    return placed


def _apart(planner: Planner, members: Sequence[Request], barred: frozenset[str]) -> list[Placement]:
    return seat_each(planner.seat, members, barred)


_one_by_one = _apart


def _together(planner: Planner, members: Sequence[Request], barred: frozenset[str]) -> list[Placement]:
    left = list(range(len(members)))
    found: dict[int, Placement] = {}
    while left:
        room, held = _fullest(planner, [members[place] for place in left], barred)
        if room is None:
            break
        for place in [left[number] for number in held]:
            placement = planner.seat_on(members[place], room.node.node_id)
            assert placement is not None
            found[place] = placement
            left.remove(place)
    return [found[place] for place in sorted(found)]


def _fullest(
    planner: Planner, members: Sequence[Request], barred: frozenset[str]
) -> tuple[Room | None, tuple[int, ...]]:
    """The node that holds most of them, and which; of equals the tightest."""
    demands = [Demand(member) for member in members]
    plain = not any(demand.labels or demand.avoid for demand in demands)
    seen: set[Any] = set()
    best: tuple[Any, Room, tuple[int, ...]] | None = None
    for room in sorted(planner.usable(), key=lambda room: room.key):
        state = (room.make, room.cpus, room.memory, room.slots, tuple(room.gpus), room.key[0])
        if room.node.node_id in barred or (plain and state in seen):
            continue
        seen.add(state)
        trial, held = room.copy(), []
        for number, (member, demand) in enumerate(zip(members, demands, strict=True)):
            steps = demand.steps_on(room.make)
            places = trial.choose(demand, steps)
            if steps is not None and places is not None and (plain or planner.permits(member, room)):
                trial.take(demand, steps, places)
                held.append(number)
        rank = (-len(held), trial.make.count > 0, trial.make.least or 0, trial.whole, trial.cpus, trial.key)
        if held and (best is None or rank < best[0]):
            best = (rank, room, tuple(held))
    return (None, ()) if best is None else (best[1], best[2])
