"""The names of :mod:`mosaic_cluster.worker.cli`."""

from mosaic_cluster.worker.cli import *  # noqa: F403
