"""Whose turn it is: by priority, then by weighted fair share between experiments, then by time of waiting."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mosaic_cluster.placement.answers import Placement
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.view import ClusterView


@dataclass(frozen=True)
class Unit:
    """What is placed at once: one request, or a gang.

    Attributes:
        places: where its requests stand among all that were asked.
        requests: at least one.
    """

    places: tuple[int, ...]
    requests: tuple[Request, ...]

    @property
    def first(self) -> Request:
        """What says whose it is."""
        return self.requests[0]

    @property
    def gang(self) -> str:
        """Its name; empty: it is one request."""
        return self.first.gang

    @property
    def since(self) -> float:
        """Unix time since when it waits, in seconds."""
        return min(request.since for request in self.requests)

    @property
    def name(self) -> str:
        """For sentences."""
        return f"gang {self.gang}" if self.gang else f"run {self.first.run_id}"


def units_of(requests: Sequence[Request]) -> list[Unit]:
    """Requests with their gangs put together, each where its first member stands."""
    found: dict[object, list[int]] = {}
    for place, request in enumerate(requests):
        found.setdefault((request.gang, request.experiment) if request.gang else place, []).append(place)
    return [Unit(tuple(places), tuple(requests[place] for place in places)) for places in found.values()]


class Shares:
    """What each experiment holds of the cluster: the dominant share (Ghodsi et al. 2011), over its weight."""

    def __init__(self, view: ClusterView) -> None:
        nodes = [node for node in view.nodes if node.usable]
        totals = (sum(node.cpus for node in nodes), sum(node.memory for node in nodes))
        self._totals = (*totals, sum(len(node.gpus) for node in nodes))
        self._held: dict[str, list[float]] = {}
        for holding in view.holdings:
            self.add(holding.experiment, holding.placement)

    def add(self, experiment: str, placement: Placement) -> None:
        """It holds more."""
        held = self._held.setdefault(experiment, [0.0, 0.0, 0.0])
        for dimension, amount in enumerate((placement.cpus, placement.memory or 0, placement.gpus)):
            held[dimension] += amount

    def of(self, experiment: str, weight: float) -> float:
        """Its share over its weight; the least goes first."""
        held = self._held.get(experiment, (0.0, 0.0, 0.0))
        parts = [amount / total for amount, total in zip(held, self._totals, strict=True) if total]
        return max(parts, default=0.0) / weight


def in_turn(units: Sequence[Unit], shares: Shares) -> Iterator[Unit]:
    """Units of one priority, each when it is its turn: what was placed since the last one counts."""
    queues: dict[str, list[tuple[float, int, Unit]]] = {}
    for number, unit in enumerate(units):
        queues.setdefault(unit.first.experiment, []).append((unit.since, number, unit))
    turns: list[tuple[float, float, int, str]] = []

    def queue_up(experiment: str) -> None:
        if queues[experiment]:
            since, number, unit = queues[experiment][-1]
            heapq.heappush(turns, (shares.of(experiment, unit.first.weight), since, number, experiment))

    for experiment, queue in queues.items():
        queue.sort(key=lambda entry: entry[:2], reverse=True)
        queue_up(experiment)
    while turns:
        experiment = heapq.heappop(turns)[3]
        yield queues[experiment].pop()[2]
        queue_up(experiment)
