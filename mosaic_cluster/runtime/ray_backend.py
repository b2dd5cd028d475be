"""The ``Backend`` protocol on a Ray cluster, embedded or shared."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private.state import state
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ulid import ULID

from mosaic_cluster.placement import Answer, ClusterView, Placement, Request
from mosaic_cluster.runtime.actors import WorkerActor, finish_on_node, key_of
from mosaic_cluster.runtime.allocation.allocator import (
    WORKER_PREFIX,
    OwnAllocator,
    SharedAllocator,
    Statement,
    existing_view,
)
from mosaic_cluster.runtime.allocation.book import Lease
from mosaic_cluster.runtime.allocation.reading import ClusterReader
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, Handle, HubOrder, Joining, RunProgress
from mosaic_cluster.runtime.hubs import NAMESPACE, HubKeeper
from mosaic_cluster.runtime.joining import RunGroup, in_first_bundle, make_group
from mosaic_cluster.runtime.searching.protocols import NoScheduler, Scheduler, SchedulerSetup, Searcher, SearchSetup
from mosaic_cluster.runtime.starting import start_ray
from mosaic_cluster.runtime.workfolder import begun_in_storage
from mosaic_cluster.worker.errors import BackendError

NODE_LABEL = "ray.io/node-id"
FINISH_SECONDS = 900.0
CLOSED_AT_ONCE = 16
"""Each takes a process of Ray's."""

CLOSINGS = 3
"""How often closing an attempt is tried: the node it is closed on may die, too."""

SLOW_START_SECONDS = 10.0
IDLE_SECONDS = 1.0
"""How long an actor whose attempt has ended waits for another one of the same size."""

CONNECT_SECONDS = 5.0


class RayHandle:
    """An attempt in a worker actor."""

    def __init__(
        self, backend: RayBackend, order: AttemptOrder, actor: Any, lease: Lease, group: RunGroup | None = None
    ) -> None:
        self.order = order
        self.lease = lease
        self.group = group
        self._backend = backend
        self._begun = time.monotonic()
        self.actor = actor
        self.result_ref = self._run()
        self._progress_ref: Any = None
        self.reused = False
        self.progress: RunProgress | None = None
        # Whether Ray may not have taken its resources off what is free yet.
        self.unaccounted = True
        self._result: AttemptResult | None = None
        self._closings = 0

    def _run(self) -> Any:
        said = {"driver": self._backend.key, "lease": replace(self.lease, started=True).to_dict()}
        return self.actor.run.remote(self.order, self._backend.shards, said)

    @property
    def holds(self) -> Lease | None:
        """What it holds now, as far as is known; ``None`` once its actor is gone."""
        return None if self._closings else replace(self.lease, started=not self.unaccounted)

    def poll(self) -> AttemptResult | None:
        """See :class:`Handle`."""
        if self._result is None:
            ready, _ = ray.wait([self.result_ref], timeout=0)
            if ready:
                self._collect()
        return self._result

    def _collect(self) -> None:
        try:
            self._result = ray.get(self.result_ref)
        except RayError as error:
            if self.group is not None:
                self.group.remove()
            if not isinstance(error, RayActorError):
                logging.getLogger(__name__).warning("run %s: its worker actor failed: %s", self.order.run_id, error)
            if self.reused and self.progress is None and not begun_in_storage(self.order):
                # The actor had died while it was idle: nothing of this attempt has begun.
                self.reused, self.unaccounted = False, True
                self.actor = _new_actor(self.order.placement)
                self.result_ref = self._run()
                self._progress_ref = None
                return
            if self._closings == CLOSINGS:
                raise _cannot_close(self.order, error) from error
            # What the supervisor wrote last says how it really ended. Other runs go on while that is read, and
            # the tail of the log is brought in.
            self._closings += 1
            self.result_ref = self._backend.closing(self.order)
            return
        if self._closings and self._result is not None:
            self._result = _lost_with_node(self.order, self._result)
        self._backend.ended(self, healthy=self._closings == 0)

    def refresh(self) -> None:
        """Take an answer about progress if one has come, and ask again. Never blocks."""
        if self._progress_ref is not None:
            ready, _ = ray.wait([self._progress_ref], timeout=0)
            if not ready:
                return
            self.unaccounted = False
            try:
                self.progress = ray.get(self._progress_ref) or self.progress
            except RayError:
                return  # poll() tells what became of the actor
            if self.progress is not None and self.progress.gpu_indices:
                placement = replace(self.lease.placement, gpu_indices=self.progress.gpu_indices)
                self.lease = replace(self.lease, placement=placement)
        self._progress_ref = self.actor.progress.remote(key_of(self.order))

    def waiting_reason(self) -> str | None:
        """Why the actor has not answered yet."""
        waited = time.monotonic() - self._begun
        if self.progress is not None or waited < SLOW_START_SECONDS:
            return None
        node = self.order.placement.node_name
        return f"Ray has not started the worker actor on {node} for {waited:.0f}s: its resources may be taken by others"

    def stop(self, code: str, message: str) -> None:
        """See :class:`Handle`."""
        self.actor.ask.remote(key_of(self.order), "stop", code, message)

    def pause(self) -> None:
        """See :class:`Handle`."""
        self.actor.ask.remote(key_of(self.order), "pause")

    def unpause(self) -> None:
        """See :class:`Handle`."""
        self.actor.ask.remote(key_of(self.order), "unpause")


