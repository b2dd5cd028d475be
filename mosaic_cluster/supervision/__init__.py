"""One worker process from start to end: its own supervisor, streams, limits, signals, no orphans."""

from __future__ import annotations

from mosaic_cluster.supervision.client import Status, Supervised, start
from mosaic_cluster.supervision.order import Limits, Order, Room
from mosaic_cluster.supervision.outcome import Outcome, read_outcome
from mosaic_cluster.supervision.sealing import close_lost, close_without_log, seal
from mosaic_cluster.supervision.tree import sweep

__all__ = [
    "Limits",
    "Order",
    "Outcome",
    "Room",
    "Status",
    "Supervised",
    "close_lost",
    "close_without_log",
    "read_outcome",
    "seal",
    "start",
    "sweep",
]
