"""The plan of many requests: whose turn it is, what is kept free for whom, and an answer for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mosaic_cluster.placement import reasons, refusals, waits
from mosaic_cluster.placement.answers import Answer, Infeasible, Placement, Plan, Waiting
from mosaic_cluster.placement.arranging import rearranged
from mosaic_cluster.placement.gangs import place_gang
from mosaic_cluster.placement.launching import Launching
from mosaic_cluster.placement.planner import NOBODY, Planner
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.reserving import Ending, Reservation, reserve
from mosaic_cluster.placement.turns import Shares, Unit, in_turn, units_of
from mosaic_cluster.placement.view import ClusterView

# Of that many priorities, the first that waits may have nodes kept free.
MOST_RESERVED = 8


def plan(requests: Sequence[Request], view: ClusterView, *, patience: float = 60.0) -> Plan:
    """Find a place for each request, or say why there is none.

    The higher priority goes first; of one priority, the experiment that holds least of the cluster for its weight;
    of one experiment, what waits longest; of equals, what was asked first. Members of a gang are placed together or
    not at all. What does not fit is passed over; but the first of each priority that has waited for ``patience`` gets
    the nodes where it will fit soonest kept free: what comes after it may go there only if it will have ended by
    then, or leaves enough room.

    Args:
        requests: what waits.
        view: the cluster, with what runs on it.
        patience: seconds.

    Returns:
        One answer a request, in the order of ``requests``. Nothing is promised twice: no CPU, no memory, no part of a
        GPU, no agent slot.
    """
    return _Queue(requests, view, patience).plan()


class _Queue:
    """One plan in the making."""

    def __init__(self, requests: Sequence[Request], view: ClusterView, patience: float) -> None:
        self.requests = requests
        self.view = view
        self.patience = patience
        self.planner = Planner(view)
        self.shares = Shares(view)
        self.launching = Launching(view.launchable)
        self.placed: dict[int, Placement] = {}
        self.waiting: list[Unit] = []
        self.reservations: list[Reservation] = []
        self._answers: dict[object, tuple[list[str], Waiting | Infeasible]] = {}

    def plan(self) -> Plan:
        units = units_of(self.requests)
        for priority in sorted({unit.first.priority for unit in units}, reverse=True):
            reserved = len(self.reservations) >= MOST_RESERVED
            for unit in in_turn([unit for unit in units if unit.first.priority == priority], self.shares):
                placed = self._try(unit)
                for place, placement in zip(unit.places, placed or (), strict=False):
                    self.placed[place] = placement
                    self.shares.add(unit.first.experiment, placement)
                if placed is not None:
                    continue
                self.waiting.append(unit)
                if not reserved and 0 < unit.since <= self.view.taken_at - self.patience:
                    reserved = self._reserve(unit)
        answers: dict[int, Answer] = dict(self.placed)
        for unit in self.waiting:
            answers.update(zip(unit.places, self._why(unit), strict=True))
        return Plan(tuple(answers[place] for place in range(len(self.requests))), self.view.taken_at)

    def _try(self, unit: Unit) -> list[Placement] | None:
        if unit.gang:
            return place_gang(self.planner, unit.requests, self._barred(unit.requests))
        request = unit.first
        placed = self._seat(request)
        if placed is None and not self.reservations:
            placed = self._rearrange(request)
        if placed is None and request.gpus and not request.gpus_mandatory:
            placed = self._seat(request.without_gpus(), reasons.NO_GPU_NOW)
        return None if placed is None else [placed]

    def _seat(self, request: Request, remark: str = "") -> Placement | None:
        barred = self._barred([request])
        placed = self.planner.seat(request, barred, remark)
        for reservation in self.reservations if placed is None and barred else ():
            for node_id in sorted(reservation.later):
                room = self.planner.room(node_id)
                if node_id in barred and reservation.spares(request, room) and self.planner.permits(request, room):
                    reservation.give(request, room)
                    return self.planner.seat_on(request, node_id)
        return placed

    def _rearrange(self, request: Request) -> Placement | None:
        """Make room by giving what was placed so far other places: nothing has started yet."""
        moved = rearranged(self.planner, self.requests, self.placed, request)
        if moved is None:
            return None
        placement, others = moved
        self.placed.update(others)
        return placement

    def _barred(self, requests: Iterable[Request]) -> frozenset[str]:
        """Nodes kept free for others."""
        if not self.reservations:
            return NOBODY
        now = self.view.taken_at
        kept = [held for held in self.reservations if not all(held.lets(request, now) for request in requests)]
        return frozenset(node_id for reservation in kept for node_id in reservation.later)

    def _reserve(self, unit: Unit) -> bool:
        barred = frozenset(node_id for reservation in self.reservations for node_id in reservation.later)
        usable = {room.node.node_id for room in self.planner.usable()} - barred
        if not unit.gang:
            usable &= {room.node.node_id for room in self.planner.could_hold(unit.first)}
        now = self.view.taken_at
        endings = [
            Ending(math.inf if holding.until is None else max(now, holding.until), holding.placement)
            for holding in self.view.holdings
        ]
        for place, placement in self.placed.items():
            duration = self.requests[place].duration
            endings.append(Ending(math.inf if duration is None else now + duration, placement))
        endings = [ending for ending in endings if ending.placement.node_id in usable]

        def seat() -> list[Placement] | None:
            if unit.gang:
                return place_gang(self.planner, unit.requests, barred)
            placed = self.planner.seat(unit.first, barred)
            return None if placed is None else [placed]

        made = reserve(self.planner, unit, endings, seat)
        if made is not None:
            self.reservations.append(made)
        return made is not None

    def _why(self, unit: Unit) -> list[Answer]:
        """Answers for what was not placed."""
        if unit.gang:
            return waits.why_gang(self.planner, unit, self.view, self.launching, self.reservations)
        request = unit.first
        kinds, told = self._told(request)
        if isinstance(told, Infeasible):
            return [replace(told, run_id=request.run_id)]
        sentences = [*told.reasons, *waits.kept_for_it(self.planner, unit, self.reservations, self.view.taken_at)]
        started = self.launching.seat(request) if kinds else None
        launch = None if started is None else self.launching.kind_of(started)
        if launch is not None:
            sentences.append(f"a new node of kind {launch} would hold it")
        elif not sentences:
            names, meant = " or ".join(kinds), "all that may be started are meant for others"
            sentences.append(f"a new node of kind {names} would hold it, but {meant}")
        return [Waiting(request.run_id, tuple(sentences), launch)]

    def _told(self, request: Request) -> tuple[list[str], Waiting | Infeasible]:
        """Kinds of new nodes that would hold it, and what the nodes there are say: the same for the same demands."""
        key = (request.demands, self._barred([request]))
        if key not in self._answers:
            kinds = [kind.name for kind in self.launching.kinds_for(request)]
            could = self.planner.could_hold(request)
            kept = waits.kept_for_others(self.planner, request, self.reservations, self.view.taken_at)
            if not could and not kinds:
                never = refusals.infeasible(request, self.view.nodes, self.view.launchable)
                self._answers[key] = ([], Infeasible("", tuple(never)))
            elif kept is not None:
                self._answers[key] = ([], Waiting("", (kept,)))
            else:
                self._answers[key] = (kinds, Waiting("", tuple(reasons.waiting(request, could, self.planner.name))))
        return self._answers[key]
