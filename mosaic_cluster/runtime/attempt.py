"""One attempt of one run, from its config file to its last committed event.

Every backend calls this same code: the Ray worker actor, and the inline backend's threads.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog import Ready, make_ready, worker_command
from mosaic_cluster.catalog.environments import BuildProgress
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
from mosaic_cluster.runtime.checkpoints import Checkpoint
from mosaic_cluster.runtime.environment import attempt_environment
from mosaic_cluster.runtime.workfolder import WorkFolder, drain, start_line, work_folder_of
from mosaic_cluster.supervision import Order, Outcome, Supervised, seal, start
from mosaic_cluster.telemetry import HubClient, HubUnavailable, Pump, Watch, Watched, offset_at_step, scan_log
from mosaic_cluster.worker.errors import EnvironmentFailed, MosaicError, StorageUnavailable

POLL_SECONDS = 0.1
TELL_BYTES = 256 << 20
STDERR_LINES = 30


class Attempt:
    """Runs one attempt; may be stopped, paused and asked for progress from other threads.

    Args:
        order: what to run.
        hub: where its telemetry goes.
    """

    def __init__(self, order: AttemptOrder, hub: HubClient) -> None:
        self.order = order
        self._hub = hub
        self._lock = threading.Lock()
        self._requests: list[Callable[[Supervised], None]] = []
        self._stop: tuple[str, str] | None = None
        self._supervised: Supervised | None = None
        self._pump: Pump | None = None
        self._resumed: Checkpoint | None = None
        self._told = 0
        self._starting: str | None = None
        self._work = work_folder_of(order)

    def run(self) -> AttemptResult:
        """Run to the end. A run that fails is a result, not an exception."""
        try:
            # Seen before anything is started.
            refused = self._work.refusal()
            return self._run() if refused is None else self._ended_at_once("FAILED", "start_failed", refused)
        except EnvironmentFailed as error:
            return self._without_environment(error)
        except (OSError, MosaicError) as error:
            where = f"attempt {self.order.attempt} on node {socket.gethostname()}"
            again = isinstance(error, StorageUnavailable | HubUnavailable)
            return self._never_started("FAILED", "start_failed", f"{where} cannot be run: {error}", retryable=again)

    def _run(self) -> AttemptResult:
        order = self.order
        for attempt in range(1, order.attempt):
            close_attempt(order, attempt, self._hub, self._work)
        self._resumed = _goes_on_from(order, self._work)
        write_config(order)
        self._work.open_attempt()
        _record_start(order, self._resumed)
        self._work.begin()
        ready = self._make_ready()
        environment = attempt_environment(order, os.environ, self._resumed, ready)
        with self._lock:
            if self._stop is None:
                self._supervised = start(supervision_order(order, environment, ready))
        if self._supervised is None:
            assert self._stop is not None
            code, message = self._stop
            return self._never_started("PAUSED" if code == "paused" else "CANCELLED", code, message)
        try:
            outcome = self._follow(self._supervised)
        finally:
            self._supervised.close()
        return self._result(outcome)

    def _make_ready(self) -> Ready:
        """What the worker runs in; a node that lacks it builds it now, unless the attempt is stopped meanwhile."""
        worker = self.order.worker

        def tell(progress: BuildProgress) -> None:
            self._starting = progress.sentence()

        try:
            return make_ready(
                worker.name,
                worker.distribution,
                worker.package,
                worker.environment,
                report=tell,
                cancelled=lambda: self._stop is not None,
            )
        except EnvironmentFailed as error:
            if not error.cancelled:
                raise
            return Ready("")  # it is not going to be used
        finally:
            self._starting = None

    def _without_environment(self, error: EnvironmentFailed) -> AttemptResult:
        """The attempt's end where there is nothing to run it in; what the build said is its stderr."""
        try:
            with (self.order.attempt_dir() / "stderr.log").open("a", encoding="utf-8") as stream:
                stream.write(f"{error}\n")
        except OSError:
            pass  # then its message tells alone
        lines = [line for line in str(error).splitlines() if line.strip()]
        return self._never_started(
            "FAILED", "environment_failed", error.summary, retryable=error.network, words=lines[-STDERR_LINES:]
        )

    def _follow(self, supervised: Supervised) -> Outcome:
        order = self.order
        log = order.attempt_dir() / "stdout.log"
        backlog = order.room.backlog
        self._pump = Pump(
            log, order.run_id, order.attempt, self._hub, watch=_watch(order), backlog=backlog, taken=self._work.taken
        )
        wait = 0.0
        while True:
            self._apply(supervised)
            outcome = supervised.wait(wait)
            moved = self._pump_once(self._pump)
            self._tell_committed(supervised, self._pump.progress.committed)
            if outcome is not None:
                return outcome
            # A full batch means more is waiting: no pause between batches then.
            wait = 0.0 if moved else POLL_SECONDS

    def _pump_once(self, pump: Pump) -> bool:
        before = pump.progress.unread
        try:
            progress = pump.step()
        except HubUnavailable:
            return False  # the log keeps everything; the worker goes on
        return progress.unread > 0 and before != progress.unread

    def _tell_committed(self, supervised: Supervised, committed: int) -> None:
        """Now and then: what it has been told may lag behind by a small part of what may wait."""
        room = self.order.room
        least = min(room.backlog or TELL_BYTES, room.keep_log or TELL_BYTES) // 16
        if committed - self._told > least:
            self._told = committed
            supervised.committed(committed)

    def _result(self, outcome: Outcome) -> AttemptResult:
        committed, size = drain(self.order, self.order.attempt, self._hub, self._pump)
        watch = self._pump.watch if self._pump is not None and committed >= size else None
        result = AttemptResult(
            outcome=outcome,
            resumed_from_step=self._resumed.step if self._resumed else None,
            resumed_from=self._resumed.path if self._resumed else None,
            node=self.order.placement.node_name,
            committed=committed,
            log_bytes=size,
            watched=watch.seen() if watch is not None else _watched(self.order, self.order.attempt),
            metrics=_latest(self._pump),
            events=self._pump.progress.events if self._pump else 0,
            unsent=self._work.finish(self.order.attempt, committed, size),
        )
        self._work.tidy(result)
        return result

    def _never_started(
        self, state: str, code: str, message: str, *, retryable: bool = False, words: Sequence[str] = ()
    ) -> AttemptResult:
        result = self._ended_at_once(state, code, message, retryable=retryable, words=words)
        try:
            self._work.open_attempt()
            return self._result(seal(self.order.attempt_dir(), self.order.run_id, result.outcome))
        except OSError:
            return result  # a full disk, say: the outcome still reaches the driver

    def _ended_at_once(
        self, state: str, code: str, message: str, *, retryable: bool = False, words: Sequence[str] = ()
    ) -> AttemptResult:
        """A result of which nothing is on record here."""
        now = time.time()
        outcome = Outcome(
            state=state,
            code=code,
            message=message,
            exit_code=None,
            signal=None,
            started_at=now,
            ended_at=now,
            duration=0.0,
            peak_rss=0,
            cpu_seconds=0.0,
            last_step=None,
            stderr_tail=list(words),
            retryable=retryable,
        )
        return AttemptResult(outcome=outcome, node=self.order.placement.node_name)

    def stop(self, code: str, message: str) -> None:
        """Ask the worker to checkpoint and stop."""
        with self._lock:
            self._stop = (code, message)
        self._request(lambda supervised: supervised.stop(code, message))

    def pause(self) -> None:
        """Freeze the worker's processes."""
        self._request(lambda supervised: supervised.pause())

    def unpause(self) -> None:
        """Let them go on."""
        self._request(lambda supervised: supervised.unpause())

    def _request(self, action: Callable[[Supervised], None]) -> None:
        with self._lock:
            self._requests.append(action)

    def _apply(self, supervised: Supervised) -> None:
        with self._lock:
            requests, self._requests = self._requests, []
        for action in requests:
            action(supervised)

    def progress(self) -> RunProgress:
        """What is known right now."""
        supervised, pump = self._supervised, self._pump
        status = supervised.status() if supervised else None
        seen = pump.progress if pump else None
        state = "STARTING" if status is None or status.state == "STARTING" else "RUNNING"
        if status is not None and status.state == "PAUSED":
            state = "PAUSED"
        known = (status.last_step if status else None, seen.last_step if seen else None)
        steps = [value for value in known if value is not None]
        return RunProgress(
            state=state,
            attempt=self.order.attempt,
            step=max(steps) if steps else None,
            metrics=_latest(pump),
            events=seen.events if seen else 0,
            unread=seen.unread if seen else 0,
            peak_rss=status.peak_rss if status else 0,
            peak_gpu_memory=status.peak_gpu_memory if status else None,
            warnings=status.warnings if status else (),
            resumed_from_step=self._resumed.step if self._resumed else None,
            watched=pump.watch.seen() if pump and pump.watch else None,
            stands_still=status.stands_still if status else None,
            held=status.held if status else 0.0,
            released=status.released if status else 0,
            starting=self._starting,
        )


