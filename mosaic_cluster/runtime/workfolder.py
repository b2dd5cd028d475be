"""Where an attempt works, if its storage is an object store: a folder of the node, and what goes to and from it.

On a file system that every node reaches, the run's folder in storage is the folder it works in, and all of this has
nothing to do. Otherwise it works in ``<work folder>/<experiment>/runs/<run>`` of its node, laid out alike, and whole
files go up under the same names. A later attempt on another node fetches what it needs.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mosaic_cluster.logs import RELEASED
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, Origin
from mosaic_cluster.runtime.checkpoints import EVENT, Checkpoint, announced, announced_checkpoints, last_checkpoint
from mosaic_cluster.runtime.saved import fetch, saved_checkpoints, stored_at
from mosaic_cluster.runtime.sending import HERE, SENT, Sender
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Outcome, close_lost, close_without_log, read_outcome
from mosaic_cluster.telemetry import Ack, HubClient, HubUnavailable, Pump
from mosaic_cluster.worker.errors import NotFound, StorageError

RECORDS = ("attempt.json", "launch.json", "outcome.json")
SEND_SECONDS = 300.0
HUB_SECONDS = 120.0
DRAIN_SECONDS = 120.0
ACTOR_LOST = "the worker actor was lost while the run went on (killed, or its node or driver died)"
ASK_SECONDS = 0.1


class WorkFolder:
    """The folder of a run whose storage is a file system: what its node writes is in storage."""

    def __init__(self, order: AttemptOrder) -> None:
        self.order = order

    def refusal(self) -> str | None:
        """Why this node cannot run it."""
        if not (self.order.folder / "experiment.json").is_file():
            return (
                f"the experiment's folder {self.order.folder} cannot be seen on node "
                f"{socket.gethostname()}: storage must be a path that every node mounts at the same place"
            )
        return None

    def open_attempt(self) -> None:
        """Make the attempt's folder."""
        self.order.attempt_dir().mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """The attempt is about to begin, and its records say so."""

    def taken(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """The hub has taken some rows of its log."""

    def close(self, attempt: int, hub: HubClient) -> tuple[Outcome, int, int]:
        """Close an attempt that nobody runs any more, and bring the tail of its log to Parquet.

        Returns:
            How it ended; committed bytes and size of its log.
        """
        folder = str(self.order.attempt_dir(attempt))
        outcome = read_outcome(folder)
        if outcome is None:
            outcome = close_lost(folder, self.order.run_id, attempt, "actor_lost", ACTOR_LOST)
        return outcome, *drain(self.order, attempt, hub)

    def finish(self, attempt: int, committed: int, size: int) -> tuple[str, ...]:
        """An attempt is closed; returns the names of files that did not get to storage."""
        return ()

    def tidy(self, result: AttemptResult) -> None:
        """The attempt's result is known: nothing of it is needed here any more, if it was the last."""

    def origin_path(self, origin: Origin) -> str:
        """Path of the checkpoint of another run that it goes on from."""
        return origin.path

    def last_checkpoint(self, since: int) -> Checkpoint | None:
        """The newest usable checkpoint of earlier attempts from ``since`` on."""
        return last_checkpoint(self.order.run_dir, self.order.attempt, since=since)


class ScratchFolder(WorkFolder):
    """The folder of a run on its node, and how it is kept level with storage."""

    def __init__(self, order: AttemptOrder) -> None:
        super().__init__(order)
        self._run = order.storage.at(f"runs/{order.run_id}")
        self._sender: Sender | None = None

    def refusal(self) -> str | None:
        """See :class:`WorkFolder`."""
        if self.order.storage.exists("experiment.json"):
            return None
        return f"there is no experiment at {self.order.experiment_dir}, as seen from node {socket.gethostname()}"

    def open_attempt(self) -> None:
        """See :class:`WorkFolder`."""
        super().open_attempt()
        (self.order.attempt_dir() / HERE).touch()

    def begin(self) -> None:
        """Say in storage that it has begun, and let files follow as they come.

        Raises:
            StorageError: nothing can be written there.
        """
        name = f"attempts/{self.order.attempt}/attempt.json"
        self._run.put(name, (self.order.run_dir / name).read_bytes())
        self._sender = Sender(self._run, self.order.run_dir, self.order.attempt)
        self._sender.start()

    def taken(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """Checkpoints among what was announced are on their way from now on."""
        rows = tables.get("lifecycle")
        if rows is None or self._sender is None:
            return
        rows = rows.filter(pc.equal(rows.column("event").cast(pa.string()), EVENT))
        for offset, payload in zip(rows["offset"].to_pylist(), rows["payload"].to_pylist(), strict=True):
            found = announced(json.loads(payload), self.order.run_dir, self.order.attempt, offset)
            if found is not None:
                self._sender.announce(found)

    def close(self, attempt: int, hub: HubClient) -> tuple[Outcome, int, int]:
        """See :class:`WorkFolder`; what is here of an attempt that ran here is the truth.

        Raises:
            HubUnavailable: its log is not here, and the hub cannot say what it has.
            StorageError: what is in storage of it cannot be read.
        """
        if self._ran_here(attempt):
            return super().close(attempt, hub)
        self._fetch_records(attempt)
        folder = self.order.attempt_dir(attempt)
        outcome = read_outcome(str(folder)) or self._close_without_log(attempt, hub)
        if (folder / "stdout.log").is_file():
            return outcome, *drain(self.order, attempt, hub)
        return self._drain_elsewhere(attempt, outcome, hub)

    def _fetch_records(self, attempt: int) -> None:
        for name in RECORDS:
            try:
                self._run.download(f"attempts/{attempt}/{name}", self.order.attempt_dir(attempt) / name)
            except NotFound:
                continue

    def _ran_here(self, attempt: int) -> bool:
        """Whether it ran here, and its folder has not been lost since."""
        return (self.order.attempt_dir(attempt) / HERE).is_file()

    def _close_without_log(self, attempt: int, hub: HubClient) -> Outcome:
        """Close an attempt whose node's disk is gone: say from where on telemetry is lost.

        Raises:
            HubUnavailable: the hub cannot say what it has.
        """
        folder = self.order.attempt_dir(attempt)
        ack = _all_committed(hub, self.order.run_id, attempt)
        begun = _json(folder / "attempt.json")
        where = f"node {begun.get('node')}" if begun else "its node"
        message = (
            f"the log of attempt {attempt} is gone with the disk of {where}: telemetry from byte {ack.committed} of "
            "it on is lost"
        )
        first = start_line(self.order.run_id, begun, time.time()) if begun else b""
        return close_without_log(
            folder, self.order.run_id, attempt, message, ack.committed,
            first=first, last_step=ack.last_step, last_seen=None if ack.last_ts is None else ack.last_ts / 1e6,
        )  # fmt: skip

    def _drain_elsewhere(self, attempt: int, outcome: Outcome, hub: HubClient) -> tuple[Outcome, int, int]:
        """Bring the rest of a log that was sealed on another node to Parquet, from its copy in storage.

        Returns:
            The outcome, which says what is lost if there is no such copy; committed bytes and size of the log.

        Raises:
            HubUnavailable: the hub cannot say what it has.
            StorageError: the copy cannot be read.
        """
        folder = f"attempts/{attempt}"
        ack = _all_committed(hub, self.order.run_id, attempt)
        try:
            size = int(self._run.get_json(f"{folder}/{SENT}")["log_bytes"])
        except NotFound:
            size = ack.committed + 1  # it was not told: there may be more
        if ack.committed >= size:
            return outcome, ack.committed, size
        with tempfile.TemporaryDirectory(prefix="mosaic-log-") as there:
            log = Path(there) / "stdout.log"
            try:
                self._run.download(f"{folder}/{log.name}", log)
            except NotFound:
                return self._tail_lost(attempt, outcome, ack.committed), ack.committed, ack.committed
            try:
                self._run.download(f"{folder}/{RELEASED}", log.with_name(RELEASED))
            except NotFound:
                pass
            committed = Pump(log, self.order.run_id, attempt, hub).drain(HUB_SECONDS)
            return outcome, committed, log.stat().st_size

    def _tail_lost(self, attempt: int, outcome: Outcome, committed: int) -> Outcome:
        if outcome.telemetry_lost_from is not None:
            return outcome
        message = f"{outcome.message}; the end of its log is gone with its node's disk, from byte {committed} on"
        told = replace(outcome, message=message, telemetry_lost_from=committed)
        self._run.put_json(f"attempts/{attempt}/outcome.json", told.to_dict())
        return told

    def finish(self, attempt: int, committed: int, size: int) -> tuple[str, ...]:
        """Send what has not been sent of a closed attempt.

        Returns:
            Names of files that did not get to storage; they stay here.
        """
        sender, self._sender = self._sender, None
        folder = self.order.attempt_dir(attempt)
        if sender is None:
            if not (folder / "stdout.log").is_file() or (folder / SENT).is_file():
                return ()
            sender = Sender(self._run, self.order.run_dir, attempt, logs=self._ran_here(attempt))
            if self._ran_here(attempt):
                for found in announced_checkpoints(self.order.run_dir, attempt, self.order.telemetry):
                    sender.announce(found)
            sender.start()
        return sender.finish(committed, size, SEND_SECONDS)

    def tidy(self, result: AttemptResult) -> None:
        """A run that is done, and all of it in storage, leaves nothing here."""
        done = result.outcome.state == "COMPLETED" and result.committed >= result.log_bytes
        if done and not result.unsent:
            shutil.rmtree(self.order.run_dir, ignore_errors=True)

    def origin_path(self, origin: Origin) -> str:
        """See :class:`WorkFolder`; the copy is brought here if it is not."""
        path = self.order.run_dir / origin.path
        if not path.exists():
            fetch(self._run, stored_at(self._run, origin.path, origin.step, origin.attempt), self.order.run_dir)
        return str(path)

    def last_checkpoint(self, since: int) -> Checkpoint | None:
        """The newest one, here or in storage; brought here if it is not."""
        run_dir = self.order.run_dir
        for attempt in range(self.order.attempt - 1, since - 1, -1):
            here: dict[int | None, Checkpoint] = {}
            if self._ran_here(attempt):
                found = announced_checkpoints(run_dir, attempt, self.order.telemetry)
                here = {each.offset: each for each in found}
            stored = {each.offset: each for each in saved_checkpoints(self._run, attempt)}
            for offset in sorted({*here, *stored}, key=lambda at: at or 0, reverse=True):
                if offset in here:
                    return here[offset]
                try:
                    path = fetch(self._run, stored[offset or 0], run_dir)
                except NotFound:
                    continue
                return Checkpoint(str(path), stored[offset or 0].step, attempt, offset)
        return None


def work_folder_of(order: AttemptOrder) -> WorkFolder:
    """The folder that an order's run works in on this node."""
    return WorkFolder(order) if order.storage.is_local else ScratchFolder(order)


def drain(order: AttemptOrder, attempt: int, hub: HubClient, pump: Pump | None = None) -> tuple[int, int]:
    """Bring a sealed log to Parquet to its last byte.

    Returns:
        Committed bytes and size of the log. They differ only if the hub stayed away too long: the log stays,
        and whoever closes the experiment tries again.
    """
    log = order.attempt_dir(attempt) / "stdout.log"
    if not log.is_file():
        return 0, 0
    pump = pump or Pump(log, order.run_id, attempt, hub)
    try:
        committed = pump.drain(DRAIN_SECONDS)
    except HubUnavailable:
        committed = 0
    return committed, log.stat().st_size


def start_line(run_id: str, record: Mapping[str, Any], now: float) -> bytes:
    """The first line of an attempt's log, so that the tables alone tell what a later attempt did again."""
    line = {"event": "attempt_started", "payload": record, "run_id": run_id, "source": "supervisor", "timestamp": now}
    return json.dumps(line, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _all_committed(hub: HubClient, run_id: str, attempt: int) -> Ack:
    """What the hub has of a log to which nothing comes any more, once that is in storage."""
    end = time.monotonic() + HUB_SECONDS
    while True:
        try:
            ack = hub.watermark(run_id, attempt)
            if ack.committed >= ack.accepted:
                return ack
            hub.flush(run_id, attempt, ack.accepted)
        except HubUnavailable:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise HubUnavailable(f"the telemetry hub has not committed all it has of run {run_id}")
        time.sleep(ASK_SECONDS)


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def begun_in_storage(order: AttemptOrder) -> bool:
    """Whether anything of an attempt has begun, as seen from another node; if that cannot be seen, it may have."""
    storage: Storage = order.storage
    if storage.is_local:
        return order.attempt_dir().exists()
    try:
        return storage.exists(f"runs/{order.run_id}/attempts/{order.attempt}/attempt.json")
    except StorageError:
        return True
