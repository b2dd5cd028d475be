"""Letting go of the middle of logs, so that a run that prints for weeks takes a bounded part of the disk.

The file keeps its size and every byte its offset: a hole is punched. What was in there is in Parquet, but for the
lines that are no telemetry.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from pathlib import Path

from mosaic_cluster.logs import RELEASED, Released, read_released
from mosaic_cluster.supervision.outcome import write_json

STRIDE = 16 << 20
CHUNK = 1 << 20
LONGEST_LINE = 64 << 20
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_PLAIN = re.compile(rb"\n(?:[^{\s]|[ \t\r]+[^{\s])")


class Releaser:
    """Keeps the first and the newest half of ``keep`` bytes of one log.

    Args:
        log: the file.
        keep: bytes to keep.
    """

    def __init__(self, log: Path, keep: int) -> None:
        self.released = read_released(log)
        self._log = log
        self._half = keep // 2
        self._stride = max(1, min(STRIDE, keep // 4))
        self._longest = min(LONGEST_LINE, self._half)
        self._able: bool | None = None
        self._owed: tuple[int, int] | None = None

    def step(self, size: int, safe: int, *, started: bool = False, last_step: int | None = None) -> Released | None:
        """Let go of what lies in the middle, if it is worth it.

        Args:
            size: of the log now.
            safe: byte up to which nobody needs it any more.
            started, last_step: what is known of the lines before ``safe``, for the record.

        Returns:
            All that is released since this call, if that is more than before.
        """
        self._pay()
        known = self.released
        begin = known.upto if known is not None else self._half
        target = min(size - self._half, safe)
        if target - begin < self._stride or not self._can():
            return None
        descriptor = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
        try:
            if known is None:
                begin = _line_after(descriptor, begin, min(target, begin + self._longest))
            first = known.first if known is not None else begin
            upto = _line_before(descriptor, max(begin, target - self._longest), target, begin)
            if upto <= begin:
                return None
            lines = (known.log_lines if known is not None else 0) + _plain_lines(descriptor, begin, upto)
            released = Released(first, upto, lines, started, last_step)
            self._record(released)
            self.released, self._owed = released, (begin, upto)
        finally:
            os.close(descriptor)
        self._pay()
        return self.released

    def _pay(self) -> None:
        """Give back what is recorded as let go: at once, or the next time if that failed."""
        if self._owed is None:
            return
        begin, upto = self._owed
        descriptor = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
        try:
            _punch(descriptor, begin, upto - begin)
        finally:
            os.close(descriptor)
        self._owed = None

    def _can(self) -> bool:
        """Whether this file system can do it; where it cannot, logs stay whole."""
        if self._able is None:
            with tempfile.TemporaryFile(dir=self._log.parent) as scratch:
                scratch.write(bytes(1 << 16))
                scratch.flush()
                try:
                    _punch(scratch.fileno(), 0, 1 << 15)
                    self._able = True
                except OSError:
                    self._able = False
        return self._able

    def _record(self, released: Released) -> None:
        """Before the bytes go: a reader must never take a hole for what was printed."""
        known = {}
        for log in (self._log.parent / "stdout.log", self._log.parent / "stderr.log"):
            other = released if log == self._log else read_released(log)
            if other is not None:
                known[log.name] = other.to_dict()
        write_json(self._log.parent / RELEASED, known)


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Give a range of a file back to the disk; it reads as zeros, and the file keeps its size.

    Raises:
        OSError: the file system cannot.
    """
    call = getattr(_libc, "fallocate", None)
    if call is None:
        raise OSError("this C library has no fallocate")
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _line_after(descriptor: int, begin: int, end: int) -> int:
    """The first beginning of a line from ``begin`` to ``end``; ``begin`` where a line is longer than that."""
    at = begin - 1
    while at < end:
        data = os.pread(descriptor, min(CHUNK, end - at), at)
        found = data.find(b"\n")
        if found >= 0:
            return at + found + 1
        if not data:
            break
        at += len(data)
    return begin


def _line_before(descriptor: int, begin: int, end: int, otherwise: int) -> int:
    """The last beginning of a line from ``begin`` to ``end``.

    Where there is none: ``end`` if the line is longer than any should be, ``otherwise`` if it may not be.
    """
    at = end
    while at > begin:
        start = max(begin, at - CHUNK)
        found = os.pread(descriptor, at - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return end if begin > otherwise else otherwise


def _plain_lines(descriptor: int, begin: int, end: int) -> int:
    """Lines that are no telemetry; blank ones are not counted."""
    count, rest = 0, b"\n"
    while begin < end:
        data = os.pread(descriptor, min(CHUNK, end - begin), begin)
        if not data:
            break
        begin += len(data)
        text = rest + data
        cut = text.rfind(b"\n")
        count += len(_PLAIN.findall(text, 0, cut))
        rest = text[cut:]
        if len(rest) > LONGEST_LINE:  # one line still: what of it comes is counted with it
            rest = rest[:CHUNK]
    return count + len(_PLAIN.findall(rest))
