"""Taking typed fields out of a parsed JSON object.

Each ``take_*`` removes the field from the object if its value fits the column, and otherwise leaves it there,
for the payload: nothing is bent to fit, nothing is lost.
"""

from __future__ import annotations

from typing import Any

from mosaic_cluster.telemetry.jsontext import NUMBER_WORDS, dumps
from mosaic_cluster.worker.telemetry import STEP_NAMES

INT64 = range(-(2**63), 2**63)
YEAR_10000 = 253_402_300_800
"""The year 10000, in seconds since 1970."""

Object = dict[str, Any]


def as_int(value: Any) -> int | None:
    """An int64, if that is what it is (2.0 is; ``true`` and ``"2"`` are not)."""
    kind = type(value)
    if kind is int:
        return value if -(2**63) <= value < 2**63 else None
    if kind is float and value.is_integer() and int(value) in INT64:
        return int(value)
    return None


def as_float(value: Any) -> float | None:
    """A number, also when written ``"NaN"`` or ``"Infinity"``; ``None`` for anything else."""
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is int:
        try:
            return float(value)
        except OverflowError:
            return None
    return NUMBER_WORDS.get(value) if kind is str else None


def take_int(item: Object, key: str) -> int | None:
    """An int64 column."""
    value = item.get(key)
    if value is None:
        item.pop(key, None)
        return None
    number = as_int(value)
    if number is not None:
        del item[key]
    return number


def take_float(item: Object, key: str) -> float | None:
    """A float64 column."""
    value = item.get(key)
    if value is None:
        item.pop(key, None)
        return None
    # An integer that a float cannot hold exactly stays in the payload too.
    number = as_float(value)
    if number is not None and (type(value) is not int or int(number) == value):
        del item[key]
    return number


def take_bool(item: Object, key: str) -> bool | None:
    """A boolean column; 0 and 1 are numbers."""
    value = item.get(key)
    if type(value) is bool:
        del item[key]
        return value
    if value is None:
        item.pop(key, None)
    return None


def take_text(item: Object, key: str) -> str | None:
    """A string column; whole numbers are taken as their digits (agents are often numbered)."""
    value = item.get(key)
    kind = type(value)
    if kind is str or kind is int:
        del item[key]
        return value if kind is str else str(value)
    if value is None:
        item.pop(key, None)
    return None


def take_json(item: Object, key: str) -> str | None:
    """A column of JSON text: any value fits."""
    value = item.pop(key, None)
    return None if value is None else dumps(value)


def take_time(item: Object) -> int | None:
    """Microseconds since 1970 UTC, from ``timestamp`` (seconds) or else ``ts_unix_ns``."""
    value = item.get("timestamp")
    if (type(value) is float or type(value) is int) and 0 <= value < YEAR_10000:
        del item["timestamp"]
        return int(value * 1e6 + 0.5)
    value = item.get("ts_unix_ns")
    if type(value) is int and 0 <= value < YEAR_10000 * 10**9:
        del item["ts_unix_ns"]
        return value // 1000
    return None


def find_step(payload: Object) -> tuple[str | None, int | None]:
    """Name and value of the global step in a payload; two ``None`` if there is none."""
    step = payload.get("step")
    if type(step) is int and step in INT64:
        return "step", step
    for name in STEP_NAMES:
        if name in payload:
            step = as_int(payload[name])
            if step is not None:
                return name, step
    return None, None


def numbers(payload: Object, skip: str | None) -> dict[str, float]:
    """Numeric fields, nested objects flattened with ``/``; ``skip`` is a name at the top to leave out."""
    found: dict[str, float] = {}
    nested: list[tuple[str, Object]] = []
    for key, value in payload.items():
        kind = type(value)
        if kind is float:
            found[key] = value
        elif kind is dict:
            nested.append((f"{key}/", value))
        elif kind is int or kind is str:
            number = as_float(value)
            if number is not None:
                found[key] = number
    if skip is not None:
        found.pop(skip, None)
    for prefix, level in nested:
        for key, value in level.items():
            if type(value) is dict:
                nested.append((f"{prefix}{key}/", value))
                continue
            number = as_float(value)
            if number is not None:
                found[prefix + key] = number
    return found
