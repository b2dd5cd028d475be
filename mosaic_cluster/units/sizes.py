"""Sizes in bytes: ``10GiB`` (powers of 1024), ``8000MB`` (powers of 1000), or a plain number of bytes."""

from __future__ import annotations

import math
import re
from fractions import Fraction

MIB = 1024**2
LARGEST = 2**63 - 1

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_FACTORS = {
    "": 1,
    "b": 1,
    **{f"{letter}{tail}": 1000**power for power, letter in enumerate("kmgtpe", 1) for tail in ("", "b")},
    **{f"{letter}{tail}": 1024**power for power, letter in enumerate("kmgtpe", 1) for tail in ("i", "ib")},
}
_SHAPE = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)
_VALID = "give bytes, or a number with a unit (KiB, MiB, GiB, TiB; kB, MB, GB, TB), e.g. 10GiB or 8000MB"


def parse_bytes(value: str | float) -> int:
    """Read a size.

    Args:
        value: text such as ``"10GiB"``, ``"8000MB"``, ``"1.5 GiB"``, ``"4096"``, or a number of bytes.
            KiB, MiB, … are powers of 1024; kB, MB, … are powers of 1000. Case does not matter.
            Parts of a byte round up.

    Returns:
        Bytes, from 0 to 2**63 - 1.

    Raises:
        ValueError: it is none of these; the message says what is.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a size: {_VALID}")
    if isinstance(value, str):
        return _parse_text(value)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{value!r} is not a whole number of bytes: {_VALID}")
    return _checked(int(value), str(value))


def _parse_text(text: str) -> int:
    found = _SHAPE.fullmatch(text)
    if found is None or len(text) > 60:
        shown = text if len(text) <= 60 else text[:57] + "..."
        what = "is negative" if re.match(r"\s*-\s*[0-9.]", text) else "is not a size"
        raise ValueError(f"{shown!r} {what}: {_VALID}")
    number, unit = found.groups()
    factor = _FACTORS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}: {_VALID}")
    return _checked(math.ceil(Fraction(number.replace("_", "")) * factor), repr(text))


def _checked(count: int, shown: str) -> int:
    if count < 0:
        raise ValueError(f"{shown} is negative: {_VALID}")
    if count > LARGEST:
        raise ValueError(f"{shown[:60]} is larger than any machine: {_VALID}, at most 8EiB less one byte")
    return count


def format_bytes(count: float, *, down: bool = False) -> str:
    """Print a size for people: ``512MiB``, ``1.5GiB``; at most two decimals, at most 0.5 % off.

    Args:
        count: bytes, not negative.
        down: never print more than ``count``, for sizes that somebody is told to stay within.
    """
    whole = int(count)
    power = min((max(whole, 1).bit_length() - 1) // 10, len(_BINARY) - 1)
    hundredths = whole * 100 // 1024**power if down else (whole * 200 // 1024**power + 1) // 2
    if hundredths >= 102400 and power < len(_BINARY) - 1:
        power, hundredths = power + 1, 100
    return f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".") + _BINARY[power]
