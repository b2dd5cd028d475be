"""TensorBoard: scalars in ``runs/<run_id>/tensorboard/``, unless the worker writes event files itself."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from mosaic_cluster.telemetry.bridges.protocols import Points, Run, Setup
from mosaic_cluster.worker.analytics import WorkerAnalyticsManifest
from mosaic_cluster.worker.errors import ConfigError

OURS = ".mosaic"
"""How the names of our event files end: TensorBoard takes any name with ``tfevents`` in it."""
FOLDER = "tensorboard"
LOOK_SECONDS = 10.0
NOT_LOOKED_INTO = frozenset({"attempts", "checkpoints"})


class TensorBoard:
    """See :class:`~mosaic_cluster.telemetry.bridges.protocols.Bridge`.

    A later attempt that does steps again takes back those of the one before, with TensorBoard's own means: a
    session start at its first step.
    """

    most_open = 100
    settle_seconds = 0.0

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._files: dict[str, _EventFile] = {}
        self._attempts: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        # Of this process alone: where another was killed, a file may end in half a record, and is not gone on with.
        self._session = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._numbers = itertools.count()

    def declined(self, run_id: str) -> str | None:
        """Event files that are not ours, or the worker's manifest naming some. Ours are removed then."""
        now = time.monotonic()
        if now - self._looked.get(run_id, -LOOK_SECONDS) < LOOK_SECONDS and run_id in self._files:
            return None
        self._looked[run_id] = now
        folder = self._setup.folder / "runs" / run_id
        found = next(_theirs(folder), None) or _named_in_manifest(folder, run_id)
        if found is None:
            return None
        self.end(run_id, None)
        for path in (folder / FOLDER).glob(f"*tfevents*{OURS}"):
            path.unlink(missing_ok=True)
        return f"its worker writes its own: {found}"

    def start(self, run: Run) -> str:
        """See :class:`Bridge`."""
        folder = self._setup.folder / "runs" / run.run_id / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{self._session}.{next(self._numbers):06d}{OURS}"
        self._files[run.run_id] = _EventFile(folder / name)
        self._attempts.setdefault(run.run_id, run.attempt)
        return f"runs/{run.run_id}/{FOLDER}"

    def write(self, points: Points) -> None:
        """See :class:`Bridge`."""
        file = self._files[points.run_id]
        again = points.attempt > self._attempts[points.run_id]
        self._attempts[points.run_id] = points.attempt
        for _, when, step, values in points.rows():
            seconds = when / 1e6
            if again:
                # What the earlier attempt had done from here on is done again.
                file.add(Event(wall_time=seconds, step=step, session_log=SessionLog(status=SessionLog.START)))
                again = False
            scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            file.add(Event(wall_time=seconds, step=step, summary=Summary(value=scalars)))

    def end(self, run_id: str, state: str | None) -> None:
        """See :class:`Bridge`."""
        file = self._files.pop(run_id, None)
        if file is not None:
            file.close()

    def flush(self) -> None:
        """See :class:`Bridge`."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """See :class:`Bridge`."""


class _EventFile:
    """An event file that is being written."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = open(path, "xb", buffering=1 << 18)  # noqa: SIM115 -- closed by close()
        self._records = RecordWriter(self._file)
        self.add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _theirs(folder: Path) -> Iterator[str]:
    """Event files below a run's folder that this bridge has not written."""
    for top, folders, files in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if name not in NOT_LOOKED_INTO]
        for name in files:
            if "tfevents" in name and not name.endswith(OURS):
                yield str(Path(top, name).relative_to(folder))


def _named_in_manifest(folder: Path, run_id: str) -> str | None:
    """Folder with event files that a manifest of the worker, or ours made of it, names."""
    for path in (folder / f"{run_id}_analytics.json", folder / "analytics.json"):
        try:
            named = WorkerAnalyticsManifest.load(path).artifacts.tensorboard
        except (OSError, ConfigError):
            continue
        if named is not None and named.enabled:
            return named.log_dir
    return None
