"""Why a run got its node, and why it waits: sentences for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import STEPS, Demand, Room
from mosaic_cluster.placement.view import Gpu, NodeView
from mosaic_cluster.units import format_bytes, format_number

NO_GPU_NOW = "no node has room for it with a GPU now; resources.gpus_mandatory is false, so it runs without"
Name = Callable[[str], str]


@dataclass(frozen=True)
class Left:
    """What a placement leaves.

    Attributes:
        name: of the node, told apart from others.
        cpus: steps free on the node.
        memory: bytes free on it.
        shares: steps free on each GPU taken.
    """

    name: str
    node: NodeView
    cpus: int
    memory: int
    shares: tuple[int, ...]


def placed(
    request: Request, left: Left, places: tuple[int, ...], steps: int, trusted: bool, remark: str
) -> Iterable[str]:
    """Why this node."""
    node = left.node
    free = f"leaves {cpus(left.cpus)} of {format_number(node.cpus)}"
    yield f"node {left.name}: best fit; {free} and {down(left.memory)} of {format_bytes(node.memory)} of memory free"
    for place, share in zip(places, left.shares, strict=True):
        gpu = node.gpus[place]
        if trusted and gpu.memory is None:
            yield f"GPU {gpu.index}{_model(gpu)}: taken whole, since its memory is unknown"
        elif request.shares_gpu and not trusted:
            part = f"{format_bytes(request.gpu_memory or 0)} is {number(steps)} of it"
            yield f"GPU {gpu.index}{_model(gpu)}: {part}; {number(share)} is left"
    if places and request.shares_gpu and not trusted and len({gpu.memory for gpu in node.gpus}) > 1:
        yield f"{mixed(node)}: the share is counted on the smallest"
    if remark:
        yield remark


def mixed(node: NodeView) -> str:
    """A node's GPUs of several sizes or models, and what follows."""
    sizes = sorted({gpu.memory for gpu in node.gpus if gpu.memory is not None})
    kinds = sorted({gpu.model for gpu in node.gpus if gpu.model is not None})
    what = join([down(size) for size in sizes]) if len(sizes) > 1 else join(kinds)
    return f"its GPUs differ ({what}), and Ray chooses among them"


def waiting(request: Request, rooms: Sequence[Room], name: Name) -> Iterable[str]:
    """One sentence for each class of nodes that could run ``request`` if they were idle.

    Args:
        rooms: their rooms, none of which has enough now.
    """
    bare = request if request.gpus_mandatory else request.without_gpus()
    demand = Demand(bare)
    for alike in classes(rooms):
        short = {room.key: _short(bare, demand, room) for room in alike}
        nearest = min(alike, key=lambda room: (len(short[room.key]), room.key))
        wanted, there = zip(*short[nearest.key], strict=True)
        sentence = f"waiting for {join(wanted)}: node {name(nearest.node.node_id)} has {join(there)}"
        if len(alike) > 1:
            others = "1 other node" if len(alike) == 2 else f"{len(alike) - 1} other nodes"
            sentence += f"; {others} of its kind {'has' if len(alike) == 2 else 'have'} no room for it either"
        yield sentence


def _short(request: Request, demand: Demand, room: Room) -> list[tuple[str, str]]:
    """What is short now: what is wanted, and what there is."""
    short = []
    if demand.cpus > room.cpus:
        short.append((cpus(demand.cpus), f"{number(room.cpus)} of {number(room.cpus_total)} free"))
    if demand.memory > room.memory:
        free = f"{down(room.memory)} of {format_bytes(room.node.memory)} free"
        short.append((f"{format_bytes(demand.memory)} of memory", free))
    if demand.agents > room.slots:
        short.append((agents(demand.agents), f"{room.slots} of {room.slots_total} agent slots free"))
    steps = demand.steps_on(room.make) or 0
    if steps and sum(free >= steps for free in room.gpus) < demand.gpus:
        short.append(_short_of_gpus(request, demand, room))
    return short


def _short_of_gpus(request: Request, demand: Demand, room: Room) -> tuple[str, str]:
    least = room.make.least
    if demand.shared and room.make.known and least is not None:
        free = down(max(room.gpus) * least // STEPS)
        return f"{format_bytes(demand.gpu_memory)} on one GPU", f"at most {free} of {format_bytes(least)} free on a GPU"
    wanted = "a whole GPU" if request.gpus == 1 else f"{request.gpus} whole GPUs"
    if demand.shared:
        wanted += " (its memory is unknown, so that no share can be given)"
    return wanted, f"{room.whole} of {room.make.count} free"


def classes(rooms: Sequence[Room]) -> list[list[Room]]:
    """Rooms on nodes of one kind, in the order they come: memory differs by little on nodes that are the same."""
    found: dict[object, list[Room]] = {}
    for room in rooms:
        coarse = max(0, room.node.memory.bit_length() - 4)
        found.setdefault((room.cpus_total, room.node.memory >> coarse, coarse, room.make), []).append(room)
    return list(found.values())


def names_of(nodes: Sequence[NodeView]) -> dict[str, str]:
    """A name for each node that tells it apart: nodes may share a host name."""
    times = Counter(node.name for node in nodes)
    return {
        node.node_id: node.name if times[node.name] == 1 else f"{node.name} ({node.node_id[:12]})" for node in nodes
    }


def number(steps: int) -> str:
    """Steps as a number."""
    return format_number(steps / STEPS)


def cpus(steps: int) -> str:
    """Steps of CPUs."""
    return f"{number(steps)} CPU{'' if steps == STEPS else 's'}"


def agents(count: int) -> str:
    """A number of agents."""
    return f"{count} agent slot{'' if count == 1 else 's'}"


def down(count: int) -> str:
    """Bytes, rounded down."""
    return format_bytes(count, down=True)


def _model(gpu: Gpu) -> str:
    known = [text for text in (gpu.model, format_bytes(gpu.memory) if gpu.memory else None) if text]
    return f" ({', '.join(known)})" if known else ""


def join(parts: Sequence[str]) -> str:
    """Parts of a sentence: a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
