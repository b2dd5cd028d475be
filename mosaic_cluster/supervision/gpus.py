"""GPU memory of processes, as NVIDIA's management library (NVML) counts it. Loaded only for who has a GPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

PROC = Path("/proc")
CUDA_DEVICE = "/dev/nvidia-uvm"
"""Who computes with CUDA holds it open; who only looks at GPUs does not."""

PATIENCE = 3
"""Looks that must find the same before it is said that something cannot be seen."""


class Nvml(Protocol):
    """The part of ``pynvml`` (the distribution nvidia-ml-py) that is used."""

    def nvmlInit(self) -> None:
        """Open the driver."""

    def nvmlDeviceGetCount(self) -> int:
        """GPUs of this machine."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """One of them."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:
        """Processes on it: each with ``pid``, and ``usedGpuMemory`` in bytes or ``None``."""


def load_nvml() -> Nvml:
    """The library.

    Raises:
        ImportError: it is not installed.
    """
    return cast(Nvml, importlib.import_module("pynvml"))


def computes(pid: int) -> bool:
    """Whether a process has opened the GPU's memory to compute with it."""
    folder = PROC / str(pid) / "fd"
    try:
        return any(os.readlink(folder / each) == CUDA_DEVICE for each in os.listdir(folder))
    except OSError:
        return False


class GpuWatch:
    """Looks at what processes hold on GPUs.

    Args:
        load: brings the library.
        computes: whether a process uses a GPU, whatever the library says.

    Attributes:
        unseen: why their GPU memory cannot be told, in one sentence; ``None`` while it can.
    """

    def __init__(self, load: Callable[[], Nvml] = load_nvml, computes: Callable[[int], bool] = computes) -> None:
        self.unseen: str | None = None
        self._computes = computes
        self._nvml: Nvml | None = None
        self._gpus: list[Any] = []
        self._strange = 0
        try:
            self._nvml = load()
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._gpus = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except ImportError:
            self._cannot("nvidia-ml-py is not installed on this node")
        except Exception as error:  # noqa: BLE001 -- its errors are of a class of its own, and a worker must not die of it
            self._cannot(f"NVML says: {error}")

    def look(self, pids: Iterable[int]) -> int | None:
        """Bytes that these processes together hold on the GPU where they hold most; ``None``: nobody can say."""
        if self._nvml is None:
            return None
        ours = frozenset(pids)
        most, found = 0, False
        try:
            for gpu in self._gpus:
                used = [
                    each.usedGpuMemory
                    for each in self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
                    if each.pid in ours
                ]
                if None in used:
                    self._cannot("the driver does not tell the memory of processes here")
                    return None
                found = found or bool(used)
                most = max(most, sum(used))
        except Exception as error:  # noqa: BLE001
            self._cannot(f"NVML says: {error}")
            return None
        return self._strangers(ours) if not found else most

    def _strangers(self, ours: Iterable[int]) -> int | None:
        """None of ours is known to the driver: they hold nothing, or it knows them by other numbers."""
        if not any(map(self._computes, ours)):
            self._strange = 0
            return 0
        self._strange += 1
        if self._strange >= PATIENCE:  # before, one that has just begun may not be listed yet
            self._cannot("the driver counts processes by other numbers (a container with its own?)")
        return None

    def _cannot(self, why: str) -> None:
        """From here on, nothing is told rather than something wrong."""
        self._nvml = None
        self.unseen = f"its GPU memory is not measured: {why}"
