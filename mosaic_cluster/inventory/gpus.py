"""What is known of a node's GPUs, and who said it: never guessed in silence.

A label of the node counts first, then what the node's driver says, then the table of known models; where none of them
knows, the memory is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.placement import Gpu
from mosaic_cluster.placement.accelerators import known_accelerator, model_name
from mosaic_cluster.units import parse_bytes

GPU_MODEL_LABEL = "ray.io/accelerator-type"
OWN_MODEL_LABEL = "mosaic/gpu-model"
GPU_MEMORY_LABEL = "mosaic/gpu-memory"

LABEL, PROBED, TABLE, FILE, UNKNOWN = "label", "probed", "table", "file", "unknown"


@dataclass(frozen=True)
class GpuFact:
    """What a node's driver says of one GPU.

    Attributes:
        name: as the driver writes it, such as ``NVIDIA A100-SXM4-40GB``.
        memory: bytes.
    """

    name: str
    memory: int


def parse_probe(answer: Any) -> tuple[GpuFact, ...]:
    """What a probe answered, checked: it comes from another machine.

    Args:
        answer: ``[{"name": ..., "memory": ...}, ...]`` in the order of the driver; anything else means that the probe
            found no GPU.
    """
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        return ()
    facts = []
    for entry in answer:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        memory = entry.get("memory") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not isinstance(memory, int) or memory <= 0:
            return ()
        facts.append(GpuFact(name, memory))
    return tuple(facts)


def needs_probe(labels: Mapping[str, str]) -> bool:
    """Whether labels leave a question that the node's driver can answer."""
    return labelled_memory(labels) is None


def labelled_memory(labels: Mapping[str, str]) -> int | None:
    """Bytes that a node's label gives each of its GPUs; ``None`` if it gives none that can be read."""
    try:
        return parse_bytes(labels[GPU_MEMORY_LABEL]) or None
    except (KeyError, ValueError):
        return None


def gpus_of(
    count: int,
    free: Sequence[float],
    labels: Mapping[str, str],
    *,
    accelerator: str | None = None,
    probed: Sequence[GpuFact] = (),
) -> tuple[Gpu, ...]:
    """The GPUs of one node.

    Args:
        count: how many Ray counts there.
        free: free share of each.
        labels: of the node.
        accelerator: model that Ray itself found.
        probed: what the node's driver says. It counts only where it sees as many GPUs as Ray: else nobody can
            tell which of them Ray means, unless all are alike.
    """
    facts = _matching(count, probed)
    given = labels.get(OWN_MODEL_LABEL) or labels.get(GPU_MODEL_LABEL)
    labelled = labelled_memory(labels)
    found = []
    for index in range(count):
        fact = facts[index] if facts else None
        # The label Ray sets itself names the first GPU's model: where models are mixed, the driver knows better.
        mixed = len({each.name for each in facts}) > 1
        name = fact.name if fact and (mixed or not given) else given or accelerator
        memory, source = _memory(labelled, fact, name)
        model = None if name is None else model_name(name)
        found.append(Gpu(index=index, model=model, memory=memory, free=free[index], source=source))
    return tuple(found)


def _matching(count: int, probed: Sequence[GpuFact]) -> Sequence[GpuFact]:
    if len(probed) == count:
        return probed
    if len(probed) > count and len(set(probed)) == 1:
        return probed[:count]
    return ()


def _memory(labelled: int | None, fact: GpuFact | None, name: str | None) -> tuple[int | None, str]:
    if labelled is not None:
        return labelled, LABEL
    if fact is not None:
        return fact.memory, PROBED
    known = known_accelerator(name) if name else None
    return (None, UNKNOWN) if known is None else (known.memory, TABLE)
