"""The Ray actors: one hub per experiment, one worker actor per attempt."""

from __future__ import annotations

import os
import threading
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Ack, Batch, HubUnavailable

NAMESPACE = "mosaic"
Key = tuple[str, int]
"""Run id and number of an attempt."""

HUB_CALL_SECONDS = 60.0


def key_of(order: AttemptOrder) -> Key:
    """Which attempt an order is for."""
    return order.run_id, order.attempt


def hub_name(experiment_id: str) -> str:
    """Name of an experiment's hub actor in our namespace."""
    return f"hub-{experiment_id}"


@ray.remote
class HubActor:
    """The telemetry hub of one experiment. Killed and restarted, it learns from the footers what it has."""

    def __init__(self, telemetry: str) -> None:
        # A crash, not an exit: Ray then restarts us, and the new core reads what the other hub wrote.
        self._service = HubService(Storage.open(telemetry), on_fenced=lambda: os._exit(1))

    def append(self, batch: Batch) -> Ack:
        """See :meth:`HubCore.append`."""
        return self._service.append(batch)

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """See :meth:`HubCore.flush`."""
        self._service.flush(run_id, attempt, upto)

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """See :meth:`HubCore.watermark`."""
        return self._service.watermark(run_id, attempt)

    def stats(self) -> dict[str, Any]:
        """See :meth:`HubCore.stats`."""
        return self._service.stats()

    def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()

    def close(self) -> None:
        """Commit what is there and stop."""
        self._service.close()


class RayHubClient:
    """The hub actor behind the interface that a pump wants."""

    def __init__(self, experiment_id: str) -> None:
        self._name = hub_name(experiment_id)
        self._actor: Any = None

    def append(self, batch: Batch) -> Ack:
        """Take a batch."""
        ack: Ack = self._call("append", batch)
        return ack

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon."""
        self._call("flush", run_id, attempt, upto)

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What the hub has of one attempt's log."""
        ack: Ack = self._call("watermark", run_id, attempt)
        return ack

    def _call(self, method: str, *args: Any) -> Any:
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self._name, namespace=NAMESPACE)
            return ray.get(getattr(self._actor, method).remote(*args), timeout=HUB_CALL_SECONDS)
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise HubUnavailable(f"the telemetry hub {self._name} does not answer: {error}") from error


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

    def run(self, order: AttemptOrder) -> AttemptResult:
        """Run an attempt to its end."""
        attempt = Attempt(order, RayHubClient(order.experiment_id))
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
def finish_on_node(order: AttemptOrder) -> AttemptResult:
    """Close an attempt whose actor is gone, on the node where it ran."""
    return finish_attempt(order, order.attempt, RayHubClient(order.experiment_id))


__all__ = [
    "NAMESPACE",
    "HubActor",
    "RayActorError",
    "RayHubClient",
    "WorkerActor",
    "finish_on_node",
    "hub_name",
    "key_of",
]
