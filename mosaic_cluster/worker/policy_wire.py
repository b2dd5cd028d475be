"""How a policy's server and its clients talk: a JSON header and the raw bytes of arrays. Nothing is ever unpickled.

A message is the bytes ``MPW1``, the lengths of header and body (unsigned, 4 and 8 bytes, little-endian), the header
(UTF-8 JSON) and the body: the bytes of all arrays, in the order in which the header names them, little-endian,
C-contiguous, each from an offset that 16 divides. In the header stands for

==============================  ==============================================================
an array                        ``{"$a": ["float32", [6, 7, 2]]}``
a NumPy number                  ``{"$n": "int64"}``, its bytes in the body
bytes                           ``{"$b": 12}``, their number
a tuple                         ``{"$t": [...]}``
a dict (keys are text)          ``{"$m": [["key", value], ...]}``
None, bool, int, float, text    themselves; so do lists
==============================  ==============================================================

Names of dtypes are the same in NumPy 1 and 2, so that both sides may have either. A side without NumPy gets arrays
as nested lists.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from functools import lru_cache
from typing import Any, Dict, List, Optional, Tuple

from mosaic_cluster.worker.errors import PolicyError

PROTOCOL = 1
MAX_HEADER = 64 << 20
MAX_BODY = 16 << 30
CHUNK = 1 << 16
ALIGN = 16

_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"MPW1"
_CODES = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
DTYPES = frozenset(_CODES) | {"complex64", "complex128"}
_PLAIN = (str, int, float, bool)
_ZEROS = bytes(ALIGN)
_BIG = sys.byteorder == "big"
_AS_SENT = "<|" if _BIG else "<|="
_NAMES: Dict[Any, str] = {}
_encode = json.JSONEncoder(separators=(",", ":")).encode


def pack(header: Dict[str, Any]) -> List[Any]:
    """A message as buffers to be sent one after another.

    Raises:
        TypeError: there is something in it that cannot be sent.
        Exception: what an object raises that is to become an array; it is nested too deeply.
    """
    arrays: List[Any] = []
    text = _encode({name: _encoded(value, arrays) for name, value in header.items()}).encode()
    body: List[Any] = []
    size = 0
    for data in arrays:
        gap = -size % ALIGN
        if gap:
            body.append(_ZEROS[:gap])
        body.append(data)
        size += gap + len(data)
    first = _PREFIX.pack(_MAGIC, len(text), size) + text
    # Small ones in one piece: that is one system call.
    return [b"".join([first, *body])] if size < CHUNK else [first, *body]


class Channel:
    """Messages over a connected socket, one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""
        self._buffer = bytearray(CHUNK)
        self._taker = _Taker()
        self._decode = json.JSONDecoder(object_hook=self._taker.hook).decode

    def send(self, header: Dict[str, Any]) -> None:
        """Send one message.

        Raises:
            TypeError: there is something in it that cannot be sent; nothing was. So with all that :func:`pack` raises.
            OSError: the other side is gone.
        """
        self.send_packed(pack(header))

    def send_packed(self, buffers: List[Any]) -> None:
        """Send what :func:`pack` gave.

        Raises:
            OSError: the other side is gone.
        """
        if len(buffers) == 1:
            self._socket.sendall(buffers[0])
            return
        views = [memoryview(each).cast("B") for each in buffers if len(memoryview(each).cast("B"))]
        while views:
            sent = self._socket.sendmsg(views[:64])
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    def receive(self) -> Optional[Dict[str, Any]]:
        """The next message; ``None`` when the other side has closed.

        Raises:
            PolicyError: what comes is not of this protocol.
            OSError: the connection broke.
        """
        data = self._rest or self._some()
        while 0 < len(data) < _PREFIX.size:
            data = self._more(data)
        if not data:
            return None
        magic, header_size, body_size = _PREFIX.unpack_from(data)
        if magic != _MAGIC or header_size > MAX_HEADER or body_size > MAX_BODY:
            raise PolicyError(f"a message that does not belong here: it begins with {bytes(data[:16])!r}")
        start = _PREFIX.size + header_size
        while len(data) < start:
            data = self._more(data)
        body = bytearray(body_size)
        there = min(len(data) - start, body_size)
        body[:there] = data[start : start + there]
        self._rest = bytes(data[start + there :])
        view = memoryview(body)
        while there < body_size:
            count = self._socket.recv_into(view[there:])
            if not count:
                raise ConnectionError("the connection was closed in the middle of a message")
            there += count
        return self._unpacked(data[_PREFIX.size : start], body)

    def _unpacked(self, text: bytes, body: bytearray) -> Dict[str, Any]:
        self._taker.begin(body)
        try:
            header = self._decode(text.decode("utf-8"))
            if not isinstance(header, dict):
                raise ValueError(f"the header is {header!r}")
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, struct.error) as error:
            raise PolicyError(f"a message that cannot be read: {error}") from error
        finally:
            self._taker.begin(bytearray())
        return header

    def _some(self) -> bytes:
        """What has come; empty at the end. Into a buffer that is kept: making one each time would cost more."""
        count = self._socket.recv_into(self._buffer)
        return bytes(memoryview(self._buffer)[:count])

    def _more(self, data: bytes) -> bytes:
        more = self._some()
        if not more:
            raise ConnectionError("the connection was closed in the middle of a message")
        return data + more

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _encoded(value: Any, arrays: List[Any]) -> Any:
    kind = type(value)
    if value is None or kind in _PLAIN:
        return value
    if kind is list:
        return [_encoded(each, arrays) for each in value]
    if isinstance(value, tuple):
        return {"$t": [_encoded(each, arrays) for each in value]}
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"a dict with the key {wrong[0]!r} cannot be sent: keys must be text")
        return {"$m": [[str(key), _encoded(each, arrays)] for key, each in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        arrays.append(memoryview(value) if len(value) >= CHUNK else bytes(value))
        return {"$b": len(value)}
    if hasattr(value, "__array__") or hasattr(value, "dtype"):
        return _encoded_array(value, arrays)
    for plain in _PLAIN:  # subclasses, as IntEnum
        if isinstance(value, plain):
            return plain(value)
    raise TypeError(f"a {kind.__name__} cannot be sent: give numbers, text, arrays, lists, tuples or dicts of them")


def _encoded_array(value: Any, arrays: List[Any]) -> Dict[str, Any]:
    import numpy as np

    number = isinstance(value, np.generic)
    array = np.asarray(value)
    name = _NAMES.get(array.dtype)
    if name is None:
        name = _NAMES[array.dtype] = array.dtype.name
    if name not in DTYPES:
        raise TypeError(f"an array of dtype {name} cannot be sent; these can: {', '.join(sorted(DTYPES))}")
    shape = list(array.shape)
    if array.nbytes < CHUNK and array.dtype.byteorder in _AS_SENT:
        arrays.append(array.tobytes())
        return {"$n": name} if number else {"$a": [name, shape]}
    if array.dtype.byteorder == ">" or (_BIG and array.dtype.byteorder == "="):
        array = array.astype(array.dtype.newbyteorder("<"))
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    flat: Any = array.reshape(-1).view(np.uint8)
    arrays.append(memoryview(flat))
    return {"$n": name} if number else {"$a": [name, shape]}


class _Taker:
    """Puts what the body holds in place of what stands for it. Called for inner objects first, in their order."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._at = 0

    def begin(self, body: bytearray) -> None:
        """Take from this body from now on."""
        self._body = body
        self._at = 0

    def hook(self, found: Dict[str, Any]) -> Any:
        if len(found) != 1:
            return found
        ((name, value),) = found.items()
        if name == "$a":
            return self._array(str(value[0]), [int(each) for each in value[1]])
        if name == "$n":
            array = self._array(str(value), [])
            return array[()] if hasattr(array, "dtype") else array
        if name == "$t":
            return tuple(value)
        if name == "$m":
            return dict(value)
        if name == "$b":
            start = self._start(int(value))
            return bytes(self._body[start : self._at])
        return found

    def _start(self, size: int) -> int:
        start = self._at + -self._at % ALIGN
        if size < 0 or start + size > len(self._body):
            raise ValueError(f"the body has {len(self._body)} bytes, which is too few")
        self._at = start + size
        return start

    def _array(self, name: str, shape: List[int]) -> Any:
        if name not in DTYPES or any(each < 0 for each in shape):
            raise ValueError(f"there is no array of {name} with the shape {shape}")
        count = 1
        for each in shape:
            count *= each
        start = self._start(count * _SIZES[name])
        return self._take(name, shape, count, start)

    def _take(self, name: str, shape: List[int], count: int, start: int) -> Any:
        np = _numpy()
        if np is None:
            return _listed(struct.unpack_from(f"<{count}{_CODES[name]}", self._body, start), shape)
        if not count:
            return np.empty(shape, name)
        array = np.frombuffer(self._body, name, count, start).reshape(shape)
        return array.byteswap() if _BIG else array


_SIZES = {**{name: struct.calcsize("<" + code) for name, code in _CODES.items()}, "complex64": 8, "complex128": 16}


def _listed(values: Tuple[Any, ...], shape: List[int]) -> Any:
    """Numbers as nested lists of a shape."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return list(values)
    size = len(values) // shape[0] if shape[0] else 0
    return [_listed(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


@lru_cache(maxsize=1)
def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


__all__ = ["DTYPES", "PROTOCOL", "Channel", "pack"]
