"""Which checkpoint an attempt continues from: the last one its run announced and that is still there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mosaic_cluster.logs import read_released
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import LogTail, released_rows

EVENT = "checkpoint_saved"
MARK = b'"checkpoint_saved"'


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a worker announced.

    Attributes:
        path: absolute path of the file or folder.
        step: environment steps trained when it was written.
        attempt: the attempt whose log counts up to it: the one that wrote it.
        offset: where in that attempt's log it was announced, in bytes.
    """

    path: str
    step: int
    attempt: int | None
    offset: int | None


def last_checkpoint(run_dir: Path, before_attempt: int, since: int = 1) -> Checkpoint | None:
    """The newest usable checkpoint of the attempts from ``since`` on, before ``before_attempt``.

    The logs say which were announced; one whose file is gone or empty is passed over for an older one.
    """
    for attempt in range(before_attempt - 1, since - 1, -1):
        log = run_dir / "attempts" / str(attempt) / "stdout.log"
        if log.is_file() and (found := announced_checkpoints(run_dir, attempt)):
            return found[-1]
    return None


def announced_checkpoints(run_dir: Path, attempt: int, telemetry: Path | Storage | None = None) -> list[Checkpoint]:
    """The usable checkpoints that an attempt announced in its log, in order.

    Args:
        telemetry: the experiment's ``telemetry`` folder; default: the one beside ``runs``.
    """
    log = run_dir / "attempts" / str(attempt) / "stdout.log"
    where = run_dir.parents[1] / "telemetry" if telemetry is None else telemetry
    found = (announced(payload, run_dir, attempt, at) for at, payload in _announcements(log, run_dir, attempt, where))
    return [each for each in found if each is not None]


def checkpoint_at(run_dir: Path, before_attempt: int, step: int, since: int = 1) -> Checkpoint | None:
    """The usable checkpoint of the attempts from ``since`` on that was saved at ``step`` or soonest after it."""
    found = [
        checkpoint
        for attempt in range(since, before_attempt)
        for checkpoint in announced_checkpoints(run_dir, attempt)
        if checkpoint.step >= step
    ]
    # Of the same step, the later one: an earlier attempt's is the same, or was trained again since.
    return min(found, key=lambda each: (each.step, -(each.attempt or 0)), default=None)


def copy_checkpoint(found: Checkpoint, run_dir: Path, label: str) -> str:
    """Copy another run's checkpoint into a run's folder, whole or not at all; returns the copy's path.

    Args:
        label: name of the folder for it, below ``checkpoints``. What is there already is taken as it is.

    Raises:
        OSError: it cannot be copied.
    """
    source, folder = Path(found.path), run_dir / "checkpoints" / label
    if not folder.exists():
        staged = folder.with_name(f".{label}.{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, staged / source.name)
        else:
            shutil.copy2(source, staged / source.name)
        os.replace(staged, folder)
    return str(folder / source.name)


def _announcements(log: Path, run_dir: Path, attempt: int, telemetry: Path | Storage) -> Iterator[tuple[int, Any]]:
    """Offset and payload of each: from the log, and of what was let go of it, from the tables."""
    gap = read_released(log)
    tail = LogTail(log)
    while lines := tail.read(final=True):
        if gap is not None and lines[0][0] >= gap.upto:
            rows = released_rows("lifecycle", gap, run_dir.name, attempt, telemetry)
            saved = rows.filter(pc.equal(rows["event"], EVENT)).select(["offset", "payload"])
            yield from ((row["offset"], json.loads(row["payload"])) for row in saved.to_pylist())
            gap = None
        for offset, line in lines:
            if MARK in line:
                yield offset, _payload(line)


def _payload(line: bytes) -> Any:
    try:
        event = json.loads(line)
        return event["payload"] if event.get("event") == EVENT else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def announced(payload: Any, run_dir: Path, attempt: int, offset: int) -> Checkpoint | None:
    """The checkpoint that an event's payload names, if it is usable."""
    try:
        path = run_dir / str(payload["path"])
        step = int(payload["step"])
    except (ValueError, KeyError, TypeError):
        return None
    return Checkpoint(os.fspath(path), step, attempt, offset) if _usable(path) else None


def _usable(path: Path) -> bool:
    try:
        if path.is_dir():
            return any(path.iterdir())
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False  # it is just being removed, or its name is none
