"""Why no node could ever run a request: every demand that is too large, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mosaic_cluster.placement import accelerators, labels
from mosaic_cluster.placement.reasons import classes, cpus, down, join, mixed, names_of, number
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import Demand, Room
from mosaic_cluster.placement.view import NodeType, NodeView
from mosaic_cluster.units import format_bytes


def infeasible(request: Request, nodes: Sequence[NodeView], kinds: Sequence[NodeType] = ()) -> Iterable[str]:
    """Every demand that no node meets, with the largest there is; or what each class of nodes lacks.

    Args:
        nodes: of the cluster.
        kinds: of nodes that it could start.
    """
    if not request.gpus_mandatory:
        request = request.without_gpus()
    there = _Known(nodes, kinds)
    if not there.rooms:
        yield _nobody(nodes)
        return
    found = [*_too_large(request, there), *_gpus_too_large(request, there), *_unwelcome(request, there)]
    if not found:
        demands = join(_demands(request))
        for alike in _alike(request, there):
            yield f"{demands} together: {_what_lacks(request, alike, there)}"
    yield from found
    for node in sorted(nodes, key=lambda node: node.node_id):
        if node.alive and node.draining and holds(request, node):
            yield f"node {there.names[node.node_id]} could run it, but is draining and takes no new work"


def holds(request: Request, node: NodeView) -> bool:
    """Whether the node would have room if it were idle; whether it takes new work does not matter."""
    if not request.gpus_mandatory:
        request = request.without_gpus()
    demand, room = Demand(request), Room(node, idle=True)
    welcome = node.node_id not in demand.avoid and labels.match(demand.labels, node.labels)
    return welcome and room.choose(demand, demand.steps_on(room.make)) is not None


class _Known:
    """Every node there is or could be, idle."""

    def __init__(self, nodes: Sequence[NodeView], kinds: Sequence[NodeType]) -> None:
        usable = sorted((node for node in nodes if node.usable), key=lambda node: node.node_id)
        self.rooms = [Room(node, idle=True) for node in usable]
        self.present = len(self.rooms)
        self._kinds: dict[int, str] = {}
        for kind in kinds:
            if kind.more > 0:
                room = Room(kind.node, idle=True)
                self._kinds[id(room)] = f"a new node of kind {kind.name}"
                self.rooms.append(room)
        self.names = names_of(nodes)

    def called(self, room: Room) -> str:
        """What a node is called in a sentence."""
        return self._kinds.get(id(room)) or f"node {self.names[room.node.node_id]}"

    def where(self, room: Room) -> str:
        """The same, in brackets."""
        return self._kinds.get(id(room)) or self.names[room.node.node_id]

    def is_new(self, room: Room) -> bool:
        """Whether it would have to be started."""
        return id(room) in self._kinds


def _nobody(nodes: Sequence[NodeView]) -> str:
    if not nodes:
        return "the cluster has no nodes; start some, or join another cluster"
    states = Counter("draining" if node.alive else "dead" for node in nodes)
    return "no node takes new work: " + join([f"{count} {state}" for state, count in sorted(states.items())])


def _too_large(request: Request, there: _Known) -> Iterable[str]:
    demand = Demand(request)
    most = max(there.rooms, key=lambda room: room.cpus)
    if demand.cpus > most.cpus:
        has = f"the largest node has {number(most.cpus)}" if most.cpus else "no node has CPUs"
        yield _demand("cpus", number(demand.cpus), has, there.where(most), number(most.cpus) if most.cpus else None)
    most = max(there.rooms, key=lambda room: room.memory)
    if demand.memory > most.memory:
        has = f"the largest node has {down(most.memory)}" if most.memory else "no node has memory for runs"
        lower = down(most.memory) if most.memory else None
        yield _demand("memory", format_bytes(demand.memory), has, there.where(most), lower)
    most = max(there.rooms, key=lambda room: room.slots_total)
    if demand.agents > most.slots_total:
        has = f"the most slots on one node are {most.slots_total}" if most.slots_total else "no node has agent slots"
        lower = str(most.slots_total) if most.slots_total else None
        yield _demand("agents", str(demand.agents), has, there.where(most), lower)


def _gpus_too_large(request: Request, there: _Known) -> Iterable[str]:
    if request.gpus == 0:
        return
    having = [room for room in there.rooms if room.make.count]
    if not having:
        what = f"gpus {request.gpus}: no node has a GPU"
        yield f"{what}; set resources.gpus to 0 if the worker can do without, or add a node with GPUs"
        return
    most = max(having, key=lambda room: room.make.count)
    if most.make.count < request.gpus:
        has = f"the most on one node is {most.make.count}"
        yield _demand("gpus", str(request.gpus), has, there.where(most), str(most.make.count))
    least = request.gpu_memory or 0
    if all((room.make.least or least) < least for room in having):
        yield _gpu_memory(least, having, there)
    if not any(room.make.all_match(request.accelerator) for room in having):
        yield _accelerator(request, having, there)


def _gpu_memory(least: int, having: Sequence[Room], there: _Known) -> str:
    most = max(having, key=lambda room: room.make.least or 0)
    size = most.make.least or 0
    gpu = next(gpu for gpu in most.node.gpus if gpu.memory == size)
    count = "1 node has GPUs" if len(having) == 1 else f"{len(having)} nodes have GPUs"
    where = f"{gpu.model}, {there.where(most)}" if gpu.model else there.where(most)
    model = accelerators.large_enough(least)
    add = f"add a node with GPUs of at least {format_bytes(least)}" + (f", such as {model}" if model else "")
    advice = f"nearest that fits: lower resources.gpu_memory to {down(size)}, or {add}"
    sentence = f"gpu_memory {format_bytes(least)}: {count}; the largest is {down(size)} ({where}); {advice}"
    differ = [room for room in having if any((gpu.memory or 0) >= least for gpu in room.node.gpus)]
    if differ:
        sentence += f"; on {there.called(differ[0])}, {mixed(differ[0].node)}: it counts as its smallest"
    return sentence


def _accelerator(request: Request, having: Sequence[Room], there: _Known) -> str:
    wanted = " or ".join(request.accelerator)
    models = sorted({model for room in having for model in room.make.models if model is not None})
    named = [model for model in models if any(room.make.all_match((model,)) for room in having)]
    has = f"the cluster has {join(models)}" if models else "nobody says which models the cluster's GPUs are"
    lower = f"set resources.accelerator to {join(named).replace(' and ', ' or ')}, or " if named else ""
    sentence = f"accelerator {wanted}: {has}; {lower}add a node with GPUs of that model"
    asked = request.accelerator
    differ = [room for room in having if room.make.some_match(asked)]
    if differ:
        sentence += f"; on {there.called(differ[0])}, {mixed(differ[0].node)}: all would have to be of that model"
    return sentence


def _unwelcome(request: Request, there: _Known) -> Iterable[str]:
    """Labels that no node has, and nodes that are all avoided."""
    for name, condition in request.labels.items():
        if any(labels.holds(condition, room.node.labels.get(name)) for room in there.rooms):
            continue
        values = sorted({room.node.labels[name] for room in there.rooms if name in room.node.labels})
        has = f"nodes have {name}: {join(values)}" if values else f"no node has a label {name}"
        yield f"labels {name}={condition}: {has}; change resources.labels, or label a node so"
    if all(not there.is_new(room) and room.node.node_id in request.avoid for room in there.rooms):
        yield "every node is in quarantine for it; look into what failed there, or add a node"


def _demand(name: str, amount: str, largest: str, where: str, lower: str | None) -> str:
    if lower is None:
        return f"{name} {amount}: {largest}; add a larger node"
    return f"{name} {amount}: {largest} ({where}); lower resources.{name} to {lower}, or add a node that has it"


def _demands(request: Request) -> list[str]:
    demands = [f"cpus {number(Demand(request).cpus)}"]
    if request.memory:
        demands.append(f"memory {format_bytes(request.memory)}")
    if request.agents > 1:
        demands.append(f"agents {request.agents}")
    if request.gpus:
        demands.append(f"gpus {request.gpus}")
    if request.gpu_memory:
        demands.append(f"gpu_memory {format_bytes(request.gpu_memory)}")
    if request.accelerator:
        demands.append(f"accelerator {' or '.join(request.accelerator)}")
    demands += [f"{name}={condition}" for name, condition in request.labels.items()]
    return demands


def _alike(request: Request, there: _Known) -> list[list[Room]]:
    """Nodes of one kind that lack the same, the one with most memory first."""
    found = []
    for alike in [*classes(there.rooms[: there.present]), *([room] for room in there.rooms[there.present :])]:
        by_lack: dict[tuple[str, ...], list[Room]] = {}
        for room in alike:
            unmet = labels.unmet(request.labels, room.node.labels)
            by_lack.setdefault((*unmet, str(room.node.node_id in request.avoid)), []).append(room)
        for same in by_lack.values():
            found.append(sorted(same, key=lambda room: (-room.memory, -room.slots_total, room.key)))
    return found


def _what_lacks(request: Request, alike: Sequence[Room], there: _Known) -> str:
    """What an idle node of one class has too little of."""
    room = alike[0]
    demand = Demand(request)
    lacks = []
    if demand.cpus > room.cpus:
        lacks.append(f"only {cpus(room.cpus)}")
    if demand.memory > room.memory:
        lacks.append(f"only {down(room.memory)} of memory")
    if demand.agents > room.slots_total:
        lacks.append(f"only {room.slots_total} agent slots")
    if request.gpus and demand.steps_on(room.make) is None:
        lacks.append(_few_gpus(request, room))
    for name in labels.unmet(request.labels, room.node.labels):
        value = room.node.labels.get(name)
        lacks.append(f"no label {name}" if value is None else f"the label {name}={value}")
    like = f" (and {len(alike) - 1} like it)" if len(alike) > 1 else ""
    parts = [f"has {join(lacks)}"] if lacks else []
    if not there.is_new(room) and room.node.node_id in request.avoid:
        parts.append("is in quarantine for it")
    return f"{there.called(room)}{like} {join(parts)}"


def _few_gpus(request: Request, room: Room) -> str:
    make = room.make
    if not make.count:
        return "no GPU"
    lacks = []
    if make.count < request.gpus:
        lacks.append(f"only {make.count} GPU{'' if make.count == 1 else 's'}")
    least = request.gpu_memory or 0
    if make.least is not None and make.least < least:
        lacks.append(f"GPUs of at most {down(make.least)}")
    if not make.all_match(request.accelerator):
        names = sorted({model or "an unknown model" for model in make.models})
        lacks.append(f"GPUs that are {join(names)}")
    if len({(gpu.model, gpu.memory) for gpu in room.node.gpus}) > 1 and len(lacks) > (make.count < request.gpus):
        lacks[-1] += f" ({mixed(room.node)})"
    return join(lacks)
