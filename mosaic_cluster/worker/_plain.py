"""Any Python value as strict JSON, without ever raising.

Telemetry comes out of the middle of somebody's training loop: a value that JSON does not know must cost a few
microseconds, never the run. What becomes of what:

==============================================  ====================================================
NaN and the infinities                          ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
NumPy, torch, JAX and TensorFlow values         numbers and nested lists, through ``tolist()`` and kin
enums                                           their value where that is plain, else their name
paths                                           text
bytes                                           text; what is not UTF-8 in it as ``\\xff``
sets                                            sorted lists
dataclasses, objects with ``to_dict()``         objects
dates, times / durations                        ISO 8601 / seconds
keys that are not strings                       their JSON text; equal texts get ``#2``, ``#3`` added
an object within itself                         ``"<circular reference>"``
integers beyond about 4,000 digits              hexadecimal text (Python's own parser refuses them)
anything else                                   its ``repr``, cut at 10,000 characters
==============================================  ====================================================
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from dataclasses import fields, is_dataclass
from enum import Enum
from json import encoder as json_encoder
from typing import Any, Callable, Dict, Iterable, List, Set

MAX_DEPTH = 100
MAX_REPR = 10_000
_MAX_INT_BITS = 13_000
_TRIES = 3

_slow = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False)


def to_plain(value: Any) -> Any:
    """The value as dicts with string keys, lists, strings, finite numbers, booleans and ``None``."""
    try:
        return _Walk().walk(value, 0)
    except Exception:  # noqa: BLE001 - near the recursion limit even this fails, and must not raise
        return "<unprintable>"


def json_text(value: Any) -> str:
    """Compact strict JSON text with sorted keys, plain ASCII, one line."""
    try:
        return fast_text(value)
    except Exception:  # noqa: BLE001 - whatever is wrong with the value, the careful way knows what to do
        try:
            return _slow.encode(to_plain(value))
        except Exception:  # noqa: BLE001
            return '"<unprintable>"'


def object_text(value: Any) -> str:
    """Like :func:`json_text`, always an object: ``{}`` for ``None``, ``{"value": ...}`` for what is none."""
    if isinstance(value, dict):
        text = json_text(value)
        return text if text[0] == "{" else '{"value":' + text + "}"
    return json_text(as_object(value))


def as_object(value: Any) -> Dict[str, Any]:
    """A new dict with the value's content; see :func:`object_text`. A dict is copied one level deep."""
    if value is None:
        return {}
    if type(value) is dict:
        try:
            return dict(value)
        except RuntimeError:  # another thread is changing it
            pass
    plain = to_plain(value)
    return plain if isinstance(plain, dict) else {"value": plain}


def _pick_encoder() -> Callable[[Any], str]:
    """The C encoder called directly: ``json.dumps`` takes longer to get there.

    An encoder notes the objects it is inside of, to notice circles, so it serves one text at a time: it is taken
    from the idle ones, and put back unless something went wrong. Taking and putting are atomic.
    """
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    escape = json_encoder.encode_basestring_ascii

    idle: List[Any] = []

    def encode(value: Any) -> str:
        try:
            encoder = idle.pop()
        except IndexError:
            encoder = make({}, to_plain, escape, None, ":", ",", True, False, False)
        text = "".join(encoder(value, 0))
        idle.append(encoder)
        return text

    settings: Any = {"separators": (",", ":"), "sort_keys": True, "allow_nan": False, "default": to_plain}
    portable = json.JSONEncoder(**settings).encode
    sample = {"b": [1, 2.5, None, {1, 2}], "a": "\u00e9\n"}
    try:
        return encode if make is not None and encode(sample) == portable(sample) else portable
    except Exception:  # noqa: BLE001 - not a public interface: another Python may have changed it
        return portable


class _Walk:
    """One walk through one value; knows what it is inside of."""

    def __init__(self) -> None:
        self._inside: Set[int] = set()

    def walk(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if value.bit_length() <= _MAX_INT_BITS else hex(value)
        if kind is float:
            return _number(value)
        if depth >= MAX_DEPTH:
            return "<nested too deeply>"
        marker = id(value)
        if marker in self._inside:
            return "<circular reference>"
        self._inside.add(marker)
        try:
            return self._unknown(value, depth + 1)
        except Exception:  # noqa: BLE001 - the value's own code may raise anything
            return _described(value)
        finally:
            self._inside.discard(marker)

    def _unknown(self, value: Any, depth: int) -> Any:
        if isinstance(value, Enum):
            inner = value.value
            return self.walk(inner, depth) if isinstance(inner, (str, int, float)) else value.name
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return self.walk(int.__int__(value), depth)
        if isinstance(value, float):
            return _number(float.__float__(value))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "backslashreplace")
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, os.PathLike):
            return self.walk(os.fspath(value), depth)
        if isinstance(value, Mapping):
            return self._mapping(_snapshot(value.items), depth)
        if isinstance(value, (list, tuple, deque, ValuesView)):
            return [self.walk(item, depth) for item in _snapshot(value.__iter__)]
        if isinstance(value, (set, frozenset, KeysView, ItemsView)):
            return sorted((self.walk(item, depth) for item in _snapshot(value.__iter__)), key=_order)
        return self._foreign(value, depth)

    def _mapping(self, items: Iterable[Any], depth: int) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        for key, item in items:
            name = key if type(key) is str else self.walk(key, depth)
            if type(name) is not str:
                name = _slow.encode(name)
            if name in found:
                number = 2
                while f"{name}#{number}" in found:
                    number += 1
                name = f"{name}#{number}"
            found[name] = self.walk(item, depth)
        return found

    def _foreign(self, value: Any, depth: int) -> Any:
        """Objects of libraries that must not be imported here."""
        for name in ("tolist", "item", "numpy", "to_dict"):
            method = getattr(value, name, None)
            if not callable(method):
                continue
            try:
                result = method()
            except Exception:  # noqa: BLE001, S112 - not that kind of method after all
                continue
            if type(result) is not type(value):
                return self.walk(result, depth)
        if is_dataclass(value):
            return {field.name: self.walk(getattr(value, field.name, None), depth) for field in fields(value)}
        kind = type(value)
        if hasattr(kind, "isoformat"):
            return str(value.isoformat())
        if hasattr(kind, "total_seconds"):
            return _number(float(value.total_seconds()))
        if hasattr(kind, "__index__"):
            return self.walk(int(value), depth)
        if hasattr(kind, "__float__"):
            return _number(float(value))
        if isinstance(value, BaseException):
            return f"{kind.__name__}: {value}"
        return _described(value)


def _snapshot(read: Callable[[], Iterable[Any]]) -> List[Any]:
    """What a container holds, although another thread may be changing it."""
    for _ in range(_TRIES - 1):
        try:
            return list(read())
        except RuntimeError:
            continue
    return list(read())


def _number(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")


def _order(plain: Any) -> Any:
    """Numbers before the rest, each in its own order."""
    if isinstance(plain, (int, float)):
        return (0, plain, "")
    return (1, 0, plain if isinstance(plain, str) else _slow.encode(plain))


def _described(value: Any) -> str:
    try:
        text = repr(value)
        return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "..."
    except Exception:  # noqa: BLE001 - a repr may do anything
        return f"<unprintable {type(value).__name__}>"


fast_text = _pick_encoder()
"""Like :func:`json_text` for what is plain; raises anything for what is not. For the one place in a hurry."""

__all__ = ["MAX_DEPTH", "MAX_REPR", "as_object", "fast_text", "json_text", "object_text", "to_plain"]
