"""The contract: all that a worker package imports of mosaic_cluster. Standard library only, Python 3.8 and later.

The names are loaded when they are first asked for, so that asking for one costs no more than that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker.lazy import lazy_names

if TYPE_CHECKING:
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
    from mosaic_cluster.worker.config_fields import (
        build_config,
        config_field,
        config_problems,
        describe_config,
    )
    from mosaic_cluster.worker.discovery import (
        WORKER_ENTRY_POINT_GROUP,
        DiscoveredWorker,
        WorkerDiscovery,
        discover_workers,
    )
    from mosaic_cluster.worker.errors import ConfigError, MosaicError, PolicyError, Problem
    from mosaic_cluster.worker.lazy import installed_version
    from mosaic_cluster.worker.policy import POLICY_ENTRY_POINT_GROUP, Policy, refuse_game
    from mosaic_cluster.worker.policy_client import PolicyClient, serve_policy
    from mosaic_cluster.worker.program import StopRequest, run_program
    from mosaic_cluster.worker.protocols import WorkerConfig, WorkerRuntime
    from mosaic_cluster.worker.session import WorkerSession
    from mosaic_cluster.worker.telemetry import LifecycleEvent, LifecycleEventType, TelemetryEmitter

_HOMES = {
    "POLICY_ENTRY_POINT_GROUP": "policy",
    "WORKER_ENTRY_POINT_GROUP": "discovery",
    "ArtifactsMetadata": "analytics",
    "CheckpointMetadata": "analytics",
    "ConfigError": "errors",
    "DiscoveredWorker": "discovery",
    "LifecycleEvent": "telemetry",
    "LifecycleEventType": "telemetry",
    "MosaicError": "errors",
    "Policy": "policy",
    "PolicyClient": "policy_client",
    "PolicyError": "errors",
    "Problem": "errors",
    "StopRequest": "program",
    "TelemetryEmitter": "telemetry",
    "TensorBoardMetadata": "analytics",
    "WandBMetadata": "analytics",
    "WorkerAnalyticsManifest": "analytics",
    "WorkerCLI": "cli",
    "WorkerCapabilities": "capabilities",
    "WorkerConfig": "protocols",
    "WorkerDiscovery": "discovery",
    "WorkerMetadata": "capabilities",
    "WorkerRuntime": "protocols",
    "WorkerSession": "session",
    "build_config": "config_fields",
    "config_field": "config_fields",
    "config_problems": "config_fields",
    "describe_config": "config_fields",
    "discover_workers": "discovery",
    "extract_worker_config": "config",
    "installed_version": "lazy",
    "lazy_names": "lazy",
    "load_worker_config_from_file": "config",
    "refuse_game": "policy",
    "run_program": "program",
    "serve_policy": "policy_client",
}


__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})

__all__ = [
    "POLICY_ENTRY_POINT_GROUP",
    "WORKER_ENTRY_POINT_GROUP",
    "ArtifactsMetadata",
    "CheckpointMetadata",
    "ConfigError",
    "DiscoveredWorker",
    "LifecycleEvent",
    "LifecycleEventType",
    "MosaicError",
    "Policy",
    "PolicyClient",
    "PolicyError",
    "Problem",
    "StopRequest",
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
    "WorkerSession",
    "build_config",
    "config_field",
    "config_problems",
    "describe_config",
    "discover_workers",
    "extract_worker_config",
    "installed_version",
    "lazy_names",
    "load_worker_config_from_file",
    "refuse_game",
    "run_program",
    "serve_policy",
]
