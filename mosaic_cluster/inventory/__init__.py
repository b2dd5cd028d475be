"""What the cluster has: Ray's answers, or this machine, as a cluster view."""

from __future__ import annotations

from mosaic_cluster.inventory.ray_view import GPU_MEMORY_LABEL, GPU_MODEL_LABEL, HEAD_RESOURCE, view_from_ray
from mosaic_cluster.inventory.this_machine import NODE_ID, view_of_this_machine

__all__ = [
    "GPU_MEMORY_LABEL",
    "GPU_MODEL_LABEL",
    "HEAD_RESOURCE",
    "NODE_ID",
    "view_from_ray",
    "view_of_this_machine",
]
