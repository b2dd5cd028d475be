"""How much room a node has, and whether a demand fits: one rule for idle and for busy nodes.

CPUs and GPUs are counted in whole steps of 1/10,000, Ray's own granularity, so that sums are exact. Ray chooses the
GPU of a node itself, so a share is one that holds on any GPU of the node: it is counted on the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mosaic_cluster.placement import accelerators
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.view import Gpu, NodeView

STEPS = 10_000
# Less than this part of a step is noise of floating-point sums, not room.
_NOISE = 1e-6


def steps_needed(amount: float) -> int:
    """A demand in steps, rounded up."""
    return math.ceil(amount * STEPS - _NOISE)


def steps_free(amount: float) -> int:
    """Room in steps, rounded down."""
    return max(0, math.floor(amount * STEPS + _NOISE))


@dataclass(frozen=True)
class Make:
    """What of a node's GPUs never changes.

    Attributes:
        models: of each; memories: bytes of each.
        least: bytes of the smallest whose memory is known; ``None``: of none is.
        known: whether the memory of all is known.
    """

    models: tuple[str | None, ...]
    memories: tuple[int | None, ...]
    least: int | None
    known: bool

    @property
    def count(self) -> int:
        """GPUs on the node."""
        return len(self.models)

    @property
    def model(self) -> str | None:
        """The model, where all are of one."""
        return self.models[0] if len(set(self.models)) == 1 else None

    def all_match(self, wanted: tuple[str, ...]) -> bool:
        """Whether each GPU is of a model that is asked for; any will do where none is."""
        found = zip(self.models, self.memories, strict=True)
        return not wanted or all(accelerators.any_matches(wanted, model, memory) for model, memory in found)

    def some_match(self, wanted: tuple[str, ...]) -> bool:
        """Whether one of the GPUs is."""
        found = zip(self.models, self.memories, strict=True)
        return any(accelerators.any_matches(wanted, model, memory) for model, memory in found)


@lru_cache(maxsize=4096)
def _make(gpus: tuple[tuple[str | None, int | None], ...]) -> Make:
    memories = tuple(memory for _, memory in gpus)
    known = [memory for memory in memories if memory is not None]
    return Make(tuple(model for model, _ in gpus), memories, min(known, default=None), len(known) == len(gpus))


def make_of(gpus: tuple[Gpu, ...]) -> Make:
    """The make of a node with these GPUs."""
    return _make(tuple((gpu.model, gpu.memory) for gpu in gpus))


class Demand:
    """What a request needs of a node, in steps and bytes: all that decides where it fits."""

    __slots__ = (
        "accelerator", "agents", "avoid", "cpus", "gpu_memory", "gpus", "labels", "levels", "memory", "shared",
    )  # fmt: skip

    def __init__(self, request: Request) -> None:
        self.cpus = steps_needed(request.cpus)
        self.memory = request.memory or 0
        self.agents = request.agents
        self.gpus = request.gpus
        self.gpu_memory = request.gpu_memory or 0
        self.shared = request.shares_gpu
        self.accelerator = request.accelerator if request.gpus else ()
        self.labels: Mapping[str, str] = request.labels
        self.avoid = frozenset(request.avoid)
        self.levels = levels(self.cpus, self.memory, self.agents)

    def steps_on(self, make: Make) -> int | None:
        """Steps of each GPU it takes on a node of this make; ``None``: its GPUs will never do."""
        if self.gpus == 0:
            return 0
        if make.count < self.gpus or not make.all_match(self.accelerator):
            return None
        if make.least is not None and make.least < self.gpu_memory:
            return None
        if not self.shared or not make.known or make.least is None:
            return STEPS
        return max(1, -(-self.gpu_memory * STEPS // make.least))

    def guesses(self, make: Make) -> bool:
        """Whether whole GPUs would be taken on trust: some of unknown memory, where a size is asked for."""
        return bool(self.gpus and self.gpu_memory and not make.known)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Larger is harder to place."""
        gpus = self.gpus if not self.shared else 0
        return (gpus, self.gpu_memory, self.cpus, self.memory)


