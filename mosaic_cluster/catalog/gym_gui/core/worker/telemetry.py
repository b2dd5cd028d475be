"""The names of :mod:`mosaic_cluster.worker.telemetry`."""

from mosaic_cluster.worker.telemetry import *  # noqa: F403