@dataclass(frozen=True)
class _Idle:
    """An actor whose attempt has ended."""

    actor: Any
    placement: Placement
    since: float


class RayBackend:
    """Worker actors on a Ray cluster.

    Args:
        address: ``None`` starts an embedded Ray on this machine, for us alone; ``auto`` or
            ``host:port`` joins a cluster.

    Raises:
        BackendError: the cluster cannot be reached.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self._owns_connection = not ray.is_initialized()
        self.address = _connect(address) if self._owns_connection else ray.get_runtime_context().gcs_address
        self.key = str(ULID())
        # A Ray that only we know of has no other driver to agree with.
        self._embedded = self._owns_connection and address in (None, "local")
        self._allocator: OwnAllocator | SharedAllocator | None = None
        self._granted: dict[str, Lease] = {}
        self._hubs: HubKeeper | None = None
        self._running: dict[str, RayHandle] = {}
        self._idle: list[_Idle] = []

    def searcher(self, setup: SearchSetup) -> Searcher:
        """Random, grid or Optuna."""
        # Ray Tune takes seconds to import: only sweeps pay for it.
        from mosaic_cluster.runtime.searching.tune_search import make_searcher

        return make_searcher(setup)

    def scheduler(self, setup: SchedulerSetup) -> Scheduler:
        """Any of Ray Tune's that a spec can name."""
        if setup.kind == "none":
            return NoScheduler()
        from mosaic_cluster.runtime.searching.tune_schedulers import make_scheduler

        return make_scheduler(setup)

    def view(self) -> ClusterView:
        """Nodes and what is free on them now, as far as Ray and the cluster's allocator know."""
        if self._allocator is not None:
            return self._allocator.view()
        return existing_view() or ClusterReader(embedded=self._embedded).read()

    def allocate(
        self, requests: Sequence[Request], *, quarantine: Mapping[str, str] | None = None
    ) -> dict[str, Answer]:
        """See :class:`Backend`."""
        if self._allocator is None:
            raise _not_open()
        held = [handle.holds for handle in self._running.values()]
        leases = [lease for lease in held if lease is not None]
        leases += [Lease(idle.placement, spare=True) for idle in self._idle]
        answers = self._allocator.ask(Statement(self.key, leases, requests, quarantine or {}))
        if answers is None:
            return {}
        asked = {request.run_id: request for request in requests}
        found = {answer.run_id: answer for answer in answers if answer.run_id in asked}
        self._granted = {
            run_id: Lease.of(answer, asked[run_id], time.time())
            for run_id, answer in found.items()
            if isinstance(answer, Placement)
        }
        return found

    def draining(self) -> dict[str, float | None]:
        """See :class:`Backend`."""
        try:
            found: Mapping[str, int] = state.get_draining_nodes()
        except (RayError, RuntimeError):
            return {}
        return {node: deadline / 1000 if deadline > 0 else None for node, deadline in found.items()}

    def open(self, experiment_id: str, experiment_dir: str, hubs: HubOrder) -> None:
        """Start the experiment's hub actors; find the cluster's allocator, or start it."""
        allocator = OwnAllocator() if self._embedded else SharedAllocator()
        self._hubs = HubKeeper(experiment_id, experiment_dir, hubs)
        allocator.wait()
        self._allocator = allocator

    @property
    def shards(self) -> int:
        """How many hubs there are."""
        if self._hubs is None:
            raise _not_open()
        return self._hubs.shards

    def start(self, order: AttemptOrder) -> Handle:
        """Begin an attempt on the node its placement names, in an idle actor of the same size if there is one."""
        size = _size(order.placement)
        lease = replace(self._granted.pop(order.run_id, Lease(order.placement)), placement=order.placement)
        idle = next((each for each in self._idle if _size(each.placement) == size), None)
        if order.worker.joins:
            handle = self._start_joining(order, lease)
        elif idle is not None:
            self._idle.remove(idle)
            handle = RayHandle(self, order, idle.actor, lease)
            handle.unaccounted, handle.reused = False, True
        else:
            handle = RayHandle(self, order, _new_actor(order.placement), lease)
        self._running[order.run_id] = handle
        return handle

    def _start_joining(self, order: AttemptOrder, lease: Lease) -> RayHandle:
        """In a new actor, within a placement group that holds all the run's resources."""
        group = make_group(order, NODE_LABEL)
        order = replace(order, joining=Joining(self.address, NAMESPACE, group.name, ""))
        return RayHandle(self, order, _new_actor(order.placement, group), lease, group)

    def closing(self, order: AttemptOrder) -> Any:
        """Reference to the result of closing an attempt: on its node while that lives, else anywhere."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        task = finish_on_node
        if order.placement.node_id in alive:
            task = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(order.placement.node_id, soft=True))
        return task.remote(order, self.shards)

    def finish(self, orders: Sequence[AttemptOrder]) -> list[AttemptResult]:
        """See :class:`Backend`."""
        results: list[AttemptResult] = []
        for begin in range(0, len(orders), CLOSED_AT_ONCE):
            some = orders[begin : begin + CLOSED_AT_ONCE]
            for order, reference in zip(some, [self.closing(order) for order in some], strict=True):
                try:
                    results.append(ray.get(reference, timeout=FINISH_SECONDS))
                except RayError as error:
                    raise _cannot_close(order, error) from error
        return results

    def progress(self) -> dict[str, RunProgress]:
        """Latest answers of the running actors."""
        found = {}
        for run_id, handle in self._running.items():
            handle.refresh()
            if handle.progress is not None:
                found[run_id] = handle.progress
        return found

    def wait(self, handles: list[Handle], timeout: float) -> None:
        """Return when one may have ended."""
        self._let_idle_go(IDLE_SECONDS)
        if self._hubs is not None:
            self._hubs.look_after()
        refs = [handle.result_ref for handle in handles if isinstance(handle, RayHandle)]
        if refs:
            ray.wait(refs, timeout=timeout)
        else:
            time.sleep(timeout)

    def ended(self, handle: RayHandle, *, healthy: bool) -> None:
        """Take back the actor of an attempt whose result has been taken."""
        self._running.pop(handle.order.run_id, None)
        if handle.group is not None:
            ray.kill(handle.actor)
            handle.group.remove()
        elif healthy:
            self._idle.append(_Idle(handle.actor, handle.order.placement, time.monotonic()))
        else:
            ray.kill(handle.actor)

    def _let_idle_go(self, seconds: float) -> None:
        """End actors that nothing has followed in: others may want what they hold."""
        now = time.monotonic()
        for idle in [each for each in self._idle if now - each.since >= seconds]:
            self._idle.remove(idle)
            ray.kill(idle.actor)

    def close(self) -> None:
        """End our actors; an embedded Ray ends with us."""
        for handle in self._running.values():
            ray.kill(handle.actor)
            if handle.group is not None:
                handle.group.remove()
        self._running.clear()
        self._let_idle_go(0.0)
        if self._hubs is not None:
            self._hubs.close()
            self._hubs = None
        if self._allocator is not None:
            self._allocator.close(self.key)
            self._allocator = None
        if self._owns_connection:
            ray.shutdown()


def _new_actor(placement: Placement, group: RunGroup | None = None) -> Any:
    taken: Mapping[str, Any] = {
        "num_cpus": placement.cpus,
        "num_gpus": placement.gpus,
        "memory": placement.memory or None,
        "label_selector": {NODE_LABEL: placement.node_id},
    }
    if group is not None:
        taken = in_first_bundle(placement, group.group)
    return WorkerActor.options(  # type: ignore[attr-defined]
        # A name, so that a new allocator finds it and learns what it holds.
        name=f"{WORKER_PREFIX}{ULID()}",
        namespace=NAMESPACE,
        **taken,
        max_restarts=0,
        max_task_retries=0,
        # run() holds one thread for as long as the attempt lasts; the others answer.
        max_concurrency=4,
    ).remote()


def _size(placement: Placement) -> tuple[Any, ...]:
    """What an actor must be alike in to take another run."""
    return placement.node_id, placement.cpus, placement.gpus, placement.memory


def _lost_with_node(order: AttemptOrder, result: AttemptResult) -> AttemptResult:
    """Of an attempt whose actor is gone: say so if its whole node is."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    placement = order.placement
    if result.outcome.code != "actor_lost" or placement.node_id in alive:
        return result
    message = f"node {placement.node_name} died, or was cut off, with the run on it"
    return replace(result, outcome=replace(result.outcome, code="node_lost", message=message))


