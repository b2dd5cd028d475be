"""What a cluster has and what of it is free, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mosaic_cluster.placement.answers import Placement


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its number on its node.
        model: such as ``A100``; ``None`` where nobody said.
        memory: bytes; ``None`` where nobody said.
        free: share that is free, from 0 to 1.
        source: who said what its memory is: ``label``, ``probed``, ``table`` (of models, by its name), ``file``, or
            ``unknown``; empty where nobody asks.
    """

    index: int
    model: str | None = None
    memory: int | None = None
    free: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory <= 0:
            raise ValueError(f"memory of GPU {self.index} is {self.memory}: give bytes above 0, or None if unknown")


AGENTS_PER_CPU = 128
"""Agent slots a node has where nobody says otherwise: enough for any environment, and ten thousand light agents do
not land on one node."""


@dataclass(frozen=True)
class NodeView:
    """One node.

    Attributes:
        node_id: unique in the cluster.
        name: host name, for people; nodes may share one.
        alive: whether it answers.
        draining: alive, but takes no new work.
        cpus: CPUs in all.
        cpus_free: CPUs nobody has taken.
        memory: bytes for runs in all.
        memory_free: bytes nobody has taken.
        gpus: its GPUs.
        labels: what its owner says of it.
        is_head: whether it also runs the cluster's own services.
        agent_slots: agents it takes at most; ``None``: :data:`AGENTS_PER_CPU` for each CPU.
        agents: agents of the runs that are on it.
        address: where it is reached.
    """

    node_id: str
    name: str
    alive: bool = True
    draining: bool = False
    cpus: float = 0.0
    cpus_free: float = 0.0
    memory: int = 0
    memory_free: int = 0
    gpus: tuple[Gpu, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    is_head: bool = False
    agent_slots: int | None = None
    agents: int = 0
    address: str = ""

    @property
    def slots(self) -> int:
        """Agents it takes at most."""
        return int(self.cpus * AGENTS_PER_CPU) if self.agent_slots is None else self.agent_slots

    @property
    def usable(self) -> bool:
        """Whether it takes new work."""
        return self.alive and not self.draining

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "gpus": [asdict(gpu) for gpu in self.gpus], "labels": dict(self.labels)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NodeView:
        """The way back from an entry of :meth:`ClusterView.to_dict`."""
        return cls(**{**document, "gpus": tuple(Gpu(**gpu) for gpu in document.get("gpus", ()))})


@dataclass(frozen=True)
class NodeType:
    """A kind of node that the cluster can start by itself.

    Attributes:
        name: as the cluster's config calls it.
        node: such a node, idle; its ``node_id`` and ``name`` mean nothing.
        more: how many more of it may be started; such as are just starting still count as more.
        accelerator: the resource by which Ray tells its GPUs from others, such as ``accelerator_type:A100``; empty
            where its config names none.
    """

    name: str
    node: NodeView
    more: int
    accelerator: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "node": self.node.to_dict(), "more": self.more, "accelerator": self.accelerator}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NodeType:
        """The way back from :meth:`to_dict`."""
        node = NodeView.from_dict(document["node"])
        return cls(document["name"], node, int(document["more"]), document.get("accelerator", ""))


@dataclass(frozen=True)
class Holding:
    """What a run holds now: counted for its experiment's share, and when it may be free again.

    Attributes:
        placement: where it is, and what it takes. A view's free amounts are without it already.
        weight: of its experiment.
        until: unix time at which it will have ended, in seconds, where that is known.
    """

    placement: Placement
    experiment: str = ""
    priority: int = 0
    weight: float = 1.0
    until: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "placement"}
        return {"placement": self.placement.to_dict(), **plain}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Holding:
        """The way back from :meth:`to_dict`."""
        named = {item.name: document[item.name] for item in fields(cls) if item.name in document}
        return cls(**{**named, "placement": Placement.from_dict(document["placement"])})


@dataclass(frozen=True)
class ClusterView:
    """Every node of a cluster.

    Attributes:
        taken_at: unix time of the view, in seconds.
        launchable: what it could start beside the nodes it has.
        holdings: what the runs known to us hold.
        quarantine: ids of nodes that some experiment keeps off, and why.
    """

    nodes: tuple[NodeView, ...]
    taken_at: float
    launchable: tuple[NodeType, ...] = ()
    holdings: tuple[Holding, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "nodes": [node.to_dict() for node in self.nodes],
            "taken_at": self.taken_at,
            "launchable": [kind.to_dict() for kind in self.launchable],
            "holdings": [holding.to_dict() for holding in self.holdings],
            "quarantine": dict(self.quarantine),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ClusterView:
        """The way back from :meth:`to_dict`."""
        return cls(
            nodes=tuple(NodeView.from_dict(node) for node in document["nodes"]),
            taken_at=float(document["taken_at"]),
            launchable=tuple(NodeType.from_dict(kind) for kind in document.get("launchable", ())),
            holdings=tuple(Holding.from_dict(holding) for holding in document.get("holdings", ())),
            quarantine=dict(document.get("quarantine", {})),
        )