def levels(cpus: int, memory: int, agents: int) -> tuple[int, int, int]:
    """Orders of magnitude: room of a lower level never holds a demand of a higher one."""
    return (cpus.bit_length(), (memory >> 20).bit_length(), agents.bit_length() >> 1)


class Room:
    """What is free on one node; :meth:`take` makes it less, :meth:`give` more."""

    __slots__ = (
        "cpus", "cpus_total", "gpus", "key", "make", "memory", "node", "slots", "slots_total", "whole",
    )  # fmt: skip

    def __init__(self, node: NodeView, *, idle: bool = False) -> None:
        self.node = node
        self.make = make_of(node.gpus)
        # Equals are taken by name, the head last.
        self.key = ("1" if node.is_head else "0") + node.node_id
        self.cpus_total = steps_free(node.cpus)
        self.cpus = self.cpus_total if idle else min(self.cpus_total, steps_free(node.cpus_free))
        self.memory = node.memory if idle else max(0, min(node.memory, node.memory_free))
        self.slots_total = node.slots
        self.slots = self.slots_total if idle else max(0, self.slots_total - node.agents)
        self.gpus = [STEPS if idle else min(STEPS, steps_free(gpu.free)) for gpu in node.gpus]
        self.whole = self.gpus.count(STEPS)

    def copy(self) -> Room:
        """The same room, to try things in."""
        other = Room.__new__(Room)
        for name in Room.__slots__:
            setattr(other, name, getattr(self, name))
        other.gpus = list(self.gpus)
        return other

    def become(self, other: Room) -> None:
        """As free as another room of the same node."""
        self.cpus, self.memory, self.slots = other.cpus, other.memory, other.slots
        self.gpus, self.whole = list(other.gpus), other.whole

    def choose(self, demand: Demand, steps: int | None) -> tuple[int, ...] | None:
        """Places of the GPUs in ``NodeView.gpus`` that Ray would take; ``None``: there is no room.

        Args:
            steps: what :meth:`Demand.steps_on` says of this node's make.
        """
        if steps is None or demand.cpus > self.cpus or demand.memory > self.memory or demand.agents > self.slots:
            return None
        if steps == 0:
            return ()
        if steps < STEPS or demand.gpus == 1:
            least = min((free for free in self.gpus if free >= steps), default=None)
            return None if least is None else (self.gpus.index(least),)
        if self.whole < demand.gpus:
            return None
        return tuple(place for place, free in enumerate(self.gpus) if free == STEPS)[: demand.gpus]

    def take(self, demand: Demand, steps: int, places: tuple[int, ...]) -> None:
        """Take what :meth:`choose` found."""
        self.cpus -= demand.cpus
        self.memory -= demand.memory
        self.slots -= demand.agents
        for place in places:
            if self.gpus[place] == STEPS:
                self.whole -= 1
            self.gpus[place] -= steps

    def give(self, cpus: int, memory: int, agents: int, steps: int, places: tuple[int, ...]) -> None:
        """Give back; never more than the node has."""
        self.cpus = min(self.cpus_total, self.cpus + cpus)
        self.memory = min(self.node.memory, self.memory + memory)
        self.slots = min(self.slots_total, self.slots + agents)
        for place in places:
            self.gpus[place] = min(STEPS, self.gpus[place] + steps)
        self.whole = self.gpus.count(STEPS)

    def lose(self, cpus: int, memory: int, agents: int, steps: int, places: tuple[int, ...]) -> None:
        """Take what somebody else says it holds; never more than there is."""
        self.cpus = max(0, self.cpus - cpus)
        self.memory = max(0, self.memory - memory)
        self.slots = max(0, self.slots - agents)
        for place in places:
            self.gpus[place] = max(0, self.gpus[place] - steps)
        self.whole = self.gpus.count(STEPS)