def close_attempt(
    order: AttemptOrder, attempt: int, hub: HubClient, work: WorkFolder
) -> tuple[Outcome, int, int, tuple[str, ...]]:
    """Close an attempt nobody runs any more, and bring the tail of its log to Parquet.

    An attempt that ended properly keeps its outcome; one that was lost is sealed as such. One whose node's disk is
    gone gets an outcome that says from where on its telemetry is missing.

    Returns:
        How it ended; committed bytes and size of its log; what of it could not be put into storage.
    """
    outcome, committed, size = work.close(attempt, hub)
    return outcome, committed, size, work.finish(attempt, committed, size)


def finish_attempt(order: AttemptOrder, attempt: int, hub: HubClient) -> AttemptResult:
    """:func:`close_attempt`, and tell all that is known of it."""
    work = work_folder_of(order)
    outcome, committed, size, unsent = close_attempt(order, attempt, hub, work)
    begun = _recorded_start(order.attempt_dir(attempt))
    result = AttemptResult(
        outcome=outcome,
        resumed_from_step=begun.get("resumed_from_step"),
        resumed_from=begun.get("resumed_from"),
        node=begun.get("node"),
        committed=committed,
        log_bytes=size,
        watched=_watched(order, attempt),
        unsent=unsent,
    )
    work.tidy(result)
    return result


