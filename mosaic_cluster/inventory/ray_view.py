"""Ray's answers about its nodes, as a cluster view."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mosaic_cluster.placement import ClusterView, Gpu, NodeView
from mosaic_cluster.units import parse_bytes

GPU_MODEL_LABEL = "ray.io/accelerator-type"
GPU_MEMORY_LABEL = "mosaic/gpu-memory"
HEAD_RESOURCE = "node:__internal_head__"


def view_from_ray(
    nodes: Sequence[Mapping[str, Any]],
    available: Mapping[str, Mapping[str, float]],
    *,
    draining: Collection[str] = (),
    taken_at: float,
) -> ClusterView:
    """Build a cluster view.

    Args:
        nodes: what ``ray.nodes()`` returns: totals, labels and addresses by node.
        available: free resources by node id.
        draining: ids of nodes that take no new work.
        taken_at: unix time of the answers, in seconds.
    """
    return ClusterView(
        nodes=tuple(
            _node(node, available.get(node["NodeID"], {}), node["NodeID"] in draining)
            for node in sorted(nodes, key=lambda node: str(node["NodeID"]))
            if node.get("Alive")
        ),
        taken_at=taken_at,
    )


def _node(node: Mapping[str, Any], free: Mapping[str, float], draining: bool) -> NodeView:
    total: Mapping[str, float] = node.get("Resources", {})
    labels = dict(node.get("Labels") or {})
    address = str(node.get("NodeManagerAddress", ""))
    return NodeView(
        node_id=str(node["NodeID"]),
        name=str(node.get("NodeManagerHostname") or address),
        alive=True,
        draining=draining,
        cpus=float(total.get("CPU", 0)),
        cpus_free=float(free.get("CPU", 0)),
        memory=int(total.get("memory", 0)),
        memory_free=int(free.get("memory", 0)),
        gpus=_gpus(float(total.get("GPU", 0)), float(free.get("GPU", 0)), labels, total),
        labels=labels,
        is_head=HEAD_RESOURCE in total,
    )


def _gpus(
    total: float, free: float, labels: Mapping[str, str], resources: Mapping[str, float]
) -> tuple[Gpu, ...]:
    """GPUs of one node. Ray tells the free sum only: it packs fractions on the first GPU that has room.

    A free sum of 1.4 of 2 is read as one whole GPU and one with 0.4: the least that can be meant.
    """
    model = labels.get(GPU_MODEL_LABEL) or _accelerator(resources)
    memory = parse_bytes(labels[GPU_MEMORY_LABEL]) if GPU_MEMORY_LABEL in labels else None
    gpus = []
    for index in range(int(total) - 1, -1, -1):
        share = max(0.0, min(1.0, round(free, 4)))
        free -= share
        gpus.append(Gpu(index=index, model=model, memory=memory, free=share))
    return tuple(reversed(gpus))


def _accelerator(resources: Mapping[str, float]) -> str | None:
    for name in resources:
        if name.startswith("accelerator_type:"):
            return name.partition(":")[2]
    return None
