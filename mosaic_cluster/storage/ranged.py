"""An object of an object store as a file: what is read is fetched, with one request for the end of it at first."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from mosaic_cluster.worker.errors import StorageError

TAIL = 64 << 10
"""Bytes fetched on opening: a Parquet footer, and often all of a file."""


class RangedFile(io.RawIOBase):
    """Reads one version of an object; fails if it is replaced meanwhile.

    Args:
        fetch: bytes of a range, and what is known of the object: ``size`` and ``e_tag``. Takes the range as
            ``obstore`` has it, and the tag that the object must have.
        head: what is known of the object.
    """

    def __init__(self, fetch: Callable[[Any, str | None], tuple[bytes, Any]], head: Callable[[], Any]) -> None:
        self._fetch = fetch
        self._at = 0
        try:
            self._tail, found = fetch({"suffix": TAIL}, None)
        except StorageError as error:
            if type(error) is not StorageError:
                raise
            self._tail, found = b"", head()
            if found["size"]:  # else it is empty, and has no range to answer with
                raise
        self._size, self._tag = int(found["size"]), found["e_tag"]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; see :meth:`io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, or all that are left."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        start, self._at = self._at, max(self._at, end)
        if start >= end:
            return b""
        kept = self._size - len(self._tail)
        if start >= kept:
            return self._tail[start - kept : end - kept]
        data, _ = self._fetch((start, end), self._tag)
        if len(data) != end - start:
            raise StorageError(f"{len(data)} bytes came where {end - start} were asked for")
        return data

    def readinto(self, buffer: Any) -> int:
        """See :meth:`io.RawIOBase.readinto`."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
