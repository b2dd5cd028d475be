"""The cluster as Ray tells it."""

from __future__ import annotations

import time

import ray
from ray._private.state import available_resources_per_node, state
from ray.exceptions import RayError

from mosaic_cluster.inventory import view_from_ray
from mosaic_cluster.placement import ClusterView
from mosaic_cluster.runtime.node_types import LaunchableTypes
from mosaic_cluster.runtime.probing import GpuProbe
from mosaic_cluster.worker.errors import BackendError


class ClusterReader:
    """Reads the cluster that this process is connected to.

    Args:
        embedded: it is this process's own, and never grows.
        on_head: this process runs beside the cluster's head.
    """

    def __init__(self, *, embedded: bool = False, on_head: bool = False) -> None:
        self._probe = GpuProbe()
        self._types = None if embedded else LaunchableTypes(on_head=on_head)

    def read(self) -> ClusterView:
        """Nodes and what is free on them now, as Ray accounts for it.

        Raises:
            BackendError: the cluster does not answer.
        """
        try:
            draining = list(state.get_draining_nodes())
            # First: a node that starts meanwhile is then counted twice for a moment, and never not at all.
            launchable = () if self._types is None else self._types.types()
            nodes, free = ray.nodes(), available_resources_per_node()
        except (RayError, RuntimeError) as error:
            raise BackendError(f"the Ray cluster does not answer: {error}") from error
        return view_from_ray(
            nodes,
            free,
            draining=draining,
            probed=self._probe.facts(nodes),
            launchable=launchable,
            taken_at=time.time(),
        )
