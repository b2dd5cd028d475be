"""Pictures for vision models: a PNG as a data URL, with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any


def png(image: Any) -> bytes:
    """A PNG file.

    Args:
        image: array of shape (height, width, 3), type uint8.

    Raises:
        ValueError: it has another shape or type.
    """
    shape, kind = tuple(image.shape), str(image.dtype)
    if len(shape) != 3 or shape[2] != 3 or kind != "uint8":
        raise ValueError(f"a picture must be of shape (height, width, 3) and type uint8, not {shape} and {kind}")
    height, width, _ = shape
    # Each row begins with its filter; 0 is none.
    rows = b"".join(b"\0" + image[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def data_url(image: Any) -> str:
    """``data:image/png;base64,...``."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


__all__ = ["data_url", "png"]
