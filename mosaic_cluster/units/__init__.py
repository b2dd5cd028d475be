"""Sizes, durations and counts, as people write them and as we print them."""

from __future__ import annotations

from mosaic_cluster.units.counts import format_count, format_number
from mosaic_cluster.units.durations import format_duration, parse_duration
from mosaic_cluster.units.sizes import MIB, format_bytes, parse_bytes

__all__ = [
    "MIB",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_number",
    "parse_bytes",
    "parse_duration",
]
