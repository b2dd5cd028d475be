"""How much room a node has, and whether a request fits: one rule for idle and for busy nodes.

CPUs and GPUs are counted in whole steps of 1/10,000, Ray's own granularity, so that sums are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def share_of(gpu_memory: int, gpu: Gpu) -> int:
    """Steps of ``gpu`` that hold ``gpu_memory`` bytes, rounded up; a whole GPU where its size is unknown."""
    return STEPS if gpu.memory is None else max(1, -(-gpu_memory * STEPS // gpu.memory))


@dataclass(frozen=True)
class GpuChoice:
    """GPUs of one node for one request.

    Attributes:
        positions: which, by place in ``NodeView.gpus``.
        steps: of each.
        guessed: a whole GPU is taken because its memory is unknown.
        left: bytes of memory (0 where unknown) that stay free on a shared GPU, or that whole GPUs hold in
            all: the smaller, the better for large requests to come.
    """

    positions: tuple[int, ...] = ()
    steps: int = 0
    guessed: bool = False
    left: int = 0


class Room:
    """What is free on one node; :meth:`take` makes it less."""

    def __init__(self, node: NodeView, *, idle: bool = False) -> None:
        self.node = node
        self.cpus_total = steps_free(node.cpus)
        self.cpus = self.cpus_total if idle else min(self.cpus_total, steps_free(node.cpus_free))
        self.memory = node.memory if idle else max(0, min(node.memory, node.memory_free))
        self.gpus = [STEPS if idle else min(STEPS, steps_free(gpu.free)) for gpu in node.gpus]

    def holds(self, request: Request) -> bool:
        """Whether CPUs and memory suffice."""
        return steps_needed(request.cpus) <= self.cpus and (request.memory or 0) <= self.memory

    def choose(self, request: Request) -> GpuChoice | None:
        """The tightest-fitting GPUs, or ``None`` if there are none; CPUs and memory are looked at too."""
        if not self.holds(request):
            return None
        if request.gpus == 0:
            return GpuChoice()
        return self._share(request.gpu_memory or 0) if request.shares_gpu else self._whole(request)

    def take(self, request: Request, choice: GpuChoice) -> None:
        """Take what ``request`` needs."""
        self.cpus -= steps_needed(request.cpus)
        self.memory -= request.memory or 0
        for position in choice.positions:
            self.gpus[position] -= choice.steps

    def large_enough(self, request: Request) -> list[int]:
        """Positions of whole free GPUs that are large enough, or of unknown size."""
        least = request.gpu_memory or 0
        return [
            position
            for position, gpu in enumerate(self.node.gpus)
            if self.gpus[position] == STEPS and (gpu.memory is None or gpu.memory >= least)
        ]

    def _share(self, gpu_memory: int) -> GpuChoice | None:
        best: tuple[bool, int, int, int] | None = None
        for position, (gpu, free) in enumerate(zip(self.node.gpus, self.gpus, strict=True)):
            steps = share_of(gpu_memory, gpu) if free else STEPS
            if steps <= free:
                left = (free - steps) * (gpu.memory or 0) // STEPS
                found = (gpu.memory is None, left, position, steps)
                best = found if best is None else min(best, found)
        if best is None:
            return None
        guessed, left, position, steps = best
        return GpuChoice((position,), steps, guessed, left)

    def _whole(self, request: Request) -> GpuChoice | None:
        fitting = self.large_enough(request)
        if len(fitting) < request.gpus:
            return None

        def unwanted(position: int) -> tuple[bool, int, int]:
            memory = self.node.gpus[position].memory
            # Unknown sizes are a risk where a size is asked for, and the best choice where none is.
            return (memory is None and bool(request.gpu_memory), memory or 0, position)

        chosen = sorted(sorted(fitting, key=unwanted)[: request.gpus])
        sizes = [self.node.gpus[position].memory for position in chosen]
        guessed = bool(request.gpu_memory) and None in sizes
        return GpuChoice(tuple(chosen), STEPS, guessed, sum(size or 0 for size in sizes))
