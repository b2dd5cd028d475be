"""The Ray actors: one hub per experiment, one worker actor per attempt."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Ack, Batch, HubUnavailable

NAMESPACE = "mosaic"
HUB_CALL_SECONDS = 60.0


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
    """One attempt of one run, on the node its placement chose."""

    def __init__(self, order: AttemptOrder) -> None:
        self._attempt = Attempt(order, RayHubClient(order.experiment_id))

    def run(self) -> AttemptResult:
        """Run to the end."""
        return self._attempt.run()

    def progress(self) -> RunProgress:
        """What is known right now."""
        return self._attempt.progress()

    def stop(self, code: str, message: str) -> None:
        """Ask the worker to checkpoint and stop."""
        self._attempt.stop(code, message)

    def pause(self) -> None:
        """Freeze the worker's processes."""
        self._attempt.pause()

    def unpause(self) -> None:
        """Let them go on."""
        self._attempt.unpause()

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
]
