"""The telemetry hubs of an experiment as Ray actors, and the client that a pump talks to."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mosaic_cluster.runtime.backend import HubOrder
from mosaic_cluster.runtime.hub_metrics import HubMetrics
from mosaic_cluster.runtime.hub_service import HubService, ShardedHub
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Ack, Batch, HubUnavailable
from mosaic_cluster.worker.errors import BackendError, StorageError

NAMESPACE = "mosaic"
CALL_SECONDS = 30.0
CLOSE_SECONDS = 60.0
LOOK_SECONDS = 5.0
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
HUNG_SECONDS = 60.0
"""A hub that has not answered for so long gets a successor, which fences it."""

_log = logging.getLogger(__name__)


def hub_name(experiment_id: str, shard: int, generation: int = 0) -> str:
    """Name of a hub actor in our namespace. A successor of one that hangs is the next generation."""
    return f"hub-{experiment_id}-{shard}.{generation}"


@ray.remote
class HubActor:
    """One telemetry hub of an experiment. Killed and restarted, it learns from the footers what it has."""

    def __init__(self, telemetry: str, experiment_id: str, shard: int, memory: int, patient: bool) -> None:
        # An experiment does not begin on a storage that fails; a successor waits for one, for its runs go on.
        patient = patient or ray.get_runtime_context().was_current_actor_reconstructed
        wait = FIRST_WAIT
        report = HubMetrics(experiment_id, shard).report
        while True:
            try:
                # A crash, not an exit: Ray then restarts us, and the new core reads what the other hub wrote.
                self._service = HubService(
                    Storage.open(telemetry),
                    on_fenced=lambda: os._exit(1),
                    shard=shard,
                    memory=memory,
                    on_tick=report,
                )
                return
            except (StorageError, OSError) as error:
                if not patient:
                    raise
                _log.warning("telemetry hub %d waits for its storage: %s", shard, error)
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

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


class HubClientOfOne:
    """One hub actor behind the interface that a pump wants."""

    def __init__(self, experiment_id: str, shard: int) -> None:
        self._prefix = hub_name(experiment_id, shard).removesuffix("0")
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
                self._actor = self._find()
            return ray.get(getattr(self._actor, method).remote(*args), timeout=CALL_SECONDS)
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise HubUnavailable(f"the telemetry hub {self._prefix}* does not answer: {error}") from error

    def _find(self) -> Any:
        """The youngest generation there is."""
        named = ray.util.list_named_actors(all_namespaces=True)
        found = [
            int(each["name"].removeprefix(self._prefix))
            for each in named
            if each["namespace"] == NAMESPACE and each["name"].startswith(self._prefix)
        ]
        if not found:
            raise ValueError("there is no such actor")
        return ray.get_actor(f"{self._prefix}{max(found)}", namespace=NAMESPACE)


def hub_client(experiment_id: str, shards: int) -> ShardedHub:
    """The hubs of an experiment, for a pump on any node."""
    return ShardedHub([HubClientOfOne(experiment_id, shard) for shard in range(shards)])


class HubKeeper:
    """Starts an experiment's hub actors, replaces one that hangs, and closes them.

    Ray itself restarts those that die.

    Raises:
        BackendError: one did not start.
    """

    def __init__(self, experiment_id: str, experiment_dir: str, order: HubOrder) -> None:
        self.shards = order.shards
        self._experiment_id = experiment_id
        self._telemetry = os.path.join(experiment_dir, "telemetry")
        self._order = order
        self._generations = [0] * order.shards
        self._hubs = [self._start(shard) for shard in range(order.shards)]
        self._asked: list[Any] = [hub.stats.remote() for hub in self._hubs]
        self._heard = [time.monotonic()] * order.shards
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            ray.get(self._asked)
        except RayError as error:
            raise BackendError(f"the telemetry hub of {experiment_id} did not start: {error}") from error

    def _start(self, shard: int) -> Any:
        """The first near the driver (softly), the others wherever there is room."""
        strategy: Any = "SPREAD"
        if shard == 0:
            strategy = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return HubActor.options(  # type: ignore[attr-defined]
            name=hub_name(self._experiment_id, shard, self._generations[shard]),
            namespace=NAMESPACE,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=64,
            scheduling_strategy=strategy,
        ).remote(self._telemetry, self._experiment_id, shard, self._order.memory, self._generations[shard] > 0)

    def look_after(self) -> None:
        """Ask each hub how it is, now and then; one that has not answered for long gets a successor. Never blocks."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for shard, asked in enumerate(self._asked):
            ready, _ = ray.wait([asked], timeout=0)
            if ready:
                self._heard[shard] = now if _answered(asked) else self._heard[shard]
                self._asked[shard] = self._hubs[shard].stats.remote()
            if now - self._heard[shard] > HUNG_SECONDS:
                self._replace(shard, now)

    def _replace(self, shard: int, now: float) -> None:
        _log.warning("telemetry hub %d has not answered for %.0f s: another takes over", shard, HUNG_SECONDS)
        ray.kill(self._hubs[shard])
        self._generations[shard] += 1
        self._hubs[shard] = self._start(shard)
        self._asked[shard] = self._hubs[shard].stats.remote()
        self._heard[shard] = now

    def close(self) -> None:
        """Let each commit what it has, then end it."""
        try:
            ray.get([hub.close.remote() for hub in self._hubs], timeout=CLOSE_SECONDS)
        except (RayError, GetTimeoutError) as error:
            _log.warning("a telemetry hub did not close cleanly: %s", str(error).splitlines()[0])
        for hub in self._hubs:
            ray.kill(hub)


def _answered(reference: Any) -> bool:
    """Whether an answer that has come is one, and not the news that the actor is gone."""
    try:
        ray.get(reference)
    except RayError:
        return False
    return True
