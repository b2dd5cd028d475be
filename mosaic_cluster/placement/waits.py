"""Why a request or a gang waits although somebody could run it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mosaic_cluster.placement import reasons, refusals
from mosaic_cluster.placement.answers import Answer, Infeasible, Waiting
from mosaic_cluster.placement.gangs import place_gang, seat_each
from mosaic_cluster.placement.launching import Launching, idle
from mosaic_cluster.placement.planner import NOBODY, Planner
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.reserving import Reservation
from mosaic_cluster.placement.turns import Unit
from mosaic_cluster.placement.view import ClusterView
from mosaic_cluster.units import format_duration


def kept_for_others(planner: Planner, request: Request, reservations: Sequence[Reservation], now: float) -> str | None:
    """The node that has room for it but is kept free; ``None``: no node has room."""
    placed = planner.seat(request) if reservations else None
    if placed is None:
        return None
    planner.release(placed)
    return _kept(planner, placed.node_id, reservations, now)


def kept_for_it(planner: Planner, unit: Unit, reservations: Sequence[Reservation], now: float) -> list[str]:
    """The nodes that are kept free for it."""
    for reservation in reservations:
        if reservation.unit is unit:
            names = [planner.name(node_id) for node_id in sorted(reservation.later)]
            word = "node" if len(names) == 1 else "nodes"
            wait = max(0.0, reservation.until - now)
            when = "" if reservation.until == math.inf else f", where it fits in {format_duration(math.ceil(wait))}"
            return [f"{word} {reasons.join(names)} {'is' if len(names) == 1 else 'are'} kept free for it{when}"]
    return []


def why_gang(
    planner: Planner, unit: Unit, view: ClusterView, launching: Launching, reservations: Sequence[Reservation]
) -> list[Answer]:
    """Answers for the members of a gang that was not placed."""
    never = _never(unit, view, launching)
    if never:
        return [Infeasible(member.run_id, tuple(never)) for member in unit.requests]
    sentences = [*_short(planner, unit, reservations, view.taken_at)]
    sentences += kept_for_it(planner, unit, reservations, view.taken_at)
    barred = frozenset(node_id for held in reservations if held.unit is not unit for node_id in held.later)
    started = launching.seat_gang(unit.requests, planner, barred) if launching.kinds else None
    if started is None:
        return [Waiting(member.run_id, tuple(sentences)) for member in unit.requests]
    answers: list[Answer] = []
    for member, placement in zip(unit.requests, started, strict=True):
        kind = launching.kind_of(placement)
        more = [] if kind is None else [f"a new node of kind {kind} would hold it"]
        answers.append(Waiting(member.run_id, (*sentences, *more), kind))
    return answers


def _kept(planner: Planner, node_id: str, reservations: Sequence[Reservation], now: float) -> str | None:
    for reservation in reservations:
        if node_id in reservation.later:
            waited = format_duration(math.floor(max(0.0, now - reservation.unit.since)))
            return (
                f"node {planner.name(node_id)} has room, but is kept free for {reservation.unit.name}, "
                f"which waits for {waited}"
            )
    return None


def _short(planner: Planner, unit: Unit, reservations: Sequence[Reservation], now: float) -> list[str]:
    """How many members have room now, and what the next one lacks."""
    placed = seat_each(planner.seat, unit.requests, NOBODY)
    count, fits = len(unit.requests), len(placed)
    if fits == count:
        mine = place_gang_kept(planner, [placement.node_id for placement in placed], reservations, now)
        lacks = mine
    else:
        member = unit.requests[fits]
        could = planner.could_hold(member)
        lacks = [f"run {member.run_id}: {reason}" for reason in reasons.waiting(member, could, planner.name)]
    for placement in placed:
        planner.release(placement)
    return [f"gang of {count}: {fits} of {count} would fit now, and all start together or none", *lacks]


def place_gang_kept(
    planner: Planner, node_ids: Sequence[str], reservations: Sequence[Reservation], now: float
) -> list[str]:
    """Sentences on the nodes that are kept free for others."""
    found = [_kept(planner, node_id, reservations, now) for node_id in dict.fromkeys(node_ids)]
    return [sentence for sentence in found if sentence is not None]


def _never(unit: Unit, view: ClusterView, launching: Launching) -> list[str]:
    """Why the gang can never be placed, as far as that can be proved; empty: perhaps it can."""
    for member in unit.requests:
        able = launching.kinds_for(member) or any(node.usable and refusals.holds(member, node) for node in view.nodes)
        if not able:
            sentences = refusals.infeasible(member, view.nodes, view.launchable)
            return [f"run {member.run_id} of gang {unit.gang}: {sentence}" for sentence in sentences]
    # Of members that differ, nobody can say for sure without trying everything.
    if len({member.demands for member in unit.requests}) > 1:
        return []
    nodes = [idle(node) for node in view.nodes if node.usable]
    whole = Planner(ClusterView(tuple(nodes), view.taken_at))
    if place_gang(whole, unit.requests, NOBODY) is not None:
        return []
    fresh = Launching(view.launchable)

    def seat(request: Request, barred: frozenset[str]) -> object:
        return whole.seat(request, barred) or fresh.seat(request, barred)

    count = len(unit.requests)
    fits = len(seat_each(seat, unit.requests, NOBODY))  # type: ignore[arg-type]
    if fits == count:
        return []
    there = "the cluster and all nodes it could start hold" if fresh.kinds else "the whole cluster, idle, holds"
    return [f"gang of {count}: {there} {fits} of {count}; make it {fits} or fewer, ask for less each, or add nodes"]
