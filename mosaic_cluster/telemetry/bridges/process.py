"""The process of one bridge: writes what has been committed to one tracker, until told that no more will come.

``python -m mosaic_cluster.telemetry.bridges.process FOLDER STORAGE NAME OPTIONS PARENT``; the end of stdin tells.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.bridges import BRIDGES, FOLDER
from mosaic_cluster.telemetry.bridges.follow import Cursor, DataFile, Thinning, read_points
from mosaic_cluster.telemetry.bridges.protocols import Bridge, Points, Run, Setup
from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 1.0
STATES_SECONDS = 5.0
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
WRITTEN, TAKEN = 64, 65
"""Exit codes: all is written; another process writes the same already. Not 0: a tracker's library may exit, too."""

Wait = Callable[[float], bool]
Log = Callable[[str], None]


def serve(
    folder: Path, name: str, options: Mapping[str, Any], wait: Wait, log: Log, storage: Storage | None = None
) -> int:
    """Write an experiment's metrics to a tracker.

    Args:
        folder: the experiment's folder, or what stands in for it on this machine.
        name: of the bridge.
        options: its section of the spec.
        wait: waits so many seconds for more, and says whether nothing comes after what is there now.
        log: takes lines about what is going on.
        storage: the experiment's folder in storage; default: ``folder``.

    Returns:
        how many files were written.

    Raises:
        AlreadyExists: another process is at it.
    """
    with _only_one(folder, name):
        writer = _Writer(folder, storage or Storage.open(folder), name, options, log)
        seconds = 0.0
        while True:
            last = wait(seconds)
            files = writer.cursor.new_files()
            for file in files:
                writer.take(file)
            writer.end_runs(final=last)
            if last:
                writer.close()
                return writer.files
            seconds = 0.0 if files else POLL_SECONDS


class _Writer:
    """Between the files and a bridge, which is loaded when there is something to write."""

    def __init__(self, folder: Path, storage: Storage, name: str, options: Mapping[str, Any], log: Log) -> None:
        self.files = 0
        self.storage = storage
        self.cursor = Cursor(self.storage, name)
        own = dict(options)
        self._thin = Thinning(float(own.pop("points_per_second")))
        self._entry, self._options, self._log = BRIDGES[name], own, log
        record = self.storage.get_json("experiment.json")
        self._setup = Setup(record["experiment_id"], record["name"], folder, log)
        self._made: Bridge | None = None
        self._open: OrderedDict[str, None] = OrderedDict()
        self._looked = self._settled = time.monotonic()

    @property
    def bridge(self) -> Bridge:
        """Loaded at its first use."""
        if self._made is None:
            self._made = self._entry.make(self._setup, self._options)
        return self._made

    def take(self, file: DataFile) -> None:
        """Write one file, then move the cursor."""
        thinned = self._thin.dropped
        for points in read_points(self.storage, file, self.cursor, self._thin):
            self._write(points)
        self.cursor.written(file)
        self.files += 1
        self._make_sure()
        if self._thin.dropped and not thinned:
            self._log(
                f"metrics come denser than {self._thin.per_second:g} points a second, and are thinned to that for "
                "this tracker; telemetry/metrics has every point"
            )

    def _make_sure(self) -> None:
        """Move the stored cursor to where the tracker is sure to be."""
        if self._made is not None:
            if time.monotonic() - self._settled < self._made.settle_seconds:
                return
            if self._made.settle_seconds:
                for run_id in list(self._open):
                    self._end(run_id, None)
            self._made.flush()
        self._settled = time.monotonic()
        self.cursor.save()

    def _write(self, points: Points) -> None:
        run_id = points.run_id
        mark = self.cursor.run(run_id)
        if mark.declined is not None or self._declined(run_id):
            return
        if run_id not in self._open:
            if len(self._open) >= self.bridge.most_open:
                self._end(next(iter(self._open)), None)
            # An attempt that follows on one this tracker has is new to it, also where we have just begun.
            attempt = mark.attempt or points.attempt
            mark.where = self.bridge.start(self._run(run_id, attempt, points.first_row))
        self._open[run_id] = None
        self._open.move_to_end(run_id)
        self.bridge.write(points)
        mark.attempt = points.attempt

    def _declined(self, run_id: str) -> bool:
        mark = self.cursor.run(run_id)
        mark.declined = self.bridge.declined(run_id)
        if mark.declined is None:
            return False
        mark.where = None
        self._open.pop(run_id, None)
        self._log(f"run {run_id} is not written: {mark.declined}")
        return True

    def _run(self, run_id: str, attempt: int, rows: int) -> Run:
        entry = self._status().get(run_id, {})
        trial = entry.get("trial")
        label = f"{self._setup.name}-{run_id[-4:]}" if trial is None else f"{trial}-s{entry['seed']}"
        try:
            config = self.storage.get_json(f"runs/{run_id}/config.json")
        except (NotFound, StorageError):
            config = {}
        return Run(run_id, label, config, attempt, rows)

    def _status(self) -> dict[str, dict[str, Any]]:
        try:
            return {run["run_id"]: run for run in self.storage.get_json("status.json")["runs"]}
        except (NotFound, StorageError):
            return {}

    def end_runs(self, *, final: bool) -> None:
        """Close the runs that have ended; at the very end, all."""
        if not self._open or (not final and time.monotonic() - self._looked < STATES_SECONDS):
            return
        self._looked = time.monotonic()
        status = self._status()
        for run_id in list(self._open):
            state = status.get(run_id, {}).get("state")
            if state in ENDED or final:
                self._end(run_id, state if state in ENDED else None)

    def _end(self, run_id: str, state: str | None) -> None:
        self._open.pop(run_id, None)
        self.bridge.end(run_id, state)
        if state is not None:
            self._declined(run_id)

    def close(self) -> None:
        """Nothing more comes."""
        # A manifest may name event files of the worker's own only once its run is over.
        if self._made is None:
            return
        for run_id, mark in self.cursor.runs.items():
            if mark.where is not None:
                self._declined(run_id)
        self._made.close()
        self.cursor.save()


@contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    path = folder / FOLDER / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(
                f"another process writes {folder.name} to {name} already; it can be left to that, or ended first"
            ) from None
        yield


def _until_told(seconds: float) -> bool:
    """Wait for the end of stdin, or anything on it."""
    return bool(select.select([0], [], [], seconds)[0])


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """The process; returns its exit code."""
    folder, location, name, options, parent = arguments
    # Dies with the driver, however that goes; nobody is left who could have missed its end.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return 0
    os.nice(10)
    try:
        serve(Path(folder), name, json.loads(options), _until_told, _say, Storage.open(location))
    except AlreadyExists as error:
        _say(str(error))
        return TAKEN
    return WRITTEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
