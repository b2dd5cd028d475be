"""What holds for every cluster and every list of requests, checked against arithmetic of its own."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_cluster.placement import ClusterView, Gpu, Infeasible, NodeView, Placement, Request, Waiting, plan
from mosaic_cluster.units import parse_bytes

GIB = 1024**3
STEP = Fraction(1, 10_000)
gpus = st.builds(
    Gpu,
    index=st.just(0),
    model=st.sampled_from([None, "A", "B"]),
    memory=st.sampled_from([None, 16 * GIB, 24 * GIB, 24 * GIB - 7, 80 * GIB]),
    free=st.sampled_from([0.0, 0.3, 0.5833, 1.0]),
)


@st.composite
def node_views(draw: st.DrawFn, number: int) -> NodeView:
    cpus, memory = draw(st.sampled_from([0, 1, 4, 16])), draw(st.sampled_from([0, 8, 64])) * GIB
    cards = draw(st.lists(gpus, max_size=3))
    return NodeView(
        node_id=f"n{number}",
        name=f"node-{number}",
        alive=draw(st.sampled_from([True, True, True, False])),
        draining=draw(st.sampled_from([False, False, False, True])),
        cpus=cpus,
        cpus_free=draw(st.floats(0, cpus)),
        memory=memory,
        memory_free=draw(st.integers(0, memory)),
        gpus=tuple(replace(card, index=index) for index, card in enumerate(cards)),
    )


@st.composite
def views(draw: st.DrawFn) -> ClusterView:
    count = draw(st.integers(0, 4))
    return ClusterView(tuple(draw(node_views(number)) for number in range(count)), taken_at=0.0)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    count = draw(st.sampled_from([0, 0, 1, 1, 2]))
    sizes = st.none() | st.sampled_from([GIB, 10 * GIB, 24 * GIB, 40 * GIB])
    return Request(
        run_id=str(draw(st.integers(0, 999))),
        cpus=draw(st.sampled_from([0.001, 0.1, 1, 2.5, 8, 32])),
        memory=draw(st.none() | st.sampled_from([GIB, 7 * GIB, 100 * GIB])),
        gpus=count,
        gpu_memory=draw(sizes) if count else None,
        gpus_mandatory=draw(st.booleans()),
        whole_gpus=draw(st.booleans()) if count else False,
    )


def fits_idle(request: Request, node: NodeView) -> bool:
    """Whether an idle node could run it: written again, with nothing of the planner."""
    if not node.alive or node.draining or request.cpus > node.cpus or (request.memory or 0) > node.memory:
        return False
    if not request.gpus_mandatory:
        return True
    return request.gpus == 0 or (
        len(node.gpus) >= request.gpus and (smallest(node) or 10**18) >= (request.gpu_memory or 0)
    )


def smallest(node: NodeView) -> int | None:
    """What a share is counted on."""
    return min((gpu.memory for gpu in node.gpus if gpu.memory is not None), default=None)


def fits(request: Request, node: NodeView, used: list[Placement]) -> bool:
    """Whether it still fits beside what was placed."""
    mine = [answer for answer in used if answer.node_id == node.node_id]
    cpus = Fraction(node.cpus_free) - sum(Fraction(str(answer.cpus)) for answer in mine)
    memory = node.memory_free - sum(answer.memory or 0 for answer in mine)
    if request.cpus > cpus + STEP or (request.memory or 0) > memory:
        return False
    able, least = 0, smallest(node)
    known = all(gpu.memory is not None for gpu in node.gpus)
    if (least or 10**18) < (request.gpu_memory or 0):
        return False
    for gpu in node.gpus:
        here = (Fraction(str(a.gpus)) / len(a.gpu_indices) for a in mine if gpu.index in a.gpu_indices)
        left = Fraction(str(gpu.free)) - sum(here)
        if request.shares_gpu and known and least is not None:
            able += math.ceil((request.gpu_memory or 0) / (least * STEP)) * STEP <= left
        else:
            able += left == 1
    return able >= request.gpus


@settings(deadline=None)
@given(st.lists(requests(), max_size=12), views())
def test_nothing_is_promised_twice(asked: list[Request], view: ClusterView) -> None:
    made = plan(asked, view)
    assert [answer.run_id for answer in made.answers] == [request.run_id for request in asked]
    for node in view.nodes:
        mine = [answer for answer in made.placements if answer.node_id == node.node_id]
        assert not mine or node.usable
        assert sum(Fraction(str(answer.cpus)) for answer in mine) <= Fraction(node.cpus_free) + STEP / 1000
        assert sum(answer.memory or 0 for answer in mine) <= node.memory_free
        for gpu in node.gpus:
            on_it = [answer for answer in mine if gpu.index in answer.gpu_indices]
            shares = sum(Fraction(str(answer.gpus)) / len(answer.gpu_indices) for answer in on_it)
            assert shares <= Fraction(str(gpu.free))
            if gpu.memory is not None:
                assert sum(answer.gpu_memory or 0 for answer in on_it) <= gpu.memory


@settings(deadline=None)
@given(st.lists(requests(), max_size=8), views())
def test_each_run_gets_what_it_asked_for(asked: list[Request], view: ClusterView) -> None:
    nodes = {node.node_id: node for node in view.nodes}
    for request, answer in zip(asked, plan(asked, view).answers, strict=True):
        if not isinstance(answer, Placement):
            continue
        assert request.cpus <= answer.cpus < request.cpus + 0.0001
        assert answer.memory == request.memory
        assert answer.gpus <= 1 or answer.gpus == int(answer.gpus), "Ray refuses such a number"
        if answer.gpus == 0:
            assert request.gpus == 0 or not request.gpus_mandatory
            continue
        assert len(answer.gpu_indices) == request.gpus
        for index in answer.gpu_indices:
            memory = nodes[answer.node_id].gpus[index].memory
            assert memory is None or Fraction(str(answer.gpus)) / request.gpus * memory >= (request.gpu_memory or 0)


@settings(deadline=None)
@given(st.lists(requests(), max_size=8), views(), st.randoms(use_true_random=False))
def test_the_answer_is_always_the_same(asked: list[Request], view: ClusterView, random: object) -> None:
    nodes = list(view.nodes)
    random.shuffle(nodes)  # type: ignore[attr-defined]
    again = plan(asked, ClusterView(tuple(nodes), view.taken_at))
    placed = [(answer.run_id, answer.node_id, answer.gpus) for answer in plan(asked, view).placements]
    assert placed == [(answer.run_id, answer.node_id, answer.gpus) for answer in again.placements]
    assert plan(asked, view) == plan(asked, view)


@settings(deadline=None)
@given(st.lists(requests(), max_size=10), views())
def test_waiting_and_never_are_told_apart_and_true(asked: list[Request], view: ClusterView) -> None:
    used: list[Placement] = []
    for request, answer in zip(asked, plan(asked, view).answers, strict=True):
        if isinstance(answer, Placement):
            used.append(answer)
            continue
        assert answer.reasons
        assert all(reason and not reason.endswith(" ") for reason in answer.reasons)
        assert isinstance(answer, Waiting) == any(fits_idle(request, node) for node in view.nodes)
        bare = request if request.gpus_mandatory else request.without_gpus()
        assert not any(fits(bare, node, used) for node in view.nodes if node.usable)


@settings(deadline=None)
@given(requests(), views())
def test_a_request_on_an_empty_cluster_is_placed_if_one_node_fits(request: Request, view: ClusterView) -> None:
    idle = tuple(
        replace(
            node,
            cpus_free=node.cpus,
            memory_free=node.memory,
            gpus=tuple(replace(gpu, free=1.0) for gpu in node.gpus),
        )
        for node in view.nodes
    )
    (answer,) = plan([request], ClusterView(idle, 0.0)).answers
    assert isinstance(answer, Placement) == any(fits_idle(request, node) for node in idle)


@settings(deadline=None)
@given(requests(), views())
def test_following_the_advice_removes_the_reason(request: Request, view: ClusterView) -> None:
    (answer,) = plan([request], view).answers
    if not isinstance(answer, Infeasible):
        return
    for reason in answer.reasons:
        advice = re.search(r"(?:lower|set) resources\.(\w+) to ([\w.]+)", reason)
        if advice is None:
            continue
        name, value = advice.groups()
        lowered = {"cpus": float, "gpus": int}.get(name, parse_bytes)(value)
        changed = request.without_gpus() if (name, lowered) == ("gpus", 0) else replace(request, **{name: lowered})
        (after,) = plan([changed], view).answers
        kept = [other for other in after.reasons if f"resources.{name} to" in other]
        assert isinstance(after, Placement | Waiting) or not kept, (reason, kept)
        assert getattr(request, name) > lowered


@settings(deadline=None)
@given(requests(), views())
def test_what_waits_names_true_figures(request: Request, view: ClusterView) -> None:
    (answer,) = plan([request], view).answers
    if not isinstance(answer, Waiting):
        return
    nodes = {node.name: node for node in view.nodes}
    for reason in answer.reasons:
        node = nodes[re.search(r": node (\S+) has ", reason)[1]]  # type: ignore[index]
        wanted, there = reason.split(": node ")
        figures = re.search(r"has ([\d.]+) of ([\d.]+) free", there)
        if re.search(r"waiting for [\d.]+ CPU", wanted):
            assert figures is not None
            assert float(figures[1]) <= node.cpus_free + 1e-6
            assert float(figures[1]) < request.cpus
            assert float(figures[2]) == node.cpus
        else:
            assert request.cpus <= node.cpus_free + 0.0001
        assert (" of memory" in wanted) == ((request.memory or 0) > node.memory_free)
