"""The names of :mod:`mosaic_cluster.worker.config`."""

from mosaic_cluster.worker.config import *  # noqa: F403
