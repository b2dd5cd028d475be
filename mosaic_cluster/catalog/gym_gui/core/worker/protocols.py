"""The names of :mod:`mosaic_cluster.worker.protocols`."""

from mosaic_cluster.worker.protocols import *  # noqa: F403
