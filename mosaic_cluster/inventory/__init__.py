"""What the cluster has: Ray's answers, a cluster file, or this machine, as a cluster view."""

from __future__ import annotations

from mosaic_cluster.inventory.cluster_files import assumed, parse_cluster, read_cluster
from mosaic_cluster.inventory.gpus import (
    GPU_MEMORY_LABEL,
    GPU_MODEL_LABEL,
    OWN_MODEL_LABEL,
    GpuFact,
    needs_probe,
    parse_probe,
)
from mosaic_cluster.inventory.groups import GpuKind, NodeGroup, nodes_of
from mosaic_cluster.inventory.node_types import node_types
from mosaic_cluster.inventory.nodes_table import is_nodes_table, parse_nodes_table
from mosaic_cluster.inventory.ray_view import AGENT_SLOTS_LABEL, HEAD_RESOURCE, NODE_NAME_LABEL, view_from_ray
from mosaic_cluster.inventory.this_machine import NODE_ID, view_of_this_machine

__all__ = [
    "AGENT_SLOTS_LABEL",
    "GPU_MEMORY_LABEL",
    "GPU_MODEL_LABEL",
    "HEAD_RESOURCE",
    "NODE_ID",
    "NODE_NAME_LABEL",
    "OWN_MODEL_LABEL",
    "GpuFact",
    "GpuKind",
    "NodeGroup",
    "assumed",
    "is_nodes_table",
    "needs_probe",
    "node_types",
    "nodes_of",
    "parse_cluster",
    "parse_nodes_table",
    "parse_probe",
    "read_cluster",
    "view_from_ray",
    "view_of_this_machine",
]
