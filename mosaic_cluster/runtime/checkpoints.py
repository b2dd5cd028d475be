"""Which checkpoint an attempt continues from: the last one its run announced and that is still there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        if not log.is_file():
            continue
        for offset, line in reversed(list(_marked_lines(log))):
            found = _announced(line, run_dir, attempt, offset)
            if found is not None:
                return found
    return None


def checkpoint_at(run_dir: Path, before_attempt: int, step: int, since: int = 1) -> Checkpoint | None:
    """The usable checkpoint of the attempts from ``since`` on that was saved at ``step`` or soonest after it."""
    found = [
        checkpoint
        for attempt in range(since, before_attempt)
        if (log := run_dir / "attempts" / str(attempt) / "stdout.log").is_file()
        for offset, line in _marked_lines(log)
        if (checkpoint := _announced(line, run_dir, attempt, offset)) is not None and checkpoint.step >= step
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


def _marked_lines(log: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with log.open("rb") as stream:
        for line in stream:
            if MARK in line:
                yield offset, line
            offset += len(line)


def _announced(line: bytes, run_dir: Path, attempt: int, offset: int) -> Checkpoint | None:
    try:
        event = json.loads(line)
        if event.get("event") != "checkpoint_saved":
            return None
        payload = event["payload"]
        path = run_dir / str(payload["path"])
        step = int(payload["step"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Checkpoint(os.fspath(path), step, attempt, offset) if _usable(path) else None


def _usable(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0
