"""The names of :mod:`mosaic_cluster.worker.capabilities`."""

from mosaic_cluster.worker.capabilities import *  # noqa: F403
