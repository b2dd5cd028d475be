"""Nodes that the cluster could start, and which of the waiting requests would have room there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mosaic_cluster.placement.answers import Placement
from mosaic_cluster.placement.gangs import seat_each
from mosaic_cluster.placement.planner import NOBODY, Planner
from mosaic_cluster.placement.refusals import holds
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import Demand, make_of
from mosaic_cluster.placement.view import ClusterView, NodeType, NodeView


class Launching:
    """Pretends to start nodes, as few as it can: what fits on one that is already meant to be started goes there."""

    def __init__(self, kinds: Sequence[NodeType]) -> None:
        self.kinds = [kind for kind in kinds if kind.more > 0]
        self._left = {kind.name: kind.more for kind in self.kinds}
        self._planner = Planner(ClusterView((), 0.0))
        self._kind_of: dict[str, str] = {}

    def left(self, name: str) -> int:
        """How many more of a kind may be started."""
        return self._left[name]

    def kinds_for(self, request: Request) -> list[NodeType]:
        """Kinds that would hold it, those that waste least first."""
        able = [kind for kind in self.kinds if holds(request, kind.node)]
        return sorted(able, key=lambda kind: _waste(request, kind))

    def seat(self, request: Request, barred: frozenset[str] = NOBODY) -> Placement | None:
        """A place on a node that would be started; ``None``: no more may be."""
        if not self.kinds:
            return None
        placed = self._planner.seat(request, barred)
        for kind in self.kinds_for(request) if placed is None else ():
            if self._left[kind.name] > 0:
                return self._planner.seat_on(request, self._start(kind))
        return placed

    def kind_of(self, placement: Placement) -> str | None:
        """The kind of node it is on; ``None``: on one that is there already."""
        return self._kind_of.get(placement.node_id)

    def seat_gang(self, members: Sequence[Request], present: Planner, barred: frozenset[str]) -> list[Placement] | None:
        """Places for all members, on nodes there are and on such as would be started.

        What is taken on the nodes there are is given back; ``None``: nothing is taken or started.
        """
        started = set(self._kind_of)

        def seat(request: Request, without: frozenset[str]) -> Placement | None:
            return present.seat(request, without) or self.seat(request, without)

        placed = seat_each(seat, members, barred)
        complete = len(placed) == len(members)
        for placement in placed:
            if placement.node_id not in self._kind_of:
                present.release(placement)
            elif not complete:
                self._planner.release(placement)
        if complete:
            return placed
        for node_id in set(self._kind_of) - started:
            self._left[self._kind_of.pop(node_id)] += 1
            self._planner.remove(node_id)
        return None

    def _start(self, kind: NodeType) -> str:
        self._left[kind.name] -= 1
        node_id = f"{kind.name}/{self._left[kind.name]}"
        self._kind_of[node_id] = kind.name
        self._planner.update(idle(replace(kind.node, node_id=node_id, name=kind.name)))
        return node_id


def idle(node: NodeView) -> NodeView:
    """The same node with nothing on it."""
    gpus = tuple(replace(gpu, free=1.0) for gpu in node.gpus)
    return replace(node, cpus_free=node.cpus, memory_free=node.memory, gpus=gpus, agents=0)


def _waste(request: Request, kind: NodeType) -> tuple[object, ...]:
    node = kind.node
    make = make_of(node.gpus)
    trusted = Demand(request).guesses(make)
    return (trusted, (make.least or 0) * make.count, make.count, node.cpus, node.memory, kind.name)
