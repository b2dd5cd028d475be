"""Cluster files: a cluster described in YAML, to plan against without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from mosaic_cluster.inventory.groups import MOST_NODES, GpuKind, NodeGroup, nodes_of
from mosaic_cluster.inventory.nodes_table import EXAMPLE, MOST_GPUS, is_nodes_table, parse_nodes_table
from mosaic_cluster.placement import ClusterView, NodeType
from mosaic_cluster.placement.accelerators import known_accelerator, stated_size
from mosaic_cluster.specs import read_document
from mosaic_cluster.specs.fields import MaybeSize, flag, number, optional, text, whole_number
from mosaic_cluster.specs.problems import problems_of, several, shown
from mosaic_cluster.specs.sections import Section
from mosaic_cluster.units import format_bytes
from mosaic_cluster.worker.errors import InvalidInput, Problem

Name = Annotated[str, text(1, 120, example="big")]
Slots = Annotated[int | None, optional(whole_number(0, example=500))]


class Gpus(Section):
    """Equal GPUs of one node."""

    model: Name = Field(description="Model of the GPU", examples=["A100"])
    count: Annotated[int, whole_number(1, MOST_GPUS, example=2)] = Field(default=1, description="How many")
    memory: MaybeSize = Field(default=None, description="Memory of each; left out, as the table of models has it")


def _gpus(value: Any) -> Any:
    """One kind of GPU, or a list of several."""
    entries = value if isinstance(value, list) else [value]
    problems: list[tuple[str, str]] = []
    read = []
    for place, entry in enumerate(entries):
        where = str(place) if isinstance(value, list) else ""
        if not isinstance(entry, dict):
            example = "{model: A100, count: 2, memory: 40GiB}"
            problems.append((where, f"{shown(entry)} is not a mapping; give for example {example}"))
            continue
        try:
            gpus = Gpus.model_validate(entry)
        except ValidationError as error:
            below = [(each.path, each.message) for each in problems_of(error, Gpus)]
            problems += [(".".join(filter(None, (where, path))), message) for path, message in below]
            continue
        if gpus.memory is None and stated_size(gpus.model) is None and known_accelerator(gpus.model) is None:
            message = f"missing; nothing is known of the GPU {shown(gpus.model)}: give its memory, e.g. memory: 24GiB"
            problems.append((".".join(filter(None, (where, "memory"))), message))
        read.append(gpus)
    if problems:
        raise several(problems)
    return read


def _labels(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not a mapping; give labels and their values, e.g. {{zone: a}}")
    wrong = [
        (str(name), f"{shown(each)} is not text; put it in quotes")
        for name, each in value.items()
        if not isinstance(name, str) or not isinstance(each, str)
    ]
    if wrong:
        raise several(wrong)
    return value


class _Node(Section):
    """What nodes of one kind have."""

    cpus: Annotated[float, number(0, example="8")] = Field(description="CPUs of each", examples=[8])
    memory: MaybeSize = Field(default=None, description="Host memory of each; left out, 4GiB for each CPU")
    gpus: Annotated[tuple[Gpus, ...], BeforeValidator(_gpus)] = Field(
        default=(), description="GPUs of each: model, count, memory; a list of these where they differ"
    )
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = Field(
        default_factory=dict, description="Labels that the nodes bear"
    )
    agent_slots: Slots = Field(default=None, description="Agents that each takes at most")

    def group(self, name: str, count: int = 1, *, draining: bool = False) -> NodeGroup:
        """The group of nodes that this describes."""
        kinds = tuple(GpuKind(gpus.model, gpus.count, gpus.memory) for gpus in self.gpus)
        return NodeGroup(
            count, name, self.cpus, self.memory, kinds, dict(self.labels), self.agent_slots, draining
        )  # fmt: skip


class Nodes(_Node):
    """Nodes that are there."""

    name: Annotated[str | None, optional(text(1, 120, example="big"))] = Field(
        default=None, description="What they are called; several get a number"
    )
    count: Annotated[int, whole_number(1, MOST_NODES, example=4)] = Field(default=1, description="How many")
    draining: Annotated[bool, flag()] = Field(default=False, description="Whether they take no new work")


class Launchable(_Node):
    """Nodes that the cluster would start when there is work for them."""

    name: Name = Field(description="What this kind is called", examples=["burst"])
    max: Annotated[int, whole_number(1, MOST_NODES, example=8)] = Field(
        description="How many of it may be started", examples=[8]
    )


def _list(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list; give kinds of nodes, each beginning with a dash (-)")
    return value


class ClusterFile(Section):
    """A cluster file."""

    nodes: Annotated[tuple[Nodes, ...], BeforeValidator(_list)] = Field(
        default=(), description="The nodes that are there"
    )
    launchable: Annotated[tuple[Launchable, ...], BeforeValidator(_list)] = Field(
        default=(), description="Kinds of nodes that could be started"
    )


def read_cluster(source: str | Path) -> ClusterView:
    """The cluster that a cluster file or a nodes table describes, idle.

    Args:
        source: path of a YAML or JSON file, or a nodes table such as ``"4x(8cpu,2xA100-40GB)"``.

    Raises:
        InvalidInput: with every problem.
    """
    if isinstance(source, str) and is_nodes_table(source) and not Path(source).exists():
        return ClusterView(nodes_of(parse_nodes_table(source, f"nodes table {source}")), 0.0)
    return parse_cluster(read_document(Path(source)), heading=str(source))


def parse_cluster(document: dict[str, Any], *, heading: str | None = None) -> ClusterView:
    """The cluster that a cluster file's content describes, idle.

    Raises:
        InvalidInput: with every problem.
    """
    problems: list[Problem] = []
    groups: list[NodeGroup] = []
    rest = dict(document)
    if isinstance(rest.get("nodes"), str):
        try:
            groups = parse_nodes_table(rest.pop("nodes"))
        except InvalidInput as error:
            problems = [Problem(f"nodes: {problem.path}", problem.message) for problem in error.problems]
    try:
        read = ClusterFile.model_validate(rest)
    except ValidationError as error:
        raise InvalidInput([*problems, *problems_of(error, ClusterFile)], heading) from None
    groups += [each.group(each.name or "", each.count, draining=each.draining) for each in read.nodes]
    if not problems and not groups and not read.launchable:
        problems = [Problem("nodes", f"missing; give nodes, for example nodes: {EXAMPLE!r}")]
    if problems:
        raise InvalidInput(problems, heading)
    kinds = [NodeType(each.name, each.group(each.name).node(each.name), each.max) for each in read.launchable]
    return ClusterView(nodes_of(groups), 0.0, launchable=tuple(kinds))


def assumed(view: ClusterView) -> list[str]:
    """What a description left open and was filled in, one line each, for people."""
    lines: dict[str, None] = {}
    for node in [*view.nodes, *(kind.node for kind in view.launchable)]:
        for gpu in node.gpus:
            known = known_accelerator(gpu.model or "")
            if gpu.source == "table" and known is not None and gpu.memory is not None:
                others = " or ".join(format_bytes(size) for size in known.sizes)
                why = "as the table of models has it"
                if known.ambiguous:
                    why = f"the smallest of that name ({others}); say which with its memory"
                lines[f"GPU {gpu.model}: {format_bytes(gpu.memory)}, {why}"] = None
    return list(lines)
