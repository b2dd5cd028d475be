"""The worker actor: one attempt at a time, on the node its placement chose."""

from __future__ import annotations

import os
import threading
from typing import Any

import ray

from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
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
        self._early: list[tuple[Key, str, tuple[Any, ...]]] = []

    def run(self, order: AttemptOrder, shards: int) -> AttemptResult:
        """Run an attempt to its end; ``shards``: how many hubs its experiment has."""
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
        return attempt.progress() if attempt is not None and key_of(attempt.order) == key else None

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


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def finish_on_node(order: AttemptOrder, shards: int) -> AttemptResult:
    """Close an attempt whose actor is gone, on the node where it ran."""
    return finish_attempt(order, order.attempt, hub_client(order.experiment_id, shards))
