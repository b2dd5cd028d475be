"""Which workers exist, what they declare, and how their processes see the contract."""

from __future__ import annotations

from mosaic_cluster.catalog.contract_folder import contract_folder
from mosaic_cluster.catalog.entries import Catalog, ConfigField, WorkerEntry
from mosaic_cluster.catalog.environments import Environment, Ready, make_ready
from mosaic_cluster.catalog.joining import joins_cluster
from mosaic_cluster.catalog.launching import worker_command, worker_environment

__all__ = [
    "Catalog",
    "ConfigField",
    "Environment",
    "Ready",
    "WorkerEntry",
    "contract_folder",
    "joins_cluster",
    "make_ready",
    "worker_command",
    "worker_environment",
]
