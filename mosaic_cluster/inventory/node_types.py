"""What a cluster could start: the config of its autoscaler, as kinds of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosaic_cluster.inventory.gpus import gpus_of
from mosaic_cluster.inventory.ray_view import ACCELERATOR, accelerator_of, agent_slots_of
from mosaic_cluster.placement import NodeType, NodeView


def node_types(config: Any, existing: Mapping[str, int]) -> tuple[NodeType, ...]:
    """The kinds of nodes that an autoscaler may still start.

    Args:
        config: the autoscaler's config: ``available_node_types`` with ``resources``, ``labels`` and
            ``max_workers`` of each, and ``max_workers`` of all together. What is not understood is left out.
        existing: how many nodes of each kind there are, without the head.

    Returns:
        Sorted by name. A kind's node has what the config says and no more: the autoscaler starts nodes
        for what is written there, so memory that it does not name is no room.
    """
    types = _mapping(_mapping(config).get("available_node_types"))
    most = _count(_mapping(config).get("max_workers"))
    left = None if most is None else max(0, most - sum(existing.values()))
    found = []
    for name, kind in sorted(types.items(), key=lambda item: str(item[0])):
        more = (_count(_mapping(kind).get("max_workers")) or 0) - existing.get(str(name), 0)
        if left is not None:
            more = min(more, left)
        if more > 0:
            resource = next((key for key in _mapping(_mapping(kind).get("resources")) if _is_accelerator(key)), "")
            found.append(NodeType(str(name), _template(str(name), _mapping(kind)), more, resource))
    return tuple(found)


def _template(name: str, kind: Mapping[str, Any]) -> NodeView:
    given = _mapping(kind.get("resources"))
    resources = {str(key): float(value) for key, value in given.items() if _is_number(value)}
    labels = {str(key): str(value) for key, value in _mapping(kind.get("labels")).items()}
    count = int(resources.get("GPU", 0))
    return NodeView(
        node_id=name,
        name=name,
        cpus=resources.get("CPU", 0.0),
        cpus_free=resources.get("CPU", 0.0),
        memory=int(resources.get("memory", 0)),
        memory_free=int(resources.get("memory", 0)),
        gpus=gpus_of(count, [1.0] * count, labels, accelerator=accelerator_of(resources)),
        labels=labels,
        agent_slots=agent_slots_of(labels),
    )


def _is_accelerator(resource: Any) -> bool:
    return isinstance(resource, str) and resource.startswith(ACCELERATOR)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) and value >= 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 1e18
