"""Reading a log that somebody else is still appending to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from mosaic_cluster.logs import Released, read_released

LONGEST_LINE = 64 << 20

Line = tuple[int, bytes]


class LogTail:
    """Complete lines of a growing file, each with the byte offset where it begins.

    A range that was let go is stepped over. What has no line end is cut, so that a stream without any is read too.

    Args:
        path: the file; it need not exist yet.
        offset: byte to start at, the first of a line.
        longest: about how many bytes a line may have before it is cut.
    """

    def __init__(self, path: str | Path, offset: int = 0, longest: int = LONGEST_LINE) -> None:
        self.path = Path(path)
        self._offset = offset
        self._longest = longest
        # The beginning of a line whose end is not written yet: read once, however often we are asked.
        self._partial: list[bytes] = []
        self._held = 0

    @property
    def offset(self) -> int:
        """The next byte that no returned line covers."""
        return self._offset

    def seek(self, offset: int) -> None:
        """Go on at ``offset``, the first byte of a line."""
        self._offset = offset
        self._drop_partial()

    def size(self) -> int:
        """Bytes in the file now; 0 while there is none."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def read(self, max_bytes: int = 1 << 20, *, final: bool = False) -> list[Line]:
        """The next complete lines, without their line ends.

        Args:
            max_bytes: about how much to read; a line longer than that still comes whole.
            final: the file is final, so that an unterminated last line counts too.

        Returns:
            ``(offset, line)`` in file order; empty when there is nothing complete.
        """
        try:
            with open(self.path, "rb", buffering=0) as file:
                while True:
                    chunk = self._chunk(file, max_bytes)
                    if not chunk:
                        return self._rest() if final else []
                    if b"\n" in chunk:
                        return list(self._lines(chunk))
                    self._hold(chunk)
                    if self._held >= self._longest:
                        return self._rest()
        except FileNotFoundError:
            return []

    def _chunk(self, file: FileIO, max_bytes: int) -> bytes:
        """The next bytes, none of them of a range that was let go."""
        gap = read_released(self.path)
        while True:
            if gap is not None and gap.first <= self._offset + self._held < gap.upto:
                self.seek(gap.upto)
            at = self._offset + self._held
            file.seek(at)
            chunk = file.read(min(max_bytes, gap.first - at) if gap is not None and at < gap.first else max_bytes)
            before, gap = gap, read_released(self.path)
            if gap == before or gap is None or not _overlap(gap, at, len(chunk)):
                return chunk

    def _lines(self, chunk: bytes) -> Iterator[Line]:
        *complete, rest = chunk.split(b"\n")
        if self._held:
            complete[0] = b"".join([*self._partial, complete[0]])
        offset = self._offset
        for line in complete:
            yield offset, line
            offset += len(line) + 1
        self._offset = offset
        self._drop_partial()
        if rest:
            self._hold(rest)

    def _rest(self) -> list[Line]:
        if not self._held:
            return []
        line = (self._offset, b"".join(self._partial))
        self._offset += self._held
        self._drop_partial()
        return [line]

    def _hold(self, data: bytes) -> None:
        self._partial.append(data)
        self._held += len(data)

    def _drop_partial(self) -> None:
        self._partial = []
        self._held = 0


def _overlap(gap: Released, at: int, length: int) -> bool:
    return at < gap.upto and gap.first < at + length
