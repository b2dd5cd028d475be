"""A cluster as text bars: who takes what of each node, and what is free."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from mosaic_cluster.placement import ClusterView, Gpu, Holding, NodeType, NodeView
from mosaic_cluster.units import format_bytes, format_number
from mosaic_cluster.worker.errors import InvalidInput, Problem

BAR = 24
WIDTH = 80
MOST_NODES = 24
MOST_RUNS = 26
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "bright_green")
FREE, OTHERS = "·", "#"

Part = tuple[float, str, str]
"""Share of a bar, its character, its style."""


def show(view: ClusterView, *, show_all: bool = False) -> None:
    """Draw a cluster on stdout: colours on a terminal, plain text anywhere else."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(picture(view, show_all=show_all))


def write_svg(path: Path, view: ClusterView, *, title: str) -> None:
    """Write the same picture as an SVG file, which loads nothing from elsewhere.

    Raises:
        InvalidInput: the file cannot be written.
    """
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH + 8, highlight=False)
    console.print(picture(view))
    text = console.export_svg(title=title, unique_id="mosaic")
    try:
        path.write_text(re.sub(r"@font-face\s*{[^}]*}\s*", "", text), encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidInput([Problem("--svg", f"cannot write {path}: {why}")]) from None


def picture(view: ClusterView, *, show_all: bool = False) -> Group:
    """The cluster, node by node; idle nodes that are alike stand together.

    Args:
        show_all: each node on its own, however many.
    """
    marks = {holding.placement.run_id: _mark(number) for number, holding in enumerate(view.holdings)}
    blocks = [(node, [node]) for node in view.nodes] if show_all else _alike(view)
    parts: list[Text] = [Text(_summary(view), style="bold")]
    for node, alike in blocks if show_all else blocks[:MOST_NODES]:
        held = [each for each in view.holdings if each.placement.node_id == node.node_id]
        parts.append(_node(node, alike, held, marks, view.quarantine.get(node.node_id)))
    if len(blocks) > MOST_NODES and not show_all:
        more = sum(len(alike) for _, alike in blocks[MOST_NODES:])
        parts.append(Text(f"\nand {more:,} more node{'' if more == 1 else 's'}: --all shows them"))
    if view.launchable:
        parts.append(Text("\ncould be started"))
        parts += [_launchable(kind) for kind in view.launchable]
    parts += _legend(view, marks)
    return Group(*parts)


def _mark(number: int) -> tuple[str, str]:
    return LETTERS[number % len(LETTERS)], COLOURS[number % len(COLOURS)]


def _alike(view: ClusterView) -> list[tuple[NodeView, list[NodeView]]]:
    """Nodes in order; those that are idle and alike as one."""
    busy = {holding.placement.node_id for holding in view.holdings}
    found: dict[object, tuple[NodeView, list[NodeView]]] = {}
    for node in sorted(view.nodes, key=lambda node: (not node.is_head, _natural(node.name))):
        free = node.cpus_free, node.memory_free, node.agents, tuple(gpu.free for gpu in node.gpus)
        idle = node.node_id not in busy and free == (node.cpus, node.memory, 0, (1.0,) * len(node.gpus))
        make = (node.cpus, node.memory, node.slots, node.gpus, node.alive, node.draining, node.is_head)
        key = make if idle else node.node_id
        found.setdefault(key, (node, []))[1].append(node)
    return list(found.values())


def _natural(name: str) -> list[tuple[int, str]]:
    """``big-2`` before ``big-10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _summary(view: ClusterView) -> str:
    gpus = [gpu for node in view.nodes for gpu in node.gpus]
    parts = [
        _count(len(view.nodes), "node"),
        _count(sum(node.cpus for node in view.nodes), "CPU"),
        f"{format_bytes(sum(node.memory for node in view.nodes))} of memory",
    ]
    if gpus:
        sized = sum(gpu.memory or 0 for gpu in gpus)
        parts.append(_count(len(gpus), "GPU") + (f" with {format_bytes(sized)}" if sized else ""))
    if view.holdings:
        parts.append(_count(len(view.holdings), "run"))
    return ", ".join(parts)


def _node(
    node: NodeView,
    alike: Sequence[NodeView],
    held: Sequence[Holding],
    marks: Mapping[str, tuple[str, str]],
    quarantine: str | None,
) -> Text:
    text = Text("\n")
    text.append(node.name, style="bold")
    if len(alike) > 1:
        text.append(f" and {len(alike) - 1:,} more like it")
    if node.address:
        text.append(f"  {node.address}", style="dim")
    if node.is_head:
        text.append("  head", style="dim")
    if not node.alive:
        text.append("  dead", style="bold red")
    if node.draining:
        text.append("  draining: takes no new work", style="bold yellow")
    if quarantine is not None:
        text.append(f"  quarantined: {quarantine}", style="bold red")
    runs = [(each.placement, marks[each.placement.run_id]) for each in held]
    if node.cpus:
        ours = [(placement.cpus / node.cpus, *mark) for placement, mark in runs]
        free = f"{format_number(node.cpus_free)} of {format_number(node.cpus)} free"
        _line(text, "CPUs", ours, node.cpus_free / node.cpus, free)
    if node.memory:
        ours = [((placement.memory or 0) / node.memory, *mark) for placement, mark in runs]
        free = f"{format_bytes(node.memory_free, down=True)} of {format_bytes(node.memory)} free"
        _line(text, "memory", ours, node.memory_free / node.memory, free)
    if node.slots:
        ours = [(placement.agents / node.slots, *mark) for placement, mark in runs]
        left = max(0, node.slots - node.agents)
        _line(text, "agents", ours, left / node.slots, f"{left:,} of {node.slots:,} slots free")
    for gpu in node.gpus:
        ours = [
            (placement.gpus / len(placement.gpu_indices), *mark)
            for placement, mark in runs
            if gpu.index in placement.gpu_indices
        ]
        _line(text, f"GPU {gpu.index}", ours, gpu.free, _gpu(gpu))
    return text


def _gpu(gpu: Gpu) -> str:
    model = gpu.model or "unknown model"
    source = f" ({gpu.source})" if gpu.source and gpu.memory is not None else ""
    if gpu.memory is None:
        return f"{model}, memory unknown; {gpu.free:.0%} free"
    free = format_bytes(gpu.free * gpu.memory, down=True)
    return f"{model} {format_bytes(gpu.memory)}{source}, {free} free"


def _line(text: Text, label: str, ours: Sequence[Part], free: float, words: str) -> None:
    text.append(f"\n  {label:<7}")
    others = 1.0 - free - sum(share for share, _, _ in ours)
    parts = [*ours, *([(others, OTHERS, "dim")] if others > 1e-6 else [])]
    text.append_text(bar(parts))
    text.append(f"  {words}")


def bar(parts: Sequence[Part], width: int = BAR) -> Text:
    """Parts of a whole, side by side, rounded to characters: one at least is taken, and free, where any is.

    Args:
        parts: shares that make up 1 at most.
    """
    text, place, total = Text(), 0, 0.0
    for share, character, style in parts:
        total += share
        most = width if total > 1 - 1e-6 else width - 1
        end = min(most, max(place, round(total * width), 1 if share > 0 else 0))
        text.append(character * (end - place), style=style)
        place = max(place, end)
    text.append(FREE * (width - place), style="dim")
    return text


def _launchable(kind: NodeType) -> Text:
    node = kind.node
    parts = [_count(node.cpus, "CPU"), f"{format_bytes(node.memory)} of memory"]
    for gpu in dict.fromkeys(replace(gpu, index=0) for gpu in node.gpus):
        count = sum(replace(each, index=0) == gpu for each in node.gpus)
        size = f" {format_bytes(gpu.memory)} ({gpu.source})" if gpu.memory else ", memory unknown"
        parts.append(f"{count}x {gpu.model or 'GPU'}{size}")
    text = Text("  ")
    text.append(f"{kind.more:,}x {kind.name}", style="bold")
    text.append(f": {', '.join(parts)}")
    return text


def _legend(view: ClusterView, marks: Mapping[str, tuple[str, str]]) -> list[Text]:
    parts: list[Text] = []
    names = {node.node_id: node.name for node in view.nodes}
    for holding in view.holdings[:MOST_RUNS]:
        placement = holding.placement
        letter, style = marks[placement.run_id]
        line = Text("\n" if not parts else "")
        line.append(letter, style=style)
        whose = f" of {holding.experiment}" if holding.experiment else ""
        line.append(f" {placement.run_id}{whose} on {names.get(placement.node_id, placement.node_name)}: ")
        line.append(placement.resources())
        parts.append(line)
    if len(view.holdings) > MOST_RUNS:
        parts.append(Text(f"  and {_count(len(view.holdings) - MOST_RUNS, 'more run')}"))
    parts.append(Text(f"\n{FREE} free, {OTHERS} taken by others", style="dim"))
    return parts


def _count(number: float, what: str) -> str:
    shown = f"{number:,.0f}" if float(number).is_integer() else format_number(number)
    return f"{shown} {what}" + ("" if number == 1 else "s")
