"""Small clusters for the tests of placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from mosaic_cluster.placement import ClusterView, Gpu, NodeView, Planner, Request

GIB = 1024**3
MODELS = {"L4": 24, "A100-40GB": 40, "A100-80GB": 80}


def node(name: str, cpus: float = 4, memory: int = 16, gpus: tuple[Gpu, ...] = (), **more: Any) -> NodeView:
    """An idle node; memory in GiB."""
    settings = {"cpus_free": cpus, "memory_free": memory * GIB, "node_id": f"id-{name}", **more}
    return NodeView(name=name, cpus=cpus, memory=memory * GIB, gpus=gpus, **settings)


def cards(model: str, count: int, free: float = 1.0) -> tuple[Gpu, ...]:
    """GPUs of one model."""
    return tuple(Gpu(index, model, MODELS[model] * GIB, free) for index in range(count))


def state_of(planner: Planner) -> ClusterView:
    """What a planner thinks is free, as a view of its own."""
    nodes = []
    for told in planner.nodes:
        room = planner.room(told.node_id)
        gpus = tuple(replace(gpu, free=free / 10_000) for gpu, free in zip(told.gpus, room.gpus, strict=True))
        used = room.slots_total - room.slots
        nodes.append(replace(told, cpus_free=room.cpus / 10_000, memory_free=room.memory, gpus=gpus, agents=used))
    return ClusterView(tuple(nodes), planner.view.taken_at)


@st.composite
def clusters(draw: st.DrawFn, most_gpus: int = 3, most_nodes: int = 4, free: bool = True) -> ClusterView:
    """One to four nodes, each of one model, partly taken."""
    nodes = []
    for number in range(draw(st.integers(1, most_nodes))):
        cpus, memory = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([16, 32]))
        share = st.sampled_from([1.0, 1.0, 0.5, 0.3]) if free else st.just(1.0)
        shares = draw(st.lists(share, max_size=most_gpus))
        model = draw(st.sampled_from(sorted(MODELS)))
        gpus = tuple(Gpu(index, model, MODELS[model] * GIB, share) for index, share in enumerate(shares))
        zone = draw(st.sampled_from(["a", "b", None]))
        nodes.append(
            node(
                str(number), cpus, memory, gpus,
                cpus_free=draw(st.integers(0, cpus)) if free else cpus,
                agent_slots=draw(st.sampled_from([None, 4, 16])),
                labels={"zone": zone} if zone else {},
            )
        )  # fmt: skip
    return ClusterView(tuple(nodes), taken_at=1000.0)


@st.composite
def wishes(draw: st.DrawFn, most_gpus: int = 2, plain: bool = False) -> Request:
    """A request of any kind."""
    gpus = draw(st.integers(0, most_gpus))
    more: dict[str, Any] = {}
    if not plain:
        more = {
            "labels": draw(st.sampled_from([{}, {}, {"zone": "a"}, {"zone": "!in(a, c)"}])),
            "avoid": draw(st.sampled_from([(), (), ("id-0",)])),
            "accelerator": draw(st.sampled_from([(), (), ("A100",)])) if gpus else (),
            "gang": draw(st.sampled_from(["", "", "", "g", "h"])),
            "spread": draw(st.booleans()),
            "experiment": draw(st.sampled_from(["", "x"])),
            "priority": draw(st.sampled_from([0, 0, 1])),
            "since": draw(st.sampled_from([0.0, 900.0, 990.0])),
            "duration": draw(st.sampled_from([None, 10.0])),
        }
    return Request(
        run_id=str(draw(st.integers(0, 10**6))),
        cpus=draw(st.sampled_from([0.5, 1, 2, 3])),
        memory=draw(st.sampled_from([None, 5 * GIB, 12 * GIB])),
        gpus=gpus,
        gpu_memory=draw(st.sampled_from([None, 7 * GIB, 10 * GIB, 13 * GIB, 20 * GIB, 30 * GIB])) if gpus else None,
        agents=draw(st.sampled_from([0, 1, 1, 3])),
        **more,
    )
