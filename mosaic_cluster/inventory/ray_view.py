"""Ray's answers about its nodes, as a cluster view."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mosaic_cluster.inventory.gpus import GpuFact, gpus_of
from mosaic_cluster.placement import ClusterView, Holding, NodeType, NodeView

NODE_NAME_LABEL = "mosaic/node-name"
AGENT_SLOTS_LABEL = "mosaic/agent-slots"
HEAD_RESOURCE = "node:__internal_head__"
ACCELERATOR = "accelerator_type:"


def view_from_ray(
    nodes: Sequence[Mapping[str, Any]],
    available: Mapping[str, Mapping[str, float]],
    *,
    draining: Collection[str] = (),
    probed: Mapping[str, Sequence[GpuFact]] | None = None,
    launchable: Sequence[NodeType] = (),
    holdings: Sequence[Holding] = (),
    taken_at: float,
) -> ClusterView:
    """Build a cluster view.

    Args:
        nodes: what ``ray.nodes()`` returns: totals, labels and addresses by node.
        available: free resources by node id.
        draining: ids of nodes that take no new work.
        probed: what the drivers of nodes said of their GPUs, by node id.
        launchable: kinds of nodes that the cluster could start.
        holdings: what runs known to us hold; ``available`` is without it already.
        taken_at: unix time of the answers, in seconds.
    """
    agents: dict[str, int] = {}
    for holding in holdings:
        place = holding.placement
        agents[place.node_id] = agents.get(place.node_id, 0) + place.agents
    return ClusterView(
        nodes=tuple(
            _node(
                node,
                available.get(node["NodeID"], {}),
                draining=node["NodeID"] in draining,
                probed=(probed or {}).get(node["NodeID"], ()),
                agents=agents.get(node["NodeID"], 0),
            )
            for node in sorted(nodes, key=lambda node: str(node["NodeID"]))
            if node.get("Alive")
        ),
        taken_at=taken_at,
        launchable=tuple(launchable),
        holdings=tuple(holdings),
    )


def _node(
    node: Mapping[str, Any],
    free: Mapping[str, float],
    *,
    draining: bool,
    probed: Sequence[GpuFact],
    agents: int,
) -> NodeView:
    total: Mapping[str, float] = node.get("Resources", {})
    labels = dict(node.get("Labels") or {})
    address = str(node.get("NodeManagerAddress", ""))
    count = int(float(total.get("GPU", 0)))
    shares = free_shares(count, float(free.get("GPU", 0)))
    return NodeView(
        node_id=str(node["NodeID"]),
        name=labels.get(NODE_NAME_LABEL) or str(node.get("NodeManagerHostname") or address),
        alive=True,
        draining=draining,
        cpus=float(total.get("CPU", 0)),
        cpus_free=float(free.get("CPU", 0)),
        memory=int(total.get("memory", 0)),
        memory_free=int(free.get("memory", 0)),
        gpus=gpus_of(count, shares, labels, accelerator=accelerator_of(total), probed=probed),
        labels=labels,
        is_head=HEAD_RESOURCE in total,
        agent_slots=agent_slots_of(labels),
        agents=agents,
        address=address,
    )


def free_shares(count: int, free: float) -> list[float]:
    """Free share of each of a node's GPUs. Ray tells the sum only: it packs fractions on the first one with room.

    A free sum of 1.4 of 2 is read as one whole GPU and one with 0.4: the least that can be meant.
    """
    shares = []
    for _ in range(count):
        share = max(0.0, min(1.0, round(free, 4)))
        free -= share
        shares.append(share)
    return shares[::-1]


def accelerator_of(resources: Mapping[str, float]) -> str | None:
    """The GPU model that Ray found and counts as a resource."""
    for name in resources:
        if name.startswith(ACCELERATOR):
            return name.partition(":")[2]
    return None


def agent_slots_of(labels: Mapping[str, str]) -> int | None:
    """Agent slots that a node's label gives it; ``None`` if it gives none that can be read."""
    text = labels.get(AGENT_SLOTS_LABEL, "")
    return int(text) if text.isascii() and text.isdigit() else None