def _goes_on_from(order: AttemptOrder, work: WorkFolder) -> Checkpoint | None:
    """The run's own last checkpoint since its origin, else the origin, else none."""
    if not order.worker.supports_checkpointing:
        return None
    origin = order.origin
    found = work.last_checkpoint(since=origin.attempt if origin else 1)
    if found is not None or origin is None:
        return found
    # What the run had trained before counts up to the step it goes on from.
    before = origin.attempt - 1
    log = order.attempt_dir(before) / "stdout.log"
    offset = offset_at_step(log, origin.step, order.run_id, before, order.telemetry)
    return Checkpoint(work.origin_path(origin), origin.step, None if offset is None else before, offset)


def _latest(pump: Pump | None) -> dict[str, float]:
    """Latest value of each metric."""
    return {name: value for name, (_, value) in pump.progress.metrics.items()} if pump else {}


def _watch(order: AttemptOrder) -> Watch | None:
    return Watch(order.watch.metric, order.watch.rungs) if order.watch else None


def _watched(order: AttemptOrder, attempt: int) -> Watched | None:
    """What a sealed log has of the watched metric, whoever read how much of it before."""
    watch = _watch(order)
    if watch is None:
        return None
    scan_log(order.attempt_dir(attempt) / "stdout.log", watch, order.run_id, attempt, order.telemetry)
    return watch.seen()


def supervision_order(order: AttemptOrder, environment: dict[str, str], ready: Ready) -> Order:
    """The process to start for an attempt: its command, where, and with which variables."""
    config = str(order.run_dir / "config.json")
    if order.worker.command is not None:
        command = [*order.worker.command, "--config", config]
    else:
        command = worker_command(order.worker.package, order.worker.has_cli, config, ready.python)
    command = ready.command(
        command,
        name=f"mosaic-{order.run_id.lower()}-{order.attempt}",
        cwd=str(order.run_dir),
        variables=environment,
        write=(order.folder,),
        gpu=order.placement.gpus > 0,
    )
    return Order(
        run_id=order.run_id,
        attempt=order.attempt,
        command=tuple(command),
        cwd=str(order.run_dir),
        environment=environment,
        attempt_dir=str(order.attempt_dir()),
        limits=order.limits,
        grace=order.grace,
        elapsed_before=order.elapsed_before,
        room=order.room,
        gpu=order.placement.gpus > 0,
    )


def write_config(order: AttemptOrder) -> None:
    """Make the run's folder, with ``config.json`` in it."""
    order.run_dir.mkdir(parents=True, exist_ok=True)
    (order.run_dir / "checkpoints").mkdir(exist_ok=True)
    document: dict[str, Any] = {**order.config, "run_id": order.run_id, "seed": order.seed}
    _write_json(order.run_dir / "config.json", document)


def _record_start(order: AttemptOrder, resumed: Checkpoint | None) -> None:
    """Keep what only this process knows, for whoever closes the attempt if it is killed."""
    record = {
        "attempt": order.attempt,
        "node": order.placement.node_name,
        "resumed_from_step": resumed.step if resumed else None,
        "resumed_from": resumed.path if resumed else None,
        "resumed_from_attempt": resumed.attempt if resumed else None,
        "resumed_from_offset": resumed.offset if resumed else None,
    }
    if order.origin is not None and resumed is not None and resumed.path == str(order.run_dir / order.origin.path):
        record["resumed_from_run"] = order.origin.run_id
    _write_json(order.attempt_dir() / "attempt.json", record)
    with (order.attempt_dir() / "stdout.log").open("ab") as log:
        log.write(start_line(order.run_id, record, time.time()))


def _recorded_start(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "attempt.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record


def _write_json(target: Path, value: Any) -> None:
    staged = target.with_name(f"{target.name}#{os.getpid()}")
    staged.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(staged, target)
