"""Sending a run's files from its work folder to an object store, in the background. Never stands in a run's way."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mosaic_cluster.logs import RELEASED
from mosaic_cluster.runtime.checkpoints import Checkpoint
from mosaic_cluster.runtime.saved import Uploads
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision.outcome import write_json
from mosaic_cluster.units import format_bytes
from mosaic_cluster.worker.errors import NoSuchBucket, StorageDenied, StorageError, StorageUnavailable

HERE = "here"
"""In an attempt's folder on the node where it runs, and nowhere else."""

SENT = "sent.json"
LOGS = ("stdout.log", "stderr.log")
LARGEST_LOG = 4 << 30
LOOK_SECONDS = 5.0
STILL_SECONDS = 2.0
RETRY_SECONDS = 2.0
NOT_SENT = frozenset({"attempts", "checkpoints"})


class Sender:
    """Sends one attempt's files as they come, and the rest when it has ended.

    Args:
        run: the run's folder in storage.
        run_dir: the same on this node.
        logs: whether its logs and the run's own files are sent, too.
    """

    def __init__(self, run: Storage, run_dir: Path, attempt: int, *, logs: bool = True) -> None:
        self._logs = logs
        self._run, self._run_dir = run, run_dir
        self._attempt = f"attempts/{attempt}"
        self._uploads = Uploads(run, run_dir, attempt)
        self._lock = threading.Lock()
        self._announced: list[Checkpoint] = []
        self._sent: dict[str, tuple[int, int]] = {}
        self._left: list[str] = []
        self._refused: list[str] = []
        self._log: tuple[int, int] | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._why = ""
        self._thread = threading.Thread(target=self._loop, name=f"sender-{run_dir.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def announce(self, found: Checkpoint) -> None:
        """A checkpoint is there to be sent."""
        with self._lock:
            if all(each.offset != found.offset for each in self._announced):
                self._announced.append(found)
        self._wake.set()

    def finish(self, committed: int, log_bytes: int, seconds: float) -> tuple[str, ...]:
        """Send the rest and end.

        Args:
            committed: byte up to which the sealed log is in Parquet; log_bytes: its size.
            seconds: how long that may take.

        Returns:
            What could not be sent.
        """
        with self._lock:
            self._log = (committed, log_bytes)
        self._wake.set()
        self._thread.join(seconds)
        self._stop.set()
        if self._done.is_set():
            return (*self._refused, *self._left)
        logging.getLogger(__name__).warning("%s: not everything got to storage: %s", self._run_dir.name, self._why)
        with self._lock:
            waiting = [os.path.basename(each.path) for each in self._announced]
        return (*self._refused, *waiting, *(name for name, _ in self._changed(final=True)))

    def _loop(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                log = self._log
            try:
                self._pass(log)
                if log is not None:
                    self._done.set()
                    return
                wait = LOOK_SECONDS
            except StorageDenied as error:
                self._why = str(error)
                if log is not None:
                    return
                wait = LOOK_SECONDS
            except (StorageError, OSError) as error:
                self._why = str(error)
                wait = RETRY_SECONDS
            self._wake.wait(wait)
            self._wake.clear()

    def _pass(self, log: tuple[int, int] | None) -> None:
        self._send_checkpoints()
        if log is None:
            for name, seen in self._changed(final=False):
                self._send(name, seen)
            return
        record = {"committed": log[0], "log_bytes": log[1], "left": self._too_large()}
        # Before the outcome: whoever finds that has to know how long the log is.
        self._run.put_json(f"{self._attempt}/{SENT}", record)
        for name, seen in self._changed(final=True):
            self._send(name, seen)
        write_json(self._run_dir / self._attempt / SENT, record)

    def _send_checkpoints(self) -> None:
        """The newest first: it is what a next attempt goes on from."""
        while not self._stop.is_set():
            with self._lock:
                if not self._announced:
                    return
                newest = max(self._announced, key=lambda each: each.offset or 0)
            if newest.offset not in self._uploads.there():
                try:
                    self._uploads.put(Path(newest.path), newest.step, newest.offset or 0)
                except (StorageUnavailable, StorageDenied, NoSuchBucket):
                    raise
                except (StorageError, OSError) as error:
                    # This one will never go; the others, and the records, must not wait for it.
                    self._refused.append(os.path.basename(newest.path))
                    said = "%s: the checkpoint %s is not in storage: %s"
                    logging.getLogger(__name__).warning(said, self._run_dir.name, newest.path, error)
            with self._lock:
                self._announced.remove(newest)

    def _send(self, name: str, seen: tuple[int, int]) -> None:
        path = self._run_dir / name
        if self._stop.is_set() or not path.is_file():
            return
        self._run.upload(name, path)
        self._sent[name] = seen

    def _too_large(self) -> dict[str, str]:
        found = {}
        for name in LOGS:
            path = self._run_dir / self._attempt / name
            size = path.stat().st_size if path.is_file() else 0
            if size > LARGEST_LOG:
                found[name] = f"it has {format_bytes(size)}, more than {format_bytes(LARGEST_LOG)}"
        self._left = [f"{self._attempt}/{name}" for name in found]
        return found

    def _changed(self, *, final: bool) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names of files that storage does not have as they are, and their size and time of change.

        Args:
            final: nothing is written to them any more.
        """
        now = time.time()
        records = ["attempt.json", "launch.json", *(("outcome.json",) if final else ())]
        if final and self._logs:
            records += [RELEASED, *LOGS]
        names = [f"{self._attempt}/{name}" for name in records]
        for name in [*names, *(self._own_files() if self._logs else ())]:
            try:
                found = (self._run_dir / name).stat()
            except OSError:
                continue
            seen = (found.st_size, found.st_mtime_ns)
            still = final or now - found.st_mtime >= STILL_SECONDS
            if still and self._sent.get(name) != seen and name not in self._left:
                yield name, seen

    def _own_files(self) -> list[str]:
        """The run's own files: its config, and what its worker wrote beside checkpoints."""
        found = []
        for folder, below, files in os.walk(self._run_dir):
            here = Path(folder).relative_to(self._run_dir)
            if not here.parts:
                below[:] = [name for name in below if name not in NOT_SENT]
            found += [str(here / name) for name in files if "#" not in name and not name.startswith(".")]
        return found
