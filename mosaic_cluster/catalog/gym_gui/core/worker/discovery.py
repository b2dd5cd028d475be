"""The names of :mod:`mosaic_cluster.worker.discovery`."""

from mosaic_cluster.worker.discovery import *  # noqa: F403
