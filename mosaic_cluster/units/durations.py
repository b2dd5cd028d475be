"""Durations in seconds: ``30m``, ``1h30m``, ``2d``, or a plain number of seconds."""

from __future__ import annotations

import re
from fractions import Fraction

_SECONDS = {
    "w": Fraction(604800),
    "d": Fraction(86400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_NAMES = {
    "w": "w", "week": "w", "weeks": "w",
    "d": "d", "day": "d", "days": "d",
    "h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "ms": "ms", "millisecond": "ms", "milliseconds": "ms",
}  # fmt: skip
_NUMBER = r"(?:[0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)"
_PLAIN = re.compile(rf"\s*({_NUMBER})\s*", re.ASCII)
_PART = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z]+)\s*", re.ASCII)
_VALID = "give seconds, or numbers with the units w, d, h, m, s, ms, e.g. 30m, 1h30m or 2d"
LONGEST = 10**12


def parse_duration(value: str | float) -> float:
    """Read a duration.

    Args:
        value: text such as ``"30m"``, ``"1h30m"``, ``"2 days"``, ``"90"``, or a number of seconds.
            Several units stand largest first, each once.

    Returns:
        Seconds, finite and not negative.

    Raises:
        ValueError: it is none of these; the message says what is.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a duration: {_VALID}")
    if isinstance(value, str):
        return _checked(_parse_text(value), repr(value))
    return _checked(value, str(value))


def _parse_text(text: str) -> float:
    if len(text) > 60:
        raise ValueError(f"{text[:57] + '...'!r} is not a duration: {_VALID}")
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return float(plain[1].replace("_", ""))
    total, place, before = Fraction(0), 0, Fraction(LONGEST)
    while place < len(text):
        found = _PART.match(text, place)
        if found is None:
            what = "is negative" if re.match(r"\s*-\s*[0-9.]", text) else "is not a duration"
            raise ValueError(f"{text!r} {what}: {_VALID}")
        unit = _NAMES.get(found[2].lower())
        if unit is None:
            raise ValueError(f"{text!r} has the unknown unit {found[2]!r}: {_VALID}")
        if _SECONDS[unit] >= before:
            raise ValueError(f"{text!r} does not name its units largest first, each once: {_VALID}")
        before = _SECONDS[unit]
        total += Fraction(found[1].replace("_", "")) * _SECONDS[unit]
        place = found.end()
    if not text.strip():
        raise ValueError(f"{text!r} is not a duration: {_VALID}")
    return float(total)


def _checked(seconds: float, shown: str) -> float:
    # Compared, not converted first: a huge integer does not fit a float.
    if seconds < 0:
        raise ValueError(f"{shown[:60]} is negative: {_VALID}")
    if not seconds <= LONGEST:
        raise ValueError(f"{shown[:60]} is longer than anything lasts: {_VALID}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Print a duration for people: ``2d3h``, ``1h30m``, ``1.5s``, ``250ms``; exact to the millisecond.

    Args:
        seconds: finite and not negative. Below a millisecond, three digits are kept.
    """
    if 0 < seconds < 0.001:
        return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    parts = []
    whole, rest = divmod(milliseconds, 1000)
    for unit in ("d", "h", "m"):
        count, whole = divmod(whole, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    if rest:
        parts.append(f"{whole}.{rest:03d}".rstrip("0") + "s")
    elif whole:
        parts.append(f"{whole}s")
    return "".join(parts)
