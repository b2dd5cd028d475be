"""TensorBoard's event files as they grow: the scalars in them, in the order they were written.

An event file is a row of records: length (8 bytes, little endian), a checksum of it (4), the content, a checksum of
that (4). The content is a protocol buffer of the type Event; the few fields that matter here are read by hand, so
that following a file costs no import of TensorBoard. See tensorflow/core/util/event.proto and summary.proto of
TensorFlow for the fields' numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_HEADER, _FOOTER = 12, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EVENT_STEP, _EVENT_SUMMARY = 2, 5
_SUMMARY_VALUE = 1
_VALUE_TAG, _VALUE_SIMPLE = 1, 2


class Scalar(NamedTuple):
    """One call of ``add_scalar``."""

    step: int
    tag: str
    value: float


@dataclass
class _File:
    path: Path
    offset: int = 0


class EventTail:
    """Follows the event files below a folder, those excepted that are there when it is made.

    Args:
        folder: need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = set(self._found())
        self._files: list[_File] = []

    @property
    def folders(self) -> list[Path]:
        """Folders of the files that are followed, in the order they appeared."""
        return list(dict.fromkeys(file.path.parent for file in self._files))

    def read(self) -> list[Scalar]:
        """What was written since the last call. A record that is not complete yet waits for the next."""
        known = self._before | {file.path for file in self._files}
        self._files += [_File(path) for path in self._found() if path not in known]
        return [scalar for file in self._files for scalar in _read(file)]

    def _found(self) -> list[Path]:
        return sorted(self._folder.rglob("events.out.tfevents.*"))


def _read(file: _File) -> list[Scalar]:
    try:
        with file.path.open("rb") as opened:
            opened.seek(file.offset)
            data = opened.read()
    except FileNotFoundError:
        return []
    found: list[Scalar] = []
    start = 0
    while start + _HEADER <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + _HEADER + length + _FOOTER
        if end > len(data):
            break
        found += _scalars(data[start + _HEADER : end - _FOOTER])
        start = end
    file.offset += start
    return found


def _scalars(event: bytes) -> Iterator[Scalar]:
    step, summaries = 0, []
    for number, value in _fields(event):
        if number == _EVENT_STEP and isinstance(value, int):
            step = value
        elif number == _EVENT_SUMMARY and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in _fields(summary):
            if number == _SUMMARY_VALUE and isinstance(value, bytes):
                parts = dict(_fields(value))
                tag, number_there = parts.get(_VALUE_TAG), parts.get(_VALUE_SIMPLE)
                if isinstance(tag, bytes) and isinstance(number_there, float):
                    yield Scalar(step, tag.decode("utf-8", "replace"), number_there)


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field; 4-byte values are floats, all there are of them here."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind == _FIXED64:
            yield number, message[at : at + 8]
            at += 8
        elif kind == _FIXED32:
            yield number, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif kind == _BYTES:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError(f"not an event: there is no field kind {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


__all__ = ["EventTail", "Scalar"]
