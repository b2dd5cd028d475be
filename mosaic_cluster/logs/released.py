"""The record of a released range: the middle of a log, given back to the disk while the file kept its size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELEASED = "released.json"
"""Beside the logs: for each that has one, by file name, its released range."""


@dataclass(frozen=True)
class Released:
    """A range of a log that reads as zeros. Offsets before and after it are what they were.

    Attributes:
        first: its first byte, the first of a line; upto: the byte after it, the first of a line too.
        log_lines: lines in there that were no telemetry, blank ones left out.
        started: whether the worker announced its start before ``upto``.
        last_step: largest step of a heartbeat seen before it was released.
    """

    first: int
    upto: int
    log_lines: int = 0
    started: bool = False
    last_step: int | None = None

    @property
    def size(self) -> int:
        """Bytes in there."""
        return self.upto - self.first

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "from": self.first,
            "upto": self.upto,
            "log_lines": self.log_lines,
            "started": self.started,
            "last_step": self.last_step,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Released:
        """The inverse of :meth:`to_dict`."""
        return cls(data["from"], data["upto"], data["log_lines"], data["started"], data["last_step"])


def read_released(log: str | Path) -> Released | None:
    """What of ``log`` was let go; ``None`` if nothing was.

    The record is written before the bytes go. So whoever looks again after reading, and finds the same, has read no
    zeros.
    """
    path = Path(log)
    try:
        with open(path.parent / RELEASED, encoding="utf-8") as stream:
            found = json.load(stream).get(path.name)
    except FileNotFoundError:
        return None
    return None if found is None else Released.from_dict(found)
