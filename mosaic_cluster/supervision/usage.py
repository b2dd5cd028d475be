"""How much memory a worker's processes hold, and held at most."""

from __future__ import annotations

from mosaic_cluster.supervision import tree
from mosaic_cluster.supervision.gpus import GpuWatch
from mosaic_cluster.supervision.order import Limits

EVERY = 1.0
"""Seconds between two looks."""


class Usage:
    """Looks now and then.

    Args:
        limits: what is declared.
        gpus: looks at GPU memory, where there is a GPU.

    Attributes:
        memory: bytes of host memory that they hold; peak: that they held at most.
        gpu_memory, peak_gpu_memory: the same of the GPU where it is most; ``None``: not measured.
        warnings: what was noticed and changes nothing, a sentence each.
    """

    def __init__(self, limits: Limits, gpus: GpuWatch | None = None) -> None:
        self.memory = self.peak = 0
        self.gpu_memory: int | None = None
        self.peak_gpu_memory: int | None = None
        self._gpus = gpus
        self._noticed: dict[str, str] = {}
        bounds = [each for each in (limits.memory, limits.expected_memory) if each is not None]
        self._least = min(bounds, default=None)
        self._next = 0.0

    @property
    def warnings(self) -> list[str]:
        """See the class."""
        unseen = self._gpus.unseen if self._gpus is not None else None
        return [*self._noticed.values(), *([unseen] if unseen else [])]

    @property
    def peaks(self) -> dict[str, int | None]:
        """Peaks by kind of memory."""
        return {"memory": self.peak, "gpu_memory": self.peak_gpu_memory}

    def look(self, top: int, now: float) -> bool:
        """Look at all descendants of a process, if it is time to.

        Args:
            top: its pid.
            now: monotonic seconds.

        Returns:
            Whether there are new figures.
        """
        if now < self._next:
            return False
        self._next = now + EVERY
        pids = tree.family(top)
        self.memory = tree.rss(pids)
        if self._least is not None and self.memory > self._least:
            # What processes share was counted in each.
            self.memory = tree.pss(pids) or self.memory
        self.peak = max(self.peak, self.memory)
        if self._gpus is not None:
            self.gpu_memory = self._gpus.look(pids)
            if self.gpu_memory is not None:
                self.peak_gpu_memory = max(self.peak_gpu_memory or 0, self.gpu_memory)
        return True

    def notice(self, found: dict[str, str]) -> None:
        """Keep the first sentence of each kind."""
        self._noticed = {**found, **self._noticed}
