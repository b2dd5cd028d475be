"""Which checkpoint an attempt continues from: the last one its run announced and that is still there."""

from __future__ import annotations

import json
import os
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
        attempt: the attempt that wrote it.
        offset: where in that attempt's log it was announced, in bytes.
    """

    path: str
    step: int
    attempt: int
    offset: int


def last_checkpoint(run_dir: Path, before_attempt: int) -> Checkpoint | None:
    """The newest usable checkpoint of the attempts before ``before_attempt``.

    The logs say which were announced; one whose file is gone or empty is passed over for an older one.
    """
    for attempt in range(before_attempt - 1, 0, -1):
        log = run_dir / "attempts" / str(attempt) / "stdout.log"
        if not log.is_file():
            continue
        for offset, line in reversed(list(_marked_lines(log))):
            found = _announced(line, run_dir, attempt, offset)
            if found is not None:
                return found
    return None


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
