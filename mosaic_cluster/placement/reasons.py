"""Why a run got its node, why it waits, why it never can: sentences for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import STEPS, GpuChoice, Room, steps_needed
from mosaic_cluster.placement.view import ClusterView, Gpu, NodeView
from mosaic_cluster.units import format_bytes, format_number

NO_GPU_NOW = "no node has room for it with a GPU now; resources.gpus_mandatory is false, so it runs without"


def placed(
    request: Request, room: Room, choice: GpuChoice, candidates: int, names: dict[str, str]
) -> Iterable[str]:
    """Why this node. ``room`` is what is left after the run took its part."""
    node = room.node
    left = f"leaves {_cpus(room.cpus)} of {_number(room.cpus_total)}"
    left += f" and {_down(room.memory)} of {format_bytes(node.memory)} of memory free"
    fit = "the only node with room" if candidates == 1 else f"tightest fit of {candidates} nodes with room"
    yield f"node {names[node.node_id]}: {fit}; {left}"
    for position in choice.positions:
        gpu = node.gpus[position]
        if choice.guessed and gpu.memory is None:
            yield f"GPU {gpu.index}{_model(gpu)}: taken whole, since its memory is unknown"
        elif request.shares_gpu:
            share = format_number(choice.steps / STEPS)
            yield f"GPU {gpu.index}{_model(gpu)}: {format_bytes(request.gpu_memory or 0)} is {share} of it"


def waiting(request: Request, rooms: Sequence[Room], names: dict[str, str]) -> Iterable[str]:
    """One sentence for each class of nodes that could run ``request`` if they were idle."""
    for alike in _classes(rooms):
        short = {room.node.node_id: _short(request, room) for room in alike}
        nearest = min(alike, key=lambda room: len(short[room.node.node_id]))
        wanted, there = zip(*short[nearest.node.node_id], strict=True)
        sentence = f"waiting for {_and(wanted)}: node {names[nearest.node.node_id]} has {_and(there)}"
        if len(alike) > 1:
            others = "1 other node" if len(alike) == 2 else f"{len(alike) - 1} other nodes"
            sentence += f"; {others} of its kind {'has' if len(alike) == 2 else 'have'} no room for it either"
        yield sentence


def _short(request: Request, room: Room) -> list[tuple[str, str]]:
    """What is short now: what is wanted, and what there is."""
    short = []
    if steps_needed(request.cpus) > room.cpus:
        short.append(
            (_cpus(steps_needed(request.cpus)), f"{_number(room.cpus)} of {_number(room.cpus_total)} free")
        )
    if (request.memory or 0) > room.memory:
        free = f"{_down(room.memory)} of {format_bytes(room.node.memory)} free"
        short.append((f"{format_bytes(request.memory or 0)} of memory", free))
    fits = Room(room.node)
    fits.cpus, fits.memory, fits.gpus = steps_needed(request.cpus), request.memory or 0, room.gpus
    if fits.choose(request) is None:
        short.append(_short_of_gpus(request, room))
    return short


def _short_of_gpus(request: Request, room: Room) -> tuple[str, str]:
    known = [
        (free * gpu.memory // STEPS, gpu)
        for free, gpu in zip(room.gpus, room.node.gpus, strict=True)
        if gpu.memory is not None and gpu.memory >= (request.gpu_memory or 0)
    ]
    if request.shares_gpu and known:
        free, gpu = max(known, key=lambda pair: (pair[0], -pair[1].index))
        wanted = f"{format_bytes(request.gpu_memory or 0)} on one GPU"
        return wanted, f"at most {_down(free)} of {format_bytes(gpu.memory or 0)} free on a GPU"
    idle = len(Room(room.node, idle=True).large_enough(request))
    now = len(room.large_enough(request))
    wanted = "a whole GPU" if request.gpus == 1 else f"{request.gpus} whole GPUs"
    if request.shares_gpu:
        wanted += " (its memory is unknown, so that no share can be given)"
    return wanted, f"{now} of {idle} free"


def infeasible(request: Request, view: ClusterView) -> Iterable[str]:
    """Every demand that is too large, with the largest there is; or why no node meets all at once."""
    usable = [node for node in view.nodes if node.usable]
    if not usable:
        yield _nobody(view)
        return
    names = names_of(view)
    found = [*_too_large(request, usable, names), *_gpus_too_large(request, usable, names)]
    if not found:
        rooms = [Room(node, idle=True) for node in sorted(usable, key=lambda node: node.node_id)]
        demands = _and(_demands(request))
        for alike in _classes(rooms):
            yield f"{demands} together: {_lacks(request, alike, names)}"
    yield from found
    for node in view.nodes:
        if node.alive and node.draining and Room(node, idle=True).choose(request) is not None:
            yield f"node {names[node.node_id]} could run it, but is draining and takes no new work"


def _nobody(view: ClusterView) -> str:
    if not view.nodes:
        return "the cluster has no nodes; start some, or join another cluster"
    states = Counter("draining" if node.alive else "dead" for node in view.nodes)
    return "no node takes new work: " + _and([f"{count} {state}" for state, count in sorted(states.items())])


def _too_large(request: Request, nodes: Sequence[NodeView], names: dict[str, str]) -> Iterable[str]:
    rooms = [Room(node, idle=True) for node in nodes]
    most = max(rooms, key=lambda room: room.cpus)
    if steps_needed(request.cpus) > most.cpus:
        yield _demand(
            f"cpus {_number(steps_needed(request.cpus))}",
            "no node has CPUs" if not most.cpus else f"the largest node has {_number(most.cpus)}",
            names[most.node.node_id] if most.cpus else None,
            "add a larger node" if not most.cpus else f"lower resources.cpus to {_number(most.cpus)}",
        )
    most = max(rooms, key=lambda room: room.memory)
    if (request.memory or 0) > most.memory:
        yield _demand(
            f"memory {format_bytes(request.memory or 0)}",
            "no node has memory for runs"
            if not most.memory
            else f"the largest node has {_down(most.memory)}",
            names[most.node.node_id] if most.memory else None,
            "add a larger node" if not most.memory else f"lower resources.memory to {_down(most.memory)}",
        )


def _gpus_too_large(request: Request, nodes: Sequence[NodeView], names: dict[str, str]) -> Iterable[str]:
    if request.gpus == 0:
        return
    having = [node for node in nodes if node.gpus]
    if not having:
        what = f"gpus {request.gpus}: no node has a GPU"
        yield f"{what}; set resources.gpus to 0 if the worker can do without, or add a node with GPUs"
        return
    gpus = [(gpu, node) for node in having for gpu in node.gpus]
    least = request.gpu_memory or 0
    if all(gpu.memory is not None and gpu.memory < least for gpu, _ in gpus):
        gpu, node = max(gpus, key=lambda pair: pair[0].memory or 0)
        count = "1 node has GPUs" if len(having) == 1 else f"{len(having)} nodes have GPUs"
        largest = f"{count}; the largest is {_down(gpu.memory or 0)}"
        where = f"{gpu.model}, {names[node.node_id]}" if gpu.model else names[node.node_id]
        lower = f"lower resources.gpu_memory to {_down(gpu.memory or 0)}"
        yield _demand(f"gpu_memory {format_bytes(least)}", largest, where, lower)
        return
    counts = [(len(Room(node, idle=True).large_enough(request)), node) for node in having]
    most, node = max(counts, key=lambda pair: pair[0])
    if most < request.gpus:
        size = f" of at least {format_bytes(least)} each" if least else ""
        yield _demand(
            f"gpus {request.gpus}{size}",
            f"the most on one node is {most}",
            names[node.node_id],
            f"lower resources.gpus to {most}",
        )


def _demand(demand: str, largest: str, where: str | None, remedy: str) -> str:
    place = f" ({where})" if where else ""
    addition = "" if remedy.startswith("add") else ", or add a node that has it"
    return f"{demand}: {largest}{place}; {remedy}{addition}"


def _demands(request: Request) -> list[str]:
    demands = [f"cpus {_number(steps_needed(request.cpus))}"]
    if request.memory:
        demands.append(f"memory {format_bytes(request.memory)}")
    if request.gpus:
        demands.append(f"gpus {request.gpus}")
    if request.gpu_memory:
        demands.append(f"gpu_memory {format_bytes(request.gpu_memory)}")
    return demands


def _lacks(request: Request, alike: Sequence[Room], names: dict[str, str]) -> str:
    """What an idle node of one class has too little of."""
    room = alike[0]
    lacks = []
    if steps_needed(request.cpus) > room.cpus:
        lacks.append(f"only {_cpus(room.cpus)}")
    if (request.memory or 0) > room.memory:
        lacks.append(f"only {_down(room.memory)} of memory")
    if request.gpus and len(room.large_enough(request)) < request.gpus:
        lacks.append(_few_gpus(request, room.node))
    like = f" (and {len(alike) - 1} like it)" if len(alike) > 1 else ""
    return f"node {names[room.node.node_id]}{like} has {_and(lacks)}"


def _few_gpus(request: Request, node: NodeView) -> str:
    if not node.gpus:
        return "no GPU"
    if len(node.gpus) < request.gpus:
        return f"only {len(node.gpus)} GPU{'' if len(node.gpus) == 1 else 's'}"
    largest = max(gpu.memory or 0 for gpu in node.gpus)
    if largest < (request.gpu_memory or 0):
        return f"GPUs of at most {_down(largest)}"
    return f"only {len(Room(node, idle=True).large_enough(request))} GPUs that are large enough"


def _classes(rooms: Sequence[Room]) -> list[list[Room]]:
    """Rooms on nodes of the same make, in the order they come."""
    classes: dict[object, list[Room]] = {}
    for room in rooms:
        node = room.node
        make = (room.cpus_total, node.memory, tuple((gpu.model, gpu.memory) for gpu in node.gpus))
        classes.setdefault(make, []).append(room)
    return list(classes.values())


def names_of(view: ClusterView) -> dict[str, str]:
    """A name for each node that tells it apart: nodes may share a host name."""
    times = Counter(node.name for node in view.nodes)
    return {
        node.node_id: node.name if times[node.name] == 1 else f"{node.name} ({node.node_id[:12]})"
        for node in view.nodes
    }


def _number(steps: int) -> str:
    return format_number(steps / STEPS)


def _cpus(steps: int) -> str:
    return f"{_number(steps)} CPU{'' if steps == STEPS else 's'}"


def _down(count: int) -> str:
    return format_bytes(count, down=True)


def _model(gpu: Gpu) -> str:
    known = [text for text in (gpu.model, format_bytes(gpu.memory) if gpu.memory else None) if text]
    return f" ({', '.join(known)})" if known else ""


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
