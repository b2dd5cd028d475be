"""The planner beside exact answers, and its bookkeeping beside a planner that knows nothing of the past."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from placement.clusters import GIB, clusters, state_of, wishes
from scipy.optimize import Bounds, LinearConstraint, milp

from mosaic_cluster.placement import ClusterView, NodeView, Placement, Planner, Request, Waiting, plan

STEP = 10_000


def share_on(request: Request, node: NodeView) -> int | None:
    """Steps of a GPU of a node whose GPUs are alike: written again, with nothing of the planner."""
    if request.gpus == 0:
        return 0
    if len(node.gpus) < request.gpus or (node.gpus[0].memory or 0) < (request.gpu_memory or 0):
        return None
    if request.gpus > 1 or not request.gpu_memory:
        return STEP
    return -(-request.gpu_memory * STEP // (node.gpus[0].memory or 1))


def all_fit(requests: list[Request], view: ClusterView) -> bool:
    """Whether an integer program finds a node for each; for nodes with one GPU at most."""
    nodes, count = view.nodes, len(requests)
    rows, limits, upper = [], [], np.ones(count * len(nodes))
    for where, node in enumerate(nodes):
        free = [round(node.cpus_free * STEP), node.memory_free / GIB, node.slots - node.agents]
        free.append(round(node.gpus[0].free * STEP) if node.gpus else 0)
        used = np.zeros((4, count * len(nodes)))
        for number, request in enumerate(requests):
            share = share_on(request, node)
            column = number * len(nodes) + where
            upper[column] = share is not None
            used[:, column] = [round(request.cpus * STEP), (request.memory or 0) / GIB, request.agents, share or 0]
        rows.append(used)
        limits += free
    once = np.kron(np.eye(count), np.ones(len(nodes)))
    constraints = [LinearConstraint(np.vstack(rows), -np.inf, limits), LinearConstraint(once, 1, 1)]
    size = count * len(nodes)
    found = milp(np.zeros(size), constraints=constraints, integrality=np.ones(size), bounds=Bounds(0, upper))
    return bool(found.success)


@settings(deadline=None, max_examples=60)
@given(st.lists(wishes(most_gpus=1, plain=True), min_size=1, max_size=6), clusters(most_gpus=1, most_nodes=3))
def test_up_to_ten_are_placed_whenever_they_can_be_arranged_beside_those_before_them(
    asked: list[Request], view: ClusterView
) -> None:
    accepted: list[Request] = []
    for request, answer in zip(asked, plan(asked, view).answers, strict=True):
        placed = isinstance(answer, Placement)
        assert placed == all_fit([*accepted, request], view), request
        if placed:
            accepted.append(request)


@settings(deadline=None)
@given(wishes(), clusters(), st.integers(1, 40))
def test_of_requests_that_are_alike_as_many_are_placed_as_can_be(
    request: Request, view: ClusterView, count: int
) -> None:
    alike = replace(request, gang="", labels={}, avoid=(), accelerator=())
    most = 0
    for node in view.nodes:
        share = share_on(alike, node)
        if share is None:
            continue
        bounds = [int(node.cpus_free / alike.cpus)]
        bounds += [node.memory_free // alike.memory] if alike.memory else []
        bounds += [(node.slots - node.agents) // alike.agents] if alike.agents else []
        if share:
            bounds.append(sum(round(gpu.free * STEP) // share for gpu in node.gpus) // alike.gpus)
        most += min(bounds)
    made = plan([replace(alike, run_id=str(number)) for number in range(count)], view)
    assert len(made.placements) == min(count, most)
    gang = [replace(alike, run_id=str(number), gang="g") for number in range(count)]
    assert len(plan(gang, view).placements) == (count if count <= most else 0)


def amounts(requests: list[Request], view: ClusterView) -> None:
    """Nothing is promised twice, in any dimension."""
    made = plan(requests, view)
    for node in view.nodes:
        mine = [answer for answer in made.placements if answer.node_id == node.node_id]
        assert sum(Fraction(str(answer.cpus)) for answer in mine) <= Fraction(str(node.cpus_free))
        assert sum(answer.memory or 0 for answer in mine) <= node.memory_free
        assert sum(answer.agents for answer in mine) + node.agents <= max(node.slots, node.agents)
        for gpu in node.gpus:
            on_it = [answer for answer in mine if gpu.index in answer.gpu_indices]
            shares = sum(Fraction(str(answer.gpus)) / len(answer.gpu_indices) for answer in on_it)
            assert shares <= Fraction(str(gpu.free))


@settings(deadline=None)
@given(st.lists(wishes(), max_size=14), clusters())
def test_no_dimension_is_oversubscribed_and_gangs_are_whole(asked: list[Request], view: ClusterView) -> None:
    amounts(asked, view)
    made = plan(asked, view)
    gangs: dict[tuple[str, str], set[bool]] = {}
    for request, answer in zip(asked, made.answers, strict=True):
        assert answer.run_id == request.run_id
        if request.gang:
            gangs.setdefault((request.gang, request.experiment), set()).add(isinstance(answer, Placement))
        if isinstance(answer, Placement):
            node = next(node for node in view.nodes if node.node_id == answer.node_id)
            assert node.node_id not in request.avoid
            if request.labels:
                zone = node.labels.get("zone")
                assert zone == "a" if request.labels["zone"] == "a" else zone not in ("a", "c")
            assert not request.accelerator or (answer.accelerator or "").startswith("A100")
        else:
            assert answer.reasons
    assert all(len(found) == 1 for found in gangs.values())
    assert plan(asked, view) == made


@settings(deadline=None)
@given(st.lists(wishes(), max_size=8), clusters(most_nodes=5), st.randoms(use_true_random=False))
def test_members_that_keep_apart_share_a_node_only_where_they_must(
    asked: list[Request], view: ClusterView, rng: random.Random
) -> None:
    first = replace(asked[0] if asked else Request("r"), gang="g", spread=True, avoid=(), labels={})
    count = rng.randint(2, 4)
    gang = [replace(first, run_id=str(number)) for number in range(count)]
    alone = [node for node in view.nodes if plan([replace(first, gang="")], ClusterView((node,), 0.0)).placements]
    made = plan(gang, view)
    if made.placements:
        assert len({answer.node_id for answer in made.placements}) == min(count, len(alone))


@settings(deadline=None)
@given(st.lists(wishes(), max_size=12), st.lists(wishes(), max_size=6), clusters(), st.randoms(use_true_random=False))
def test_a_planner_that_lived_on_knows_what_a_new_one_would(
    before: list[Request], after: list[Request], view: ClusterView, rng: random.Random
) -> None:
    planner = Planner(view)
    held = []
    for request in before:
        answer = planner.place(request)
        if isinstance(answer, Placement):
            held.append(answer)
        if held and rng.random() < 0.3:
            planner.release(held.pop(rng.randrange(len(held))))
        if rng.random() < 0.2:
            told = rng.choice(state_of(planner).nodes)
            planner.remove(told.node_id)
            planner.update(told)
    fresh = Planner(state_of(planner))
    assert [planner.place(request) for request in after] == [fresh.place(request) for request in after]


@settings(deadline=None)
@given(st.lists(wishes(), max_size=12), clusters())
def test_what_is_released_is_free_again_and_what_is_held_is_taken(asked: list[Request], view: ClusterView) -> None:
    planner, other = Planner(view), Planner(view)
    empty = state_of(planner)
    placed = [answer for answer in map(planner.place, asked) if isinstance(answer, Placement)]
    for placement in placed:
        other.hold(placement)
    assert state_of(other) == state_of(planner)
    for placement in placed:
        planner.release(placement)
    assert state_of(planner) == empty


@settings(deadline=None)
@given(wishes(), clusters())
def test_one_request_is_placed_exactly_if_some_node_has_room_for_it(request: Request, view: ClusterView) -> None:
    single = replace(request, gang="")
    alone = [plan([single], ClusterView((node,), view.taken_at)).answers[0] for node in view.nodes]
    (answer,) = plan([single], view).answers
    assert isinstance(answer, Placement) == any(isinstance(one, Placement) for one in alone)
    never = not any(isinstance(one, Placement | Waiting) for one in alone)
    assert never == (not isinstance(answer, Placement | Waiting))
