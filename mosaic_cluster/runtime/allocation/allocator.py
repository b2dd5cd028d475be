"""The allocator: grants places to the drivers of a cluster.

A cluster that several drivers can reach has one, a detached actor that all of them ask. An embedded Ray has a single
driver, and the same allocator in its own process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from mosaic_cluster.inventory import HEAD_RESOURCE
from mosaic_cluster.placement import Answer, ClusterView, NodeView, Plan, Request
from mosaic_cluster.runtime.allocation.book import Lease, LeaseBook
from mosaic_cluster.runtime.allocation.demand import Demand
from mosaic_cluster.runtime.allocation.reading import ClusterReader
from mosaic_cluster.worker.errors import BackendError

NAMESPACE = "mosaic"
NAME = "allocator"
PROTOCOL = 1
WORKER_PREFIX = "worker-"
RECOVERY_SECONDS = 5.0
ANSWER_SECONDS = 2.0
START_SECONDS = 120.0
LOOK_SECONDS = 5.0
VIEW_SECONDS = 0.1
"""How old the view of a cluster may be that answers are planned on."""

_log = logging.getLogger(__name__)


@dataclass
class Statement:
    """What a driver tells the allocator, each time all of it.

    Attributes:
        driver: its key.
        leases: all that it holds.
        requests: all that it waits for.
        quarantine: ids of nodes that it keeps off, and why.
    """

    driver: str
    leases: Sequence[Lease] = ()
    requests: Sequence[Request] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: drivers of other versions may send it."""
        return {
            "driver": self.driver,
            "leases": [lease.to_dict() for lease in self.leases],
            "requests": [request.to_dict() for request in self.requests],
            "quarantine": dict(self.quarantine),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Statement:
        """The way back from :meth:`to_dict`."""
        return cls(
            driver=document["driver"],
            leases=[Lease.from_dict(each) for each in document["leases"]],
            requests=[Request.from_dict(each) for each in document["requests"]],
            quarantine=document["quarantine"],
        )


class Allocator:
    """Plans for all drivers on the cluster that this process is connected to; ``embedded``: on its own."""

    def __init__(self, *, embedded: bool = False) -> None:
        self.book = LeaseBook()
        # The cluster's allocator is beside its head.
        self._reader = ClusterReader(embedded=embedded, on_head=not embedded)
        self._demand = Demand()
        self._raw: ClusterView | None = None
        self._read_at = 0.0

    def ask(self, said: Statement) -> list[Answer]:
        """Take what a driver says; answers its requests, in order. What is placed is its own from now on."""
        self.forget_silent()
        self.book.hear(said.driver, said.leases, time.time(), requests=said.requests, quarantine=said.quarantine)
        raw = self._read()
        answers = self.book.answer(said.driver, raw)
        # Also where all kinds have as many nodes as they may: what was asked for is to be taken back.
        if raw.launchable or self._demand:
            self._demand.follow(said.requests, answers, raw, waiting=self.book.waiting)
        return answers

    def leave(self, driver: str) -> None:
        """A driver is done."""
        self.book.leave(driver)
        self._demand.keep(self.book.waiting)

    def forget_silent(self) -> None:
        """Let go what belongs to drivers that have not been heard of for long."""
        if self.book.forget_silent(time.time()):
            self._demand.keep(self.book.waiting)

    def view(self) -> ClusterView:
        """The cluster now, with what is leased taken off, and who holds what."""
        self.forget_silent()
        return self.book.view(self._read())

    def _read(self) -> ClusterView:
        now = time.monotonic()
        if self._raw is None or now - self._read_at > VIEW_SECONDS:
            # In this order: what a group takes in between is missing for a moment, and never there twice.
            held = self._demand.held()
            raw = self._reader.read()
            nodes = tuple(_more(node, held[node.node_id]) if node.node_id in held else node for node in raw.nodes)
            self._raw = replace(raw, nodes=nodes)
            self._read_at = now
        return self._raw

    def clear_left(self) -> None:
        """Take back what an earlier allocator of this cluster asked of the autoscaler."""
        self._demand.clear_left()

    def close(self) -> None:
        """Take back what was asked of the autoscaler."""
        self._demand.close()


def _more(node: NodeView, room: Mapping[str, float]) -> NodeView:
    """A node with room added to what is free."""
    left = room.get("GPU", 0.0)
    gpus = []
    for gpu in node.gpus:
        part = min(left, 1.0 - gpu.free)
        left -= part
        gpus.append(replace(gpu, free=gpu.free + part))
    return replace(
        node,
        cpus_free=min(node.cpus, node.cpus_free + room.get("CPU", 0.0)),
        memory_free=min(node.memory, node.memory_free + int(room.get("memory", 0))),
        gpus=tuple(gpus),
    )


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class AllocatorActor:
    """The allocator of a cluster that several drivers share.

    It keeps nothing that cannot be learned again: a new one asks the live worker actors what they hold, and every
    driver says so again with its next question.
    """

    def __init__(self) -> None:
        self._allocator = Allocator()
        self._one_at_a_time = threading.Lock()
        self._recover()
        threading.Thread(target=self._look_around, daemon=True).start()

    def _look_around(self) -> None:
        """Notice drivers that died, even if nobody asks: what they wait for must keep no nodes up."""
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                with self._one_at_a_time:
                    self._allocator.forget_silent()
            except RayError as error:
                _log.warning("the demand of a silent driver could not be taken back: %s", error)

    def _recover(self) -> None:
        self._allocator.clear_left()
        asked = []
        for each in ray.util.list_named_actors(all_namespaces=True):
            if each["namespace"] == NAMESPACE and each["name"].startswith(WORKER_PREFIX):
                with contextlib.suppress(ValueError):
                    asked.append(ray.get_actor(each["name"], namespace=NAMESPACE).lease.remote())
        found: dict[str, list[Lease]] = {}
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=RECOVERY_SECONDS) if asked else ([], [])
        for reference in ready:
            try:
                said = ray.get(reference)
            except RayError:
                continue  # it is ending
            if said is not None:
                found.setdefault(said["driver"], []).append(Lease.from_dict(said["lease"]))
        for driver, leases in found.items():
            self._allocator.book.hear(driver, leases, time.time())

    def protocol(self) -> int:
        """What it understands."""
        return PROTOCOL

    def ask(self, said: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Allocator.ask`."""
        with self._one_at_a_time:
            return Plan(tuple(self._allocator.ask(Statement.from_dict(said))), time.time()).to_dict()

    def leave(self, driver: str) -> None:
        """See :meth:`Allocator.leave`."""
        with self._one_at_a_time:
            self._allocator.leave(driver)

    def view(self) -> dict[str, Any]:
        """The cluster now, who holds what, and which nodes some experiment keeps off."""
        with self._one_at_a_time:
            return self._allocator.view().to_dict()

    def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()


def existing_view() -> ClusterView | None:
    """What the cluster's allocator sees, if it has one; does not start any."""
    try:
        actor = ray.get_actor(NAME, namespace=NAMESPACE)
        return ClusterView.from_dict(ray.get(actor.view.remote(), timeout=START_SECONDS))
    except (ValueError, RayError, GetTimeoutError):
        return None


class OwnAllocator:
    """The allocator of an embedded Ray, in its driver's process."""

    def __init__(self) -> None:
        self._allocator = Allocator(embedded=True)

    def wait(self) -> None:
        """It is there."""

    def ask(self, said: Statement) -> list[Answer] | None:
        """See :meth:`Allocator.ask`."""
        return self._allocator.ask(said)

    def view(self) -> ClusterView:
        """See :meth:`Allocator.view`."""
        return self._allocator.view()

    def close(self, driver: str) -> None:
        """The driver is done."""
        self._allocator.leave(driver)
        self._allocator.close()


class SharedAllocator:
    """The cluster's allocator, made if there is none yet.

    It takes seconds to start; what else is to be started may be meanwhile, until :meth:`wait`.
    """

    def __init__(self) -> None:
        self._actor = AllocatorActor.options(  # type: ignore[attr-defined]
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            # With the cluster's own services: other nodes come and go.
            resources={HEAD_RESOURCE: 0.0001},
        ).remote()
        self._spoken = self._actor.protocol.remote()
        self._asked: Any = None

    def wait(self) -> None:
        """Until it has started.

        Raises:
            BackendError: it does not start, or speaks another version.
        """
        try:
            spoken = ray.get(self._spoken, timeout=START_SECONDS)
        except (RayError, GetTimeoutError) as error:
            raise BackendError(f"the cluster's allocator does not start: {error}") from error
        if spoken != PROTOCOL:
            raise BackendError(
                f"the cluster's allocator speaks protocol {spoken}, this mosaic_cluster {PROTOCOL}: use the version "
                "that the cluster's other experiments use, or end them and its allocator "
                f"(ray.kill(ray.get_actor({NAME!r}, namespace={NAMESPACE!r})))"
            )

    def ask(self, said: Statement) -> list[Answer] | None:
        """See :meth:`Allocator.ask`; ``None``: it has not answered yet, ask again. Waits a moment only."""
        if self._asked is None:
            self._asked = self._actor.ask.remote(said.to_dict())
        try:
            document = ray.get(self._asked, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            return None
        except RayError as error:
            _log.warning("the allocator failed: %s", error)
            self._asked = None
            return None
        self._asked = None
        return list(Plan.from_dict(document).answers)

    def view(self) -> ClusterView:
        """See :meth:`Allocator.view`."""
        try:
            return ClusterView.from_dict(ray.get(self._actor.view.remote(), timeout=START_SECONDS))
        except (RayError, GetTimeoutError) as error:
            raise BackendError(f"the cluster's allocator does not answer: {error}") from error

    def close(self, driver: str) -> None:
        """The driver is done."""
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get(self._actor.leave.remote(driver), timeout=ANSWER_SECONDS)
