"""Signs of life in a worker's log, read at a cost that does not grow with what the lines hold."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mosaic_cluster.logs import read_released
from mosaic_cluster.worker.telemetry import STEP_NAMES

CHUNK = 1 << 20
LINE_LIMIT = 1 << 22
ENDINGS = ("run_completed", "run_failed", "run_cancelled")
# Not just `"run_`: every line of the contract's emitter has a `"run_id"`.
_MARKS = re.compile(b'"(?:run_started|' + "|".join(ENDINGS).encode() + b')"').finditer


class LogWatch:
    """Follows a log: is the worker alive, how far is it, which lifecycle lines did it write.

    Args:
        path: the log; it need not exist yet.

    Attributes:
        last_sign: monotonic time of the last telemetry line, ``None`` before the first.
        last_step: largest step reported.
        started: whether it announced its start; ending: the last ending it announced.
        said: the payload of that ending.
        told: whether the log says what of it was let go.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.last_sign: float | None = None
        self.last_step: int | None = None
        self.started = False
        self.ending: str | None = None
        self.said: dict[str, Any] = {}
        self.told = False
        self._offset = 0
        self._partial = b""

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._offset

    def look(self, now: float, budget: int = 64 * CHUNK) -> None:
        """Read on.

        Args:
            now: monotonic time to give the signs seen.
            budget: bytes to read at most.
        """
        try:
            self.size = os.stat(self.path).st_size
        except OSError:
            return
        if self.size <= self._offset:
            return
        # Only who comes later finds a range released that it has not read: the supervisor has read what it lets go.
        gap = read_released(self.path)
        with self.path.open("rb", buffering=0) as stream:
            while budget > 0:
                if gap is not None and gap.first <= self._offset < gap.upto:
                    self._offset, self._partial = gap.upto, b""
                    self.started |= gap.started
                    self.last_step = max(filter(None, (self.last_step, gap.last_step)), default=self.last_step)
                stream.seek(self._offset)
                before = gap is not None and self._offset < gap.first
                data = stream.read(min(CHUNK, gap.first - self._offset) if gap is not None and before else CHUNK)
                if not data:
                    break
                budget -= len(data)
                self._offset += len(data)
                self._take(data, now)

    def _take(self, data: bytes, now: float) -> None:
        whole, line_end, rest = (self._partial + data).rpartition(b"\n")
        # A line of gigabytes is not kept in memory to find out what it says.
        self._partial = rest if len(rest) <= LINE_LIMIT else b""
        if not line_end:
            return
        if whole.startswith(b"{") or b"\n{" in whole:
            self.last_sign = now
        self._last_heartbeat(whole)
        for found in _MARKS(whole):
            self._lifecycle(_line_at(whole, found.start()))
        self.told = self.told or b'"log_released"' in whole

    def _last_heartbeat(self, text: bytes) -> None:
        """Only the last of them is read: what counts is how far the worker is now."""
        found = text.rfind(b'"heartbeat"')
        if found < 0:
            return
        event = _event(_line_at(text, found))
        if event.get("event") == "heartbeat":
            self._step(event.get("payload"))

    def _lifecycle(self, line: bytes) -> None:
        event = _event(line)
        name = event.get("event")
        if name == "run_started":
            self.started = True
        elif name in ENDINGS:
            self.ending = name
            payload = event.get("payload")
            self.said = payload if isinstance(payload, dict) else {}
            if name == "run_completed":
                self._step(payload)

    def _step(self, payload: Any) -> None:
        if not isinstance(payload, dict):
            return
        for name in STEP_NAMES:
            value = payload.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.last_step = max(int(value), self.last_step or 0)
                return


def _line_at(text: bytes, position: int) -> bytes:
    """The line that ``position`` is in."""
    start = text.rfind(b"\n", 0, position) + 1
    end = text.find(b"\n", position)
    return text[start : end if end >= 0 else len(text)]


def _event(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
