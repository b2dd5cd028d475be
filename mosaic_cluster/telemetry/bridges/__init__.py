"""Bridges: what an experiment's metrics are shown in beside our own tables.

A bridge follows the committed Parquet files of an experiment from a process of its own, and never speaks to
runs, hub or Ray: what befalls it befalls nobody else. A new tracker is a file with a class that keeps
:class:`~mosaic_cluster.telemetry.bridges.protocols.Bridge`, its line in ``BRIDGES``, and its section in
``specs/telemetry.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mosaic_cluster.telemetry.bridges.protocols import Bridge, Setup

FOLDER = "bridges"


@dataclass(frozen=True)
class Entry:
    """Where a bridge is, without loading it.

    Attributes:
        target: ``module:class``.
        package: what it needs to be importable; the extra that brings it has the bridge's name.
    """

    name: str
    target: str
    package: str

    def missing(self) -> str | None:
        """What to do if its package is not installed here; ``None`` if it is."""
        try:
            found = find_spec(self.package)
        except (ImportError, ValueError):
            found = None
        # A mere folder of that name, as W&B leaves one in the working directory, is no package.
        if found is not None and found.origin is not None:
            return None
        return f"the package {self.package} is not installed here: pip install 'mosaic-cluster[{self.name}]'"

    def make(self, setup: Setup, options: Mapping[str, Any]) -> Bridge:
        """Load it, which may take seconds, and make one."""
        module, _, name = self.target.partition(":")
        made: Bridge = getattr(import_module(module), name)(setup, **options)
        return made


_HERE = "mosaic_cluster.telemetry.bridges"
BRIDGES: Mapping[str, Entry] = {
    "tensorboard": Entry("tensorboard", f"{_HERE}.tensorboard:TensorBoard", "tensorboard"),
    "wandb": Entry("wandb", f"{_HERE}.wandb:WeightsAndBiases", "wandb"),
    "mlflow": Entry("mlflow", f"{_HERE}.mlflow:MLflow", "mlflow"),
}

__all__ = ["BRIDGES", "FOLDER", "Bridge", "Entry", "Setup"]
