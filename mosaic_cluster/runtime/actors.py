"""The worker actor: one attempt at a time, on the node its placement chose."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

import ray

from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, Joining, RunProgress
from mosaic_cluster.runtime.hubs import hub_client

Key = tuple[str, int]
"""Run id and number of an attempt."""


def key_of(order: AttemptOrder) -> Key:
    """Which attempt an order is for."""
    return order.run_id, order.attempt


@ray.remote
class WorkerActor:
    """One attempt at a time, on the node its placement chose, with the resources it was made with.

    Another one of the same size may follow. Requests name the attempt they are about: one that comes too late, or
    before its attempt has begun, must not reach another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempt: Attempt | None = None
        self._lease: dict[str, Any] | None = None
        self._early: list[tuple[Key, str, tuple[Any, ...]]] = []

    def run(self, order: AttemptOrder, shards: int, lease: dict[str, Any] | None = None) -> AttemptResult:
        """Run an attempt to its end.

        Args:
            shards: how many hubs its experiment has.
            lease: by which it holds its place, and the key of the driver that does.
        """
        self._lease = lease
        if order.joining is not None:
            order = replace(order, joining=_from_here(order.joining))
        attempt = Attempt(order, hub_client(order.experiment_id, shards))
        with self._lock:
            self._attempt = attempt
            early, self._early = self._early, []
        for key, action, arguments in early:
            if key == key_of(order):
                getattr(attempt, action)(*arguments)
        return attempt.run()

    def progress(self, key: Key) -> RunProgress | None:
        """What is known right now; ``None`` if that attempt has not begun."""
        attempt = self._attempt
        if attempt is None or key_of(attempt.order) != key:
            return None
        return replace(attempt.progress(), gpu_indices=_gpu_indices())

    def lease(self) -> dict[str, Any] | None:
        """By what it holds its place, for an allocator that has lost its memory."""
        return self._lease

    def ask(self, key: Key, action: str, *arguments: Any) -> None:
        """``stop`` (code, message), ``pause`` or ``unpause`` the attempt; see :class:`Attempt`."""
        with self._lock:
            attempt = self._attempt
            if attempt is None or key_of(attempt.order) != key:
                self._early.append((key, action, arguments))
                return
        getattr(attempt, action)(*arguments)

    def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()


def _from_here(joining: Joining) -> Joining:
    """The same cluster, by the addresses that this node knows it by."""
    address = str(ray.get_runtime_context().gcs_address)
    return replace(joining, address=address, node_address=str(ray.util.get_node_ip_address()))


def _gpu_indices() -> tuple[int, ...]:
    """The GPUs that Ray has given this actor, by their number on the node; empty where they have names."""
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return tuple(int(each) for each in given) if all(str(each).isdigit() for each in given) else ()


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def finish_on_node(order: AttemptOrder, shards: int) -> AttemptResult:
    """Close an attempt whose actor is gone, on the node where it ran."""
    return finish_attempt(order, order.attempt, hub_client(order.experiment_id, shards))
