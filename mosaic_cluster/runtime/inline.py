"""The ``Backend`` protocol on this machine alone, with no Ray: threads, and a hub in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mosaic_cluster.inventory import view_of_this_machine
from mosaic_cluster.placement import Answer, ClusterView, Request, plan
from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, Handle, HubOrder, RunProgress
from mosaic_cluster.runtime.hub_service import HubService, ShardedHub
from mosaic_cluster.runtime.searching.protocols import (
    NoScheduler,
    Scheduler,
    SchedulerSetup,
    Searcher,
    SearchSetup,
    plain_searcher,
)
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import HubClient
from mosaic_cluster.worker.errors import BackendError

CLOSED_AT_ONCE = 8


class InlineHandle:
    """An attempt in a thread of this process."""

    def __init__(self, order: AttemptOrder, hub: HubClient) -> None:
        self.order = order
        self.attempt = Attempt(order, hub)
        self._result: AttemptResult | None = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"run-{order.run_id}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self.attempt.run()
        except BaseException as error:  # noqa: BLE001 -- carried to whoever polls
            self._error = error

    def poll(self) -> AttemptResult | None:
        """See :class:`Handle`. Raises what only a defect of ours can raise."""
        if self._error is not None:
            raise self._error
        return self._result

    def waiting_reason(self) -> str | None:
        """Threads start at once."""
        return None

    def stop(self, code: str, message: str) -> None:
        """See :class:`Handle`."""
        self.attempt.stop(code, message)

    def pause(self) -> None:
        """See :class:`Handle`."""
        self.attempt.pause()

    def unpause(self) -> None:
        """See :class:`Handle`."""
        self.attempt.unpause()


class InlineBackend:
    """Runs attempts in threads of this process. For one machine, and for quick tests of what runs on any backend."""

    name = "inline"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._hub: ShardedHub | None = None
        self._running: dict[str, InlineHandle] = {}

    def searcher(self, setup: SearchSetup) -> Searcher:
        """Random or grid."""
        found = plain_searcher(setup)
        if found is None:
            raise _needs_ray(f"search: {setup.kind}")
        return found

    def scheduler(self, setup: SchedulerSetup) -> Scheduler:
        """None."""
        if setup.kind != "none":
            raise _needs_ray(f"scheduler: {setup.kind}")
        return NoScheduler()

    def view(self) -> ClusterView:
        """This machine, less what our own runs hold."""
        alive = [handle for handle in self._running.values() if handle.thread.is_alive()]
        return view_of_this_machine(
            cpus_taken=sum(handle.order.placement.cpus for handle in alive),
            memory_taken=sum(handle.order.placement.memory or 0 for handle in alive),
            taken_at=self._clock(),
        )

    def allocate(
        self, requests: Sequence[Request], *, quarantine: Mapping[str, str] | None = None
    ) -> dict[str, Answer]:
        """See :class:`Backend`."""
        del quarantine
        answers = plan(requests, self.view()).answers if requests else ()
        return {request.run_id: answer for request, answer in zip(requests, answers, strict=True)}

    def draining(self) -> dict[str, float | None]:
        """This machine stays."""
        return {}

    def open(self, experiment_id: str, experiment_dir: str, hubs: HubOrder) -> None:
        """Start the hubs of this experiment."""
        telemetry = Storage.open(experiment_dir).at("telemetry")
        self._hub = ShardedHub(
            [
                HubService(telemetry, on_fenced=lambda: None, shard=shard, memory=hubs.memory)
                for shard in range(hubs.shards)
            ]
        )

    def start(self, order: AttemptOrder) -> Handle:
        """Begin an attempt in a thread."""
        handle = InlineHandle(order, self._service())
        self._running[order.run_id] = handle
        return handle

    def finish(self, orders: Sequence[AttemptOrder]) -> list[AttemptResult]:
        """See :class:`Backend`."""
        with ThreadPoolExecutor(CLOSED_AT_ONCE) as threads:
            return list(threads.map(lambda order: finish_attempt(order, order.attempt, self._service()), orders))

    def progress(self) -> dict[str, RunProgress]:
        """Progress of the attempts in our threads."""
        return {
            run_id: handle.attempt.progress() for run_id, handle in self._running.items() if handle.thread.is_alive()
        }

    def wait(self, handles: list[Handle], timeout: float) -> None:
        """Return when one may have ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and not any(handle.poll() for handle in handles):
            time.sleep(0.02)

    def close(self) -> None:
        """Stop what still runs, then the hub."""
        for handle in self._running.values():
            if handle.thread.is_alive():
                handle.stop("cancelled", "the experiment ended")
        for handle in self._running.values():
            handle.thread.join(handle.order.grace + 30)
        if self._hub is not None:
            self._hub.close()
            self._hub = None

    def _service(self) -> ShardedHub:
        if self._hub is None:
            raise BackendError("the inline backend was used before it was opened for an experiment")
        return self._hub


def _needs_ray(what: str) -> BackendError:
    return BackendError(
        f"{what} needs Ray: the inline backend has search: random and grid, and scheduler: none. "
        "Leave --backend inline out, or change the spec"
    )
