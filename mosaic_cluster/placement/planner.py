"""The planner: it knows what is free on each node, and finds the place that fits a request tightest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from mosaic_cluster.placement import labels, reasons, refusals
from mosaic_cluster.placement.answers import Answer, Infeasible, Placement, Waiting
from mosaic_cluster.placement.index import Shelf
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import STEPS, Demand, Make, Room
from mosaic_cluster.placement.sentences import Sentences
from mosaic_cluster.placement.view import ClusterView, NodeView

NOBODY: frozenset[str] = frozenset()
# Fewer nodes than this are looked at one by one.
_FEW = 16
# So many different demands are remembered.
_MOST_KNOWN = 4096


class _Known:
    """What is worked out once for all requests that demand the same."""

    __slots__ = ("allowed", "demand", "full", "shelves", "stamp")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        # Where it could be: (shelf, steps of each GPU, taken on trust), the best first.
        self.shelves: list[tuple[Shelf, int, bool]] = []
        # Ids of the nodes whose labels will do; None: all.
        self.allowed: set[str] | None = None
        # For which nodes left out it was found to have no room, and when.
        self.full: dict[frozenset[str], int] = {}
        self.stamp = -1


class Planner:
    """Places requests on a cluster whose state it keeps.

    Best fit: a share of a GPU goes to the GPU that is left with the fewest bytes, so that large requests still find
    room; runs without a GPU keep off nodes with GPUs while they can; then the node with the least CPUs and memory
    left is taken. The same requests in the same order get the same places. A placement costs time that grows with
    the logarithm of the number of nodes, as long as labels, if any are asked for, are not rare.

    Args:
        view: the cluster. What is taken on it already counts; its holdings and what could be launched are for
            :func:`~mosaic_cluster.placement.plan`.
    """

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self._rooms: dict[str, Room] = {}
        self._shelves: dict[Make, Shelf] = {}
        self._known: dict[Any, _Known] = {}
        self._names: dict[str, str] | None = None
        # Nodes came, went or changed; room came back.
        self._changed = 0
        self._freed = 0
        for node in sorted(view.nodes, key=lambda node: node.node_id):
            self._add(node)

    @property
    def nodes(self) -> list[NodeView]:
        """Every node, as it was told last; what was placed since is not in it."""
        return [room.node for room in self._rooms.values()]

    def room(self, node_id: str) -> Room:
        """What is free on a node now; not to be changed."""
        return self._rooms[node_id]

    def usable(self) -> list[Room]:
        """The rooms that take new work."""
        return [room for shelf in self._shelves.values() for room in shelf.rooms.values()]

    def name(self, node_id: str) -> str:
        """A node's name, told apart from others of the same name."""
        if self._names is None:
            self._names = reasons.names_of(self.nodes)
        return self._names[node_id]

    def place(self, request: Request) -> Answer:
        """Find a place and take it, or say why there is none. Queue and gang are not looked at here."""
        placed = self.seat(request)
        if placed is None and request.gpus and not request.gpus_mandatory:
            placed = self.seat(request.without_gpus(), remark=reasons.NO_GPU_NOW)
        if placed is not None:
            return placed
        could = self.could_hold(request)
        if could:
            return Waiting(request.run_id, tuple(reasons.waiting(request, could, self.name)))
        return Infeasible(request.run_id, tuple(refusals.infeasible(request, self.nodes)))

    def seat(self, request: Request, barred: frozenset[str] = NOBODY, remark: str = "") -> Placement | None:
        """A place that is taken, exactly as asked for; ``None``: no node has room now.

        Args:
            barred: ids of nodes that are left out.
            remark: one more reason.
        """
        known = self._know(request)
        if known.full.get(barred) == self._freed:
            return None
        found = self._find(known, barred)
        if found is None:
            known.full[barred] = self._freed
            return None
        return self._take(request, known.demand, *found, remark)

    def seat_on(self, request: Request, node_id: str) -> Placement | None:
        """The same on one node."""
        known, room = self._know(request), self._rooms[node_id]
        steps = known.demand.steps_on(room.make)
        if steps is None or not self._allows(known, NOBODY, room) or room.choose(known.demand, steps) is None:
            return None
        return self._take(request, known.demand, room, steps, known.demand.guesses(room.make), "")

    def permits(self, request: Request, room: Room) -> bool:
        """Whether its labels and the nodes it avoids let it be there."""
        return self._allows(self._know(request), NOBODY, room)

    def restore(self, before: Room) -> None:
        """Make a node as free as it was when its room was copied."""
        room = self._rooms[before.node.node_id]
        self._change(room, lambda: room.become(before))
        self._freed += 1

    def could_hold(self, request: Request) -> list[Room]:
        """Nodes that would have room if they were idle."""
        if not request.gpus_mandatory:
            request = request.without_gpus()
        known = self._know(request)
        demand = known.demand
        able = [
            room
            for shelf, _, _ in known.shelves
            for room in shelf.rooms.values()
            if demand.cpus <= room.cpus_total
            and demand.memory <= room.node.memory
            and demand.agents <= room.slots_total
            and self._allows(known, NOBODY, room)
        ]
        return sorted(able, key=lambda room: room.key)

    def release(self, placement: Placement) -> None:
        """Give back what a placement took; nothing happens where its node is gone."""
        room = self._rooms.get(placement.node_id)
        if room is not None:
            places, steps = _gpus_of(placement, room)
            cpus = round(placement.cpus * STEPS)
            self._change(room, lambda: room.give(cpus, placement.memory or 0, placement.agents, steps, places))
            self._freed += 1

    def hold(self, placement: Placement) -> None:
        """Take what a placement says: it was made elsewhere. Nothing happens where its node is gone."""
        room = self._rooms.get(placement.node_id)
        if room is not None:
            places, steps = _gpus_of(placement, room)
            cpus = round(placement.cpus * STEPS)
            self._change(room, lambda: room.lose(cpus, placement.memory or 0, placement.agents, steps, places))

    def update(self, node: NodeView) -> None:
        """A node is new, or has changed: its free amounts are those of ``node`` from now on."""
        self.remove(node.node_id)
        self._add(node)

    def remove(self, node_id: str) -> None:
        """A node is gone; nothing happens if it was not there."""
        room = self._rooms.pop(node_id, None)
        if room is None:
            return
        self._renew()
        shelf = self._shelves.get(room.make)
        if shelf is not None and room.key in shelf.rooms:
            shelf.remove(room)
            if not shelf.rooms:
                del self._shelves[room.make]

    def _add(self, node: NodeView) -> None:
        room = self._rooms[node.node_id] = Room(node)
        self._renew()
        if node.usable:
            self._shelves.setdefault(room.make, Shelf(room.make)).add(room)

    def _renew(self) -> None:
        self._names = None
        self._changed += 1
        self._freed += 1

    def _change(self, room: Room, change: Callable[[], None]) -> None:
        shelf = self._shelves.get(room.make)
        if shelf is None or room.key not in shelf.rooms:
            change()
            return
        shelf.remove(room)
        change()
        shelf.add(room)

    def _know(self, request: Request) -> _Known:
        key = request.demands
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[key] = _Known(Demand(request))
        if known.stamp != self._changed:
            self._refresh(known)
        return known

    def _refresh(self, known: _Known) -> None:
        """Work out anew which nodes could ever do."""
        demand = known.demand
        known.stamp = self._changed
        known.full.clear()
        ranked = []
        for make, shelf in self._shelves.items():
            steps = demand.steps_on(make)
            if steps is not None:
                trusted = demand.guesses(make)
                rank = (trusted, not demand.gpus and make.count > 0, make.least or 0, make.count, str(make.models))
                ranked.append((rank, shelf, steps, trusted))
        known.shelves = [(shelf, steps, trusted) for _, shelf, steps, trusted in sorted(ranked, key=_first)]
        known.allowed = None
        if demand.labels:
            rooms = self._rooms.values()
            known.allowed = {room.node.node_id for room in rooms if labels.match(demand.labels, room.node.labels)}

    def _allows(self, known: _Known, barred: frozenset[str], room: Room) -> bool:
        node_id = room.node.node_id
        allowed = known.allowed
        return node_id not in barred and node_id not in known.demand.avoid and (allowed is None or node_id in allowed)

    def _find(self, known: _Known, barred: frozenset[str]) -> tuple[Room, int, bool] | None:
        demand = known.demand
        free = not barred and not demand.avoid and known.allowed is None
        if known.allowed is not None and len(known.allowed) <= _FEW:
            return self._find_among(known, [self._rooms[node_id] for node_id in sorted(known.allowed)], barred)
        allows = None if free else partial(self._allows, known, barred)
        best: tuple[Any, ...] | None = None
        for shelf, steps, trusted in known.shelves:
            if best is not None and (not demand.shared or (trusted and not best[0])):
                break
            found = shelf.tightest(demand, steps, allows)
            if found is None:
                continue
            number, row = found
            left = (number - steps) * (shelf.make.least or 0) if demand.shared else 0
            entry = (trusted, left, number, *row, steps)
            if best is None or entry[:-2] < best[:-2]:
                best = entry
        return None if best is None else (best[-2], best[-1], best[0])

    def _find_among(
        self, known: _Known, rooms: Iterable[Room], barred: frozenset[str]
    ) -> tuple[Room, int, bool] | None:
        """The same, looking at each room."""
        demand = known.demand
        best: tuple[Any, ...] | None = None
        for shelf, steps, trusted in known.shelves:
            for room in rooms:
                if shelf.rooms.get(room.key) is not room or not self._allows(known, barred, room):
                    continue
                places = room.choose(demand, steps)
                if places is None:
                    continue
                left = (room.gpus[places[0]] - steps) * (room.make.least or 0) if demand.shared else 0
                rank = (trusted, left, room.make.count > 0, room.make.least or 0, room.whole, room.cpus, room.key)
                best = min(best or (rank, room, steps), (rank, room, steps), key=lambda found: found[0])
        return None if best is None else (best[1], best[2], best[0][0])

    def _take(self, request: Request, demand: Demand, room: Room, steps: int, trusted: bool, remark: str) -> Placement:
        places = room.choose(demand, steps)
        assert places is not None
        shelf = self._shelves[room.make]
        shelf.remove(room)
        room.take(demand, steps, places)
        shelf.add(room)
        node = room.node
        left = reasons.Left(
            self.name(node.node_id), node, room.cpus, room.memory, tuple(room.gpus[place] for place in places)
        )
        return Placement(
            run_id=request.run_id,
            node_id=node.node_id,
            node_name=node.name,
            cpus=demand.cpus / STEPS,
            memory=request.memory,
            gpus=steps * len(places) / STEPS,
            gpu_memory=request.gpu_memory if demand.shared and not trusted else None,
            reasons=Sentences(partial(reasons.placed, request, left, places, steps, trusted, remark)),
            gpu_indices=tuple(node.gpus[place].index for place in places),
            agents=request.agents,
            accelerator=room.make.model if places else None,
            gang=request.gang,
        )


def _first(entry: tuple[Any, ...]) -> Any:
    return entry[0]


def _gpus_of(placement: Placement, room: Room) -> tuple[tuple[int, ...], int]:
    """Places on the node of a placement's GPUs, and steps it has of each."""
    if not placement.gpu_indices:
        return (), 0
    place_of: Mapping[int, int] = {gpu.index: place for place, gpu in enumerate(room.node.gpus)}
    places = tuple(place_of[index] for index in placement.gpu_indices if index in place_of)
    return places, round(placement.gpus * STEPS / len(placement.gpu_indices))
