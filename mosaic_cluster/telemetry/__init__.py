"""Events: their schema, the log they are printed to, the Parquet files they end in, and reading these."""

from __future__ import annotations

from mosaic_cluster.telemetry.hub import HUB_MEMORY, Ack, Batch, HubCore
from mosaic_cluster.telemetry.live import LiveRun, live_name, read_live
from mosaic_cluster.telemetry.parse import Parsed, parse
from mosaic_cluster.telemetry.pump import HubClient, HubUnavailable, Pump, PumpProgress
from mosaic_cluster.telemetry.reading import TelemetryReader
from mosaic_cluster.telemetry.schema import SCHEMA_VERSION, SCHEMAS, TABLES
from mosaic_cluster.telemetry.tail import LogTail
from mosaic_cluster.telemetry.watch import Watch, Watched, offset_at_step, released_rows, scan_log

__all__ = [
    "HUB_MEMORY",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "TABLES",
    "Ack",
    "Batch",
    "HubClient",
    "HubCore",
    "HubUnavailable",
    "LiveRun",
    "LogTail",
    "Parsed",
    "Pump",
    "PumpProgress",
    "TelemetryReader",
    "Watch",
    "Watched",
    "live_name",
    "offset_at_step",
    "parse",
    "read_live",
    "released_rows",
    "scan_log",
]
