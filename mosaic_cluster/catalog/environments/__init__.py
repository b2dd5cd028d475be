"""What a worker's process runs in: declared beside its code, built on each node that needs it, and used there."""

from __future__ import annotations

from mosaic_cluster.catalog.environments.building import BuildProgress, build, locate
from mosaic_cluster.catalog.environments.declared import Environment, Step, choose, label
from mosaic_cluster.catalog.environments.interpreters import Interpreter, find_interpreter
from mosaic_cluster.catalog.environments.reading import FILE, read_environments
from mosaic_cluster.catalog.environments.store import Built, Place, Stored, remove, stored
from mosaic_cluster.catalog.environments.using import Ready, make_ready, named_interpreter

__all__ = [
    "FILE",
    "BuildProgress",
    "Built",
    "Environment",
    "Interpreter",
    "Place",
    "Ready",
    "Step",
    "Stored",
    "build",
    "choose",
    "find_interpreter",
    "label",
    "locate",
    "make_ready",
    "named_interpreter",
    "read_environments",
    "remove",
    "stored",
]
