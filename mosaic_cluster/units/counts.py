"""Counts and plain numbers for people."""

from __future__ import annotations

_SUFFIXES = ("", "k", "M", "G", "T", "P", "E")


def format_count(count: float) -> str:
    """Print a count in at most four signs and a suffix: ``950``, ``12.3k``, ``1.5M``; within 0.5 %.

    Args:
        count: of steps, events, episodes; suffixes are powers of 1000.
    """
    sign, size, power = "-" if count < 0 else "", abs(count), 0
    # What would print as 1000 of a unit prints as 1 of the next.
    while size >= 999.5 and power < len(_SUFFIXES) - 1:
        size, power = size / 1000, power + 1
    decimals = 0 if power == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{size:.{decimals}f}"
    if decimals:
        text = text.rstrip("0").rstrip(".")
    return f"{sign}{text}{_SUFFIXES[power]}"


def format_number(value: float) -> str:
    """Print a number without needless zeros: ``2``, ``0.5``; up to four decimals, the granularity of Ray."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
