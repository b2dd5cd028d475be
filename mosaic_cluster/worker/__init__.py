"""The contract: all that a worker package imports of mosaic_cluster. Standard library only, Python 3.8 and later."""

from __future__ import annotations

from mosaic_cluster.worker.analytics import (
    ArtifactsMetadata,
    CheckpointMetadata,
    TensorBoardMetadata,
    WandBMetadata,
    WorkerAnalyticsManifest,
)
from mosaic_cluster.worker.capabilities import WorkerCapabilities, WorkerMetadata
from mosaic_cluster.worker.cli import WorkerCLI
from mosaic_cluster.worker.config import extract_worker_config, load_worker_config_from_file
from mosaic_cluster.worker.config_fields import build_config, config_field, config_problems, describe_config
from mosaic_cluster.worker.discovery import (
    WORKER_ENTRY_POINT_GROUP,
    DiscoveredWorker,
    WorkerDiscovery,
    discover_workers,
)
from mosaic_cluster.worker.errors import ConfigError, MosaicError, Problem
from mosaic_cluster.worker.protocols import WorkerConfig, WorkerRuntime
from mosaic_cluster.worker.telemetry import LifecycleEvent, LifecycleEventType, TelemetryEmitter

__all__ = [
    "WORKER_ENTRY_POINT_GROUP",
    "ArtifactsMetadata",
    "CheckpointMetadata",
    "ConfigError",
    "DiscoveredWorker",
    "LifecycleEvent",
    "LifecycleEventType",
    "MosaicError",
    "Problem",
    "TelemetryEmitter",
    "TensorBoardMetadata",
    "WandBMetadata",
    "WorkerAnalyticsManifest",
    "WorkerCLI",
    "WorkerCapabilities",
    "WorkerConfig",
    "WorkerDiscovery",
    "WorkerMetadata",
    "WorkerRuntime",
    "build_config",
    "config_field",
    "config_problems",
    "describe_config",
    "discover_workers",
    "extract_worker_config",
    "load_worker_config_from_file",
]
