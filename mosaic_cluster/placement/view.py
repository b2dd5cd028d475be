"""What a cluster has and what of it is free, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its number on its node.
        model: such as ``A100``; ``None`` where nobody said.
        memory: bytes; ``None`` where nobody said.
        free: share that is free, from 0 to 1.
    """

    index: int
    model: str | None = None
    memory: int | None = None
    free: float = 1.0

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory <= 0:
            raise ValueError(
                f"memory of GPU {self.index} is {self.memory}: give bytes above 0, or None if unknown"
            )


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

    @property
    def usable(self) -> bool:
        """Whether it takes new work."""
        return self.alive and not self.draining

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NodeView:
        """The way back from an entry of :meth:`ClusterView.to_dict`."""
        return cls(**{**document, "gpus": tuple(Gpu(**gpu) for gpu in document.get("gpus", ()))})


@dataclass(frozen=True)
class ClusterView:
    """Every node of a cluster.

    Attributes:
        taken_at: unix time of the view, in seconds.
    """

    nodes: tuple[NodeView, ...]
    taken_at: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        nodes = [
            {**asdict(node), "gpus": [asdict(gpu) for gpu in node.gpus], "labels": dict(node.labels)}
            for node in self.nodes
        ]
        return {"nodes": nodes, "taken_at": self.taken_at}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ClusterView:
        """The way back from :meth:`to_dict`."""
        return cls(tuple(NodeView.from_dict(node) for node in document["nodes"]), float(document["taken_at"]))
