"""The leases of a cluster: what each driver holds and waits for, and what that leaves. No Ray, no clock of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mosaic_cluster.placement import (
    Answer,
    ClusterView,
    Gpu,
    Holding,
    NodeView,
    Placement,
    Request,
    plan,
)

QUIET_SECONDS = 30.0
"""A driver not heard of for so long is gone. What its actors still hold, Ray itself accounts for."""

_NOISE = 1e-6


@dataclass(frozen=True)
class Lease:
    """What one driver holds for one run.

    Attributes:
        started: whether Ray accounts for it: its actor has answered.
        spare: nothing runs in it any more; its actor waits a moment for another run of the same size.
        until: unix time at which its run will have ended, in seconds, where that is known.
    """

    placement: Placement
    experiment: str = ""
    priority: int = 0
    weight: float = 1.0
    started: bool = False
    spare: bool = False
    until: float | None = None

    @classmethod
    def of(cls, placement: Placement, request: Request, now: float) -> Lease:
        """What was granted to a request at ``now``."""
        until = None if request.duration is None else now + request.duration
        return cls(placement, request.experiment, request.priority, request.weight, until=until)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "placement": self.placement.to_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Lease:
        """The way back from :meth:`to_dict`."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{**known, "placement": Placement.from_dict(document["placement"])})


@dataclass
class _Driver:
    """One driver, as it last said."""

    heard: float
    leases: list[Lease] = field(default_factory=list)
    requests: tuple[Request, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)


class LeaseBook:
    """Arbitrates between drivers.

    Each driver says again and again all that it holds and all that it waits for; so the book is right again soon
    after it was lost, and what a driver does not mention any more is free.
    """

    def __init__(self) -> None:
        self._drivers: dict[str, _Driver] = {}

    def hear(
        self,
        driver: str,
        leases: Iterable[Lease],
        now: float,
        *,
        requests: Sequence[Request] | None = None,
        quarantine: Mapping[str, str] | None = None,
    ) -> None:
        """Take what a driver says.

        Args:
            driver: its key.
            leases: all that it holds.
            now: unix time in seconds.
            requests: all that it waits for; ``None``: as before.
            quarantine: ids of nodes that it keeps off, and why; ``None``: as before.
        """
        known = self._drivers.setdefault(driver, _Driver(now))
        known.heard = now
        known.leases = list(leases)
        if requests is not None:
            known.requests = tuple(requests)
        if quarantine is not None:
            known.quarantine = dict(quarantine)

    def leave(self, driver: str) -> None:
        """A driver is done: all it held is free."""
        self._drivers.pop(driver, None)

    def forget_silent(self, now: float) -> list[str]:
        """Drop the drivers that have not been heard of for long; returns their keys."""
        silent = [key for key, driver in self._drivers.items() if now - driver.heard > QUIET_SECONDS]
        for key in silent:
            del self._drivers[key]
        return silent

    @property
    def leases(self) -> list[Lease]:
        """Of all drivers."""
        return [lease for driver in self._drivers.values() for lease in driver.leases]

    @property
    def quarantine(self) -> dict[str, str]:
        """Ids of nodes that some experiment keeps off, and why."""
        return {node: why for driver in self._drivers.values() for node, why in driver.quarantine.items()}

    def view(self, raw: ClusterView) -> ClusterView:
        """What is free once everything leased is taken off.

        Args:
            raw: the cluster as Ray accounts for it.
        """
        by_node: dict[str, list[Lease]] = {}
        for lease in self.leases:
            by_node.setdefault(lease.placement.node_id, []).append(lease)
        nodes = tuple(_less(node, by_node[node.node_id]) if node.node_id in by_node else node for node in raw.nodes)
        holdings = tuple(
            Holding(lease.placement, lease.experiment, lease.priority, lease.weight, lease.until)
            for lease in self.leases
            if not lease.spare
        )
        return replace(raw, nodes=nodes, holdings=holdings, quarantine=self.quarantine)

    def answer(self, driver: str, raw: ClusterView) -> list[Answer]:
        """Plan for all drivers, and grant what this one gets.

        What others wait for takes its turn, too: they get it when they ask next.

        Returns:
            An answer for each of the driver's requests, in their order.
        """
        mine = self._drivers[driver]
        if not mine.requests:
            return []
        keys = [driver, *(key for key in self._drivers if key != driver)]
        asked = [(key, request) for key in keys for request in self._drivers[key].requests]
        made = plan([request for _, request in asked], self.view(raw))
        answers = list(made.answers[: len(mine.requests)])
        placed = {answer.run_id for answer in answers if isinstance(answer, Placement)}
        for request, answer in zip(mine.requests, answers, strict=True):
            if isinstance(answer, Placement):
                mine.leases.append(Lease.of(answer, request, raw.taken_at))
        mine.requests = tuple(request for request in mine.requests if request.run_id not in placed)
        return answers

    @property
    def waiting(self) -> set[str]:
        """Runs that some driver waits to place."""
        return {request.run_id for driver in self._drivers.values() for request in driver.requests}


def _less(node: NodeView, leases: Sequence[Lease]) -> NodeView:
    """A node with its leases taken off.

    Ray's free amounts lag behind by what was granted and has not started, and are too small by what lies spare;
    and never is there more than the node has less what we know is taken.
    """
    taken = [lease.placement for lease in leases if not lease.spare]
    ahead = [lease.placement for lease in leases if not lease.started and not lease.spare]
    spare = [lease.placement for lease in leases if lease.spare]
    cpus = node.cpus_free + sum(each.cpus for each in spare) - sum(each.cpus for each in ahead)
    memory = node.memory_free + sum(each.memory or 0 for each in spare) - sum(each.memory or 0 for each in ahead)
    return replace(
        node,
        cpus_free=max(0.0, min(cpus, node.cpus - sum(each.cpus for each in taken))),
        memory_free=max(0, min(memory, node.memory - sum(each.memory or 0 for each in taken))),
        gpus=_gpus(node.gpus, leases),
        agents=sum(each.agents for each in taken),
    )


def _gpus(gpus: tuple[Gpu, ...], leases: Sequence[Lease]) -> tuple[Gpu, ...]:
    """Free shares, GPU by GPU: ours where we know them, what others hold where Ray will have put it."""
    if not gpus:
        return gpus
    left = {gpu.index: 1.0 for gpu in gpus}
    ours = 0.0
    for lease in leases:
        placement = lease.placement
        # Where a node's GPUs have other numbers than ours, what we hold there counts as others' does.
        if not placement.gpus or not left.keys() >= set(placement.gpu_indices):
            continue
        if lease.started or lease.spare:
            ours += placement.gpus
        share = 0.0 if lease.spare else placement.gpus / max(1, len(placement.gpu_indices))
        for index in placement.gpu_indices:
            left[index] = max(0.0, left[index] - share)
    others = sum(1.0 - gpu.free for gpu in gpus) - ours
    # Whole GPUs that others hold are idle ones of ours; parts lie where there is least room for them.
    while others > 1 - _NOISE and any(free > 1 - _NOISE for free in left.values()):
        left[next(index for index, free in left.items() if free > 1 - _NOISE)] = 0.0
        others -= 1.0
    while others > _NOISE and any(left.values()):
        room = [index for index, free in left.items() if free >= others - _NOISE]
        index = min(room, key=lambda each: left[each]) if room else max(left, key=lambda each: left[each])
        part = min(others, left[index])
        left[index] -= part
        others -= part
    return tuple(replace(gpu, free=round(max(0.0, left[gpu.index]), 6)) for gpu in gpus)
