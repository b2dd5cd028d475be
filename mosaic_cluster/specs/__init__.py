"""What a person writes: specs in YAML or JSON, read, checked as a whole, and kept in one canonical form."""

from __future__ import annotations

from mosaic_cluster.specs.documents import read_document
from mosaic_cluster.specs.kinds import KINDS, Spec
from mosaic_cluster.specs.parsing import digest, load, parse
from mosaic_cluster.specs.resources import Resources
from mosaic_cluster.specs.run import Limits, RunSpec
from mosaic_cluster.specs.schema import json_schema
from mosaic_cluster.specs.sweep import SweepSpec
from mosaic_cluster.specs.trainer import TrainerConfig, is_trainer_config

__all__ = [
    "KINDS",
    "Limits",
    "Resources",
    "RunSpec",
    "Spec",
    "SweepSpec",
    "TrainerConfig",
    "digest",
    "is_trainer_config",
    "json_schema",
    "load",
    "parse",
    "read_document",
]
