"""Lies in the contract folder as ``sitecustomize``: keeps torch within a worker's share of its GPU.

Python imports it at the start of each of a worker's processes. JAX and TensorFlow read variables for this; torch has
only a function, and older releases refuse a variable that they do not know. The function is called when torch first
uses a GPU, never before: a process that has initialised CUDA cannot fork. Standard library only, Python 3.8.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # without the time that importing `typing` takes
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

CAP = "MOSAIC_GPU_MEMORY_CAP"
"""Bytes that a library may allocate on each GPU."""


class TorchFinder:
    """Lets the others find torch, and has it capped once it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        del path, target
        if name != "torch":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec("torch")
        if spec is not None and spec.loader is not None:
            _after_import(spec.loader)
        return spec


def _after_import(loader: Any) -> None:
    run = loader.exec_module

    def exec_module(module: Any) -> None:
        del loader.exec_module
        run(module)
        try:
            module.cuda._lazy_call(lambda: cap(module))
        except AttributeError as error:
            _cannot(error)

    try:
        loader.exec_module = exec_module
    except AttributeError as error:
        _cannot(error)


def cap(torch: Any) -> None:
    """Keep torch's allocator within the share, on each GPU that this process sees."""
    try:
        limit = int(os.environ[CAP])
        for index in range(torch.cuda.device_count()):
            total = torch.cuda.get_device_properties(index).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
    except Exception as error:  # noqa: BLE001 -- a worker must not fail for it: its memory is watched from outside, too
        _cannot(error)


def _cannot(error: Exception) -> None:
    sys.stderr.write("mosaic: torch is not kept within its share of the GPU: %s: %s\n" % (type(error).__name__, error))


def _go_on() -> None:
    """Run the ``sitecustomize`` that this one stands before, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    if os.environ.get(CAP):
        sys.meta_path.insert(0, TorchFinder())
    _go_on()
