"""The names of :mod:`mosaic_cluster.worker.analytics`."""

from mosaic_cluster.worker.analytics import *  # noqa: F403