def _not_open() -> BackendError:
    return BackendError("the Ray backend was used before it was opened for an experiment")


def _cannot_close(order: AttemptOrder, error: RayError) -> BackendError:
    return BackendError(f"cannot close attempt {order.attempt} of run {order.run_id}: {error}")


def _connect(address: str | None) -> str:
    # Ours to say, not a default that differs between `ray start` and `ray.init`.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None or address == "local":
        if "RAY_AUTH_MODE" not in os.environ:
            # Ray then turns token authentication on; the token is this process tree's own, not one that Ray
            # would leave in the user's home.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # As near to loopback as Ray has it; the token keeps others out.
        options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        _must_answer(address)
        options["address"] = address
    try:
        start_ray(options)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unreachable(address, first) from error
    return str(ray.get_runtime_context().gcs_address)


def _must_answer(address: str) -> None:
    """Ray itself goes on trying for many minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or an address of a kind that Ray knows better
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str | None, why: str) -> BackendError:
    wanted = "an embedded Ray" if address is None else f"the Ray cluster at {address!r}"
    return BackendError(
        f"cannot reach {wanted}: {why}\n"
        "Check that it runs (`ray status --address HOST:PORT`), that it is Ray "
        f"{ray.__version__} as here, and that RAY_AUTH_MODE and the token match; "
        "leave --address out to use an embedded Ray on this machine."
    )
