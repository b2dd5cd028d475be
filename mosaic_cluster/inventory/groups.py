"""Groups of equal nodes, as people describe a cluster, and the nodes they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mosaic_cluster.inventory.gpus import FILE, TABLE, UNKNOWN
from mosaic_cluster.placement import Gpu, NodeView
from mosaic_cluster.placement.accelerators import known_accelerator, model_name, stated_size

MOST_NODES = 100_000
MEMORY_PER_CPU = 4 * 1024**3
"""Host memory of a node whose description gives none, for each of its CPUs."""


@dataclass(frozen=True)
class GpuKind:
    """Equal GPUs of one node.

    Attributes:
        model: its name; empty: unknown.
        memory: bytes; ``None``: as the name states, or the table of models has it.
    """

    model: str
    count: int = 1
    memory: int | None = None


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes.

    Attributes:
        name: what they are called: ``big``, or ``big-1``, ``big-2`` where there are several.
        memory: bytes of host memory; ``None``: :data:`MEMORY_PER_CPU` for each CPU.
        agent_slots: of each; ``None``: as placement has it.
    """

    count: int = 1
    name: str = ""
    cpus: float = 0.0
    memory: int | None = None
    gpus: tuple[GpuKind, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    agent_slots: int | None = None
    draining: bool = False

    def node(self, name: str) -> NodeView:
        """Such a node, idle."""
        memory = int(self.cpus * MEMORY_PER_CPU) if self.memory is None else self.memory
        return NodeView(
            node_id=name,
            name=name,
            draining=self.draining,
            cpus=self.cpus,
            cpus_free=self.cpus,
            memory=memory,
            memory_free=memory,
            gpus=tuple(_gpus(self.gpus)),
            labels=dict(self.labels),
            agent_slots=self.agent_slots,
        )


def nodes_of(groups: Sequence[NodeGroup]) -> tuple[NodeView, ...]:
    """The nodes of groups, each with a name of its own: its group's, else ``node``, with a number."""
    numbers: dict[str, int] = {}
    alone = {name: sum(g.count for g in groups if (g.name or "node") == name) == 1 for name in _names(groups)}
    taken = {name for name in alone if alone[name]}
    nodes = []
    for group in groups:
        name = group.name or "node"
        for _ in range(group.count):
            full = name
            while not alone[name] and (full == name or full in taken):
                numbers[name] = numbers.get(name, 0) + 1
                full = f"{name}-{numbers[name]}"
            taken.add(full)
            nodes.append(group.node(full))
    return tuple(nodes)


def _names(groups: Iterable[NodeGroup]) -> list[str]:
    return [group.name or "node" for group in groups]


def _gpus(kinds: Iterable[GpuKind]) -> Iterable[Gpu]:
    index = 0
    for kind in kinds:
        stated = kind.memory or (stated_size(kind.model) if kind.model else None)
        known = known_accelerator(kind.model) if kind.model else None
        memory = stated or (known.memory if known else None)
        source = FILE if stated else TABLE if memory else UNKNOWN
        for _ in range(kind.count):
            yield Gpu(index, model_name(kind.model) if kind.model else None, memory, source=source)
            index += 1
