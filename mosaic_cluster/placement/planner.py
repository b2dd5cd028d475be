"""The planner: best fit, in the order of the requests, the same answer every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mosaic_cluster.placement import reasons
from mosaic_cluster.placement.answers import Answer, Infeasible, Placement, Plan, Waiting
from mosaic_cluster.placement.requests import Request
from mosaic_cluster.placement.rooms import STEPS, GpuChoice, Room, steps_needed
from mosaic_cluster.placement.view import ClusterView


def plan(requests: Sequence[Request], view: ClusterView) -> Plan:
    """Find a place for each request, or say why there is none.

    Requests take room in the order given; one that waits holds nothing back from those behind it. Of the
    nodes with room, the one that is left with least is taken (GPU memory first, then CPUs, then host memory),
    so that large requests still find room; runs without a GPU keep off nodes with GPUs while they can.

    Returns:
        One answer a request, in order. Nothing is promised twice: no CPU, no memory, no part of a GPU.
    """
    rooms = [Room(node) for node in sorted(view.nodes, key=lambda node: node.node_id) if node.usable]
    names = reasons.names_of(view)
    return Plan(tuple(_answer(request, rooms, view, names) for request in requests), view.taken_at)


def _answer(request: Request, rooms: list[Room], view: ClusterView, names: dict[str, str]) -> Answer:
    remarks: list[str] = []
    candidates = _candidates(request, rooms)
    if not candidates and request.gpus and not request.gpus_mandatory:
        request = request.without_gpus()
        remarks.append(reasons.NO_GPU_NOW)
        candidates = _candidates(request, rooms)
    if candidates:
        return _place(request, candidates, names, remarks)
    could = [room for room in rooms if Room(room.node, idle=True).choose(request) is not None]
    if could:
        return Waiting(request.run_id, tuple(reasons.waiting(request, could, names)))
    return Infeasible(request.run_id, tuple(reasons.infeasible(request, view)))


def _candidates(request: Request, rooms: list[Room]) -> list[tuple[Room, GpuChoice]]:
    found = ((room, room.choose(request)) for room in rooms)
    return [(room, choice) for room, choice in found if choice is not None]


def _place(
    request: Request, candidates: list[tuple[Room, GpuChoice]], names: dict[str, str], remarks: list[str]
) -> Placement:
    room, choice = min(candidates, key=lambda pair: _preference(request, *pair))
    room.take(request, choice)
    steps = steps_needed(request.cpus)
    taken = choice.steps * len(choice.positions)
    shared = request.shares_gpu and not choice.guessed
    return Placement(
        run_id=request.run_id,
        node_id=room.node.node_id,
        node_name=room.node.name,
        cpus=steps / STEPS,
        memory=request.memory,
        gpus=taken / STEPS,
        gpu_memory=request.gpu_memory if shared else None,
        reasons=(*reasons.placed(request, room, choice, len(candidates), names), *remarks),
        gpu_indices=tuple(room.node.gpus[position].index for position in choice.positions),
    )


def _preference(request: Request, room: Room, choice: GpuChoice) -> Any:
    """Smallest is best."""
    node = room.node
    return (
        choice.guessed,
        choice.left,
        bool(node.gpus) if request.gpus == 0 else sum(free == STEPS for free in room.gpus),
        room.cpus,
        room.memory,
        node.is_head,
        node.node_id,
    )
