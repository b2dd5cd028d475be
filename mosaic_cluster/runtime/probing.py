"""What the drivers of a cluster's nodes say of their GPUs: each node is asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from mosaic_cluster.inventory import GpuFact, needs_probe, parse_probe

NODE_LABEL = "ray.io/node-id"
PROBE_SECONDS = 20.0
"""How long a first look at a cluster waits for answers. Later ones are taken as they come."""


def gpus_of_this_machine() -> list[dict[str, Any]]:
    """Model and memory of each GPU that NVML sees here, in its order.

    Empty where there is no driver, or where a GPU is cut into MIG instances: Ray then counts other things.
    """
    try:
        import pynvml
    except ModuleNotFoundError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        if any(_is_cut(pynvml, handle) for handle in handles):
            return []
        return [_told(pynvml, handle) for handle in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _is_cut(pynvml: Any, handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:
        return False  # a model that cannot be cut


def _told(pynvml: Any, handle: Any) -> dict[str, Any]:
    name = pynvml.nvmlDeviceGetName(handle)
    return {
        "name": name.decode() if isinstance(name, bytes) else name,
        "memory": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    }


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _probe() -> list[dict[str, Any]]:
    return gpus_of_this_machine()


class GpuProbe:
    """Asks nodes about their GPUs, each once."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[GpuFact, ...]] = {}
        self._asked: dict[str, Any] = {}

    def facts(
        self, nodes: Sequence[Mapping[str, Any]], *, timeout: float = PROBE_SECONDS
    ) -> dict[str, tuple[GpuFact, ...]]:
        """What is known by now, by node id; none of a node whose driver says nothing.

        Args:
            nodes: what ``ray.nodes()`` returns. Nodes whose labels tell the memory are not asked.
            timeout: seconds to wait for nodes that have been asked just now; those that have not answered by then
                are looked at again the next time.
        """
        new = []
        for node in nodes:
            node_id = str(node["NodeID"])
            if not node.get("Alive") or not node.get("Resources", {}).get("GPU"):
                continue
            if not needs_probe(node.get("Labels") or {}) or node_id in self._facts or node_id in self._asked:
                continue
            self._asked[node_id] = _probe.options(label_selector={NODE_LABEL: node_id}).remote()
            new.append(self._asked[node_id])
        if new:
            ray.wait(new, num_returns=len(new), timeout=timeout)
        self._collect({str(node["NodeID"]) for node in nodes if node.get("Alive")})
        return dict(self._facts)

    def _collect(self, alive: set[str]) -> None:
        for node_id, reference in list(self._asked.items()):
            ready, _ = ray.wait([reference], timeout=0)
            if ready:
                del self._asked[node_id]
                try:
                    self._facts[node_id] = parse_probe(ray.get(reference))
                except RayError:
                    continue  # asked again the next time, if the node still lives
            elif node_id not in alive:
                del self._asked[node_id]
        self._facts = {node_id: facts for node_id, facts in self._facts.items() if node_id in alive}
