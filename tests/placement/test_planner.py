"""What the planner answers, case by case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from mosaic_cluster.placement import (
    ClusterView,
    Gpu,
    Infeasible,
    NodeView,
    Placement,
    Plan,
    Request,
    Waiting,
    plan,
    request_for,
)
from mosaic_cluster.worker.errors import PlacementError

GIB = 1024**3


@dataclass(frozen=True)
class Capabilities:
    cpu_cores: int = 1
    estimated_memory_mb: int = 512
    requires_gpu: bool = False
    gpu_memory_mb: int | None = None
    max_agents: int = 1


def node(name: str, cpus: float = 4, memory: int = 16 * GIB, gpus: tuple[Gpu, ...] = (), **more: Any) -> NodeView:
    settings = {"cpus_free": cpus, "memory_free": memory, "node_id": f"id-{name}", **more}
    return NodeView(name=name, cpus=cpus, memory=memory, gpus=gpus, **settings)


def cluster(*nodes: NodeView) -> ClusterView:
    return ClusterView(nodes, taken_at=1.0)


def cards(count: int, gib: int | None, model: str | None = None, free: float = 1.0) -> tuple[Gpu, ...]:
    return tuple(Gpu(index, model, gib * GIB if gib else None, free) for index in range(count))


def only(request: Request, *nodes: NodeView) -> Any:
    (answer,) = plan([request], cluster(*nodes)).answers
    return answer


def reasons(request: Request, *nodes: NodeView) -> list[str]:
    answer = only(request, *nodes)
    assert not isinstance(answer, Placement)
    return list(answer.reasons)


def test_a_run_takes_the_node_that_fits_tightest() -> None:
    answer = only(Request("r", cpus=2, memory=GIB), node("large", cpus=16), node("small", cpus=4))
    assert answer == Placement(
        run_id="r",
        node_id="id-small",
        node_name="small",
        cpus=2.0,
        memory=GIB,
        reasons=("node small: best fit; leaves 2 CPUs of 4 and 15GiB of 16GiB of memory free",),
    )


def test_runs_without_a_gpu_keep_off_nodes_with_gpus() -> None:
    with_gpu, without = node("gpu", cpus=2, gpus=cards(1, 24)), node("cpu", cpus=64)
    assert only(Request("r"), with_gpu, without).node_name == "cpu"
    assert only(Request("r"), with_gpu).node_name == "gpu"


def test_the_head_is_taken_last_among_equals() -> None:
    assert only(Request("r"), node("a", is_head=True), node("b")).node_name == "b"


def test_gpu_memory_becomes_a_share_of_the_smallest_card_that_holds_it() -> None:
    large, small = node("a100", gpus=cards(1, 80, "A100")), node("rtx", gpus=cards(1, 24, "RTX4090"))
    request = Request("r", gpus=1, gpu_memory=10 * GIB)
    answer = only(request, large, small)
    assert (answer.node_name, answer.gpus, answer.gpu_memory, answer.gpu_indices) == (
        "rtx",
        0.4167,
        10 * GIB,
        (0,),
    )
    assert answer.reasons[1] == "GPU 0 (RTX4090, 24GiB): 10GiB is 0.4167 of it; 0.5833 is left"
    assert only(request, large).gpus == 0.125


def test_shares_never_add_up_to_more_than_one_gpu() -> None:
    requests = [Request(str(number), cpus=0.1, gpus=1, gpu_memory=8 * GIB) for number in range(7)]
    made = plan(requests, cluster(node("a", gpus=cards(2, 24))))
    # 8/24 rounds up to 0.3334, and three of these are more than one GPU.
    assert [answer.gpu_indices for answer in made.placements] == [(0,), (0,), (1,), (1,)]
    assert made.answers[4].reasons == (
        "waiting for 8GiB on one GPU: node a has at most 7.99GiB of 24GiB free on a GPU",
    )


def test_a_card_of_unknown_memory_is_taken_whole() -> None:
    answer = only(Request("r", gpus=1, gpu_memory=8 * GIB), node("a", gpus=cards(1, None, "T4")))
    assert (answer.gpus, answer.gpu_memory) == (1.0, None)
    assert answer.reasons[1] == "GPU 0 (T4): taken whole, since its memory is unknown"


def test_a_known_card_goes_before_an_unknown_one() -> None:
    known, unknown = node("b", gpus=cards(1, 80)), node("a", gpus=cards(1, None))
    assert only(Request("r", gpus=1, gpu_memory=8 * GIB), unknown, known).node_name == "b"
    assert only(Request("r", gpus=1), unknown, known).node_name == "a"


def test_several_gpus_are_whole_and_each_large_enough() -> None:
    small, large = node("a", gpus=cards(2, 24)), node("b", gpus=cards(2, 80))
    answer = only(Request("r", gpus=2, gpu_memory=40 * GIB), small, large)
    assert (answer.node_name, answer.gpus, answer.gpu_indices, answer.gpu_memory) == ("b", 2.0, (0, 1), None)


def test_a_share_holds_on_any_gpu_of_a_mixed_node() -> None:
    mixed = node("m", gpus=(Gpu(0, "A100", 80 * GIB), Gpu(1, "L4", 24 * GIB)))
    answer = only(Request("r", gpus=1, gpu_memory=12 * GIB), mixed)
    assert (answer.gpus, answer.gpu_indices, answer.accelerator) == (0.5, (0,), None)
    assert answer.reasons[2] == (
        "its GPUs differ (24GiB and 80GiB), and Ray chooses among them: the share is counted on the smallest"
    )


def test_a_share_goes_to_the_gpu_that_ray_takes_the_one_with_least_room_that_fits() -> None:
    free = (Gpu(0, "L4", 24 * GIB, 1.0), Gpu(1, "L4", 24 * GIB, 0.5), Gpu(2, "L4", 24 * GIB, 0.25))
    assert only(Request("r", gpus=1, gpu_memory=10 * GIB), node("a", gpus=free)).gpu_indices == (1,)
    assert only(Request("r", gpus=1, gpu_memory=5 * GIB), node("a", gpus=free)).gpu_indices == (2,)


def test_an_optional_gpu_is_taken_if_it_is_free() -> None:
    request = Request("r", gpus=1, gpus_mandatory=False)
    assert only(request, node("a"), node("b", gpus=cards(1, 24))).gpus == 1.0
    answer = only(request, node("a"), node("b", gpus=cards(1, 24, free=0.5)))
    assert (answer.node_name, answer.gpus) == ("a", 0.0)
    assert answer.reasons[-1] == (
        "no node has room for it with a GPU now; resources.gpus_mandatory is false, so it runs without"
    )


def test_later_requests_see_what_earlier_ones_took() -> None:
    made = plan([Request("1", cpus=3), Request("2", cpus=2), Request("3", cpus=1)], cluster(node("a")))
    assert [answer.to_dict()["answer"] for answer in made.answers] == ["placed", "waiting", "placed"]
    assert made.answers[1].reasons == ("waiting for 2 CPUs: node a has 0 of 4 free",)


def test_fractions_add_up_exactly() -> None:
    requests = [Request(str(number), cpus=0.1) for number in range(10)]
    assert len(plan(requests, cluster(node("a", cpus=1))).placements) == 10


def test_room_is_rounded_down_and_demand_up() -> None:
    assert isinstance(only(Request("r", cpus=1), node("a", cpus_free=0.99995)), Waiting)
    assert isinstance(only(Request("r", cpus=0.99995), node("a", cpus_free=0.9999)), Waiting)
    shared = node("a", gpus=cards(1, 24, free=0.41665))
    assert isinstance(only(Request("r", gpus=1, gpu_memory=10 * GIB), shared), Waiting)
    # What is left of sums of fractions, such as 0.7 - 0.1 - 0.6, is noise.
    assert isinstance(only(Request("r", cpus=1), node("a", cpus_free=1 - 1e-12)), Placement)


@pytest.mark.parametrize(
    ("request_", "nodes", "expected"),
    [
        pytest.param(
            Request("r", cpus=2),
            [node("a", cpus_free=1)],
            ["waiting for 2 CPUs: node a has 1 of 4 free"],
            id="cpus",
        ),
        pytest.param(
            Request("r", memory=8 * GIB),
            [node("a", memory_free=2 * GIB)],
            ["waiting for 8GiB of memory: node a has 2GiB of 16GiB free"],
            id="memory",
        ),
        pytest.param(
            Request("r", cpus=2, memory=8 * GIB),
            [node("a", cpus_free=0.5, memory_free=2 * GIB)],
            ["waiting for 2 CPUs and 8GiB of memory: node a has 0.5 of 4 free and 2GiB of 16GiB free"],
            id="two at once",
        ),
        pytest.param(
            Request("r", cpus=2),
            [
                node("a", cpus_free=1),
                node("b", cpus_free=0),
                node("c", cpus=8, cpus_free=0),
                node("d", cpus=1),
            ],
            [
                "waiting for 2 CPUs: node a has 1 of 4 free; 1 other node of its kind has no room for it either",
                "waiting for 2 CPUs: node c has 0 of 8 free",
            ],
            id="one sentence a class",
        ),
        pytest.param(
            Request("r", gpus=2),
            [node("a", gpus=(Gpu(0, free=0.0), Gpu(1, free=0.7), Gpu(2)))],
            ["waiting for 2 whole GPUs: node a has 1 of 3 free"],
            id="whole GPUs",
        ),
        pytest.param(
            Request("r", gpus=1, gpu_memory=GIB),
            [node("a", gpus=cards(1, None, free=0.5))],
            ["waiting for a whole GPU (its memory is unknown, so that no share can be given): node a has 0 of 1 free"],
            id="unknown memory",
        ),
    ],
)
def test_what_waits_says_for_what(request_: Request, nodes: list[NodeView], expected: list[str]) -> None:
    assert isinstance(only(request_, *nodes), Waiting)
    assert reasons(request_, *nodes) == expected


@pytest.mark.parametrize(
    ("request_", "nodes", "expected"),
    [
        pytest.param(
            Request("r", cpus=64, memory=64 * GIB),
            [node("a"), node("b", cpus=16)],
            [
                "cpus 64: the largest node has 16 (b); lower resources.cpus to 16, or add a node that has it",
                "memory 64GiB: the largest node has 16GiB (a); lower resources.memory to 16GiB, "
                "or add a node that has it",
            ],
            id="every dimension",
        ),
        pytest.param(
            Request("r", gpus=1),
            [node("a")],
            [
                "gpus 1: no node has a GPU; set resources.gpus to 0 if the worker can do without, "
                "or add a node with GPUs"
            ],
            id="no GPU",
        ),
        pytest.param(
            Request("r", gpus=1, gpu_memory=40 * GIB),
            [node("a", gpus=cards(2, 24, "RTX4090")), node("b", gpus=cards(2, 16, "T4"))],
            [
                "gpu_memory 40GiB: 2 nodes have GPUs; the largest is 24GiB (RTX4090, a); "
                "nearest that fits: lower resources.gpu_memory to 24GiB, or add a node with GPUs of at least 40GiB, "
                "such as A100-40GB"
            ],
            id="GPUs too small",
        ),
        pytest.param(
            Request("r", gpus=4),
            [node("a", gpus=cards(2, 24))],
            [
                "gpus 4: the most on one node is 2 (a); lower resources.gpus to 2, or add a node that has it",
            ],
            id="too few GPUs",
        ),
        pytest.param(
            Request("r", gpus=2, gpu_memory=40 * GIB),
            [node("a", gpus=(*cards(1, 24), Gpu(1, None, 80 * GIB)))],
            [
                "gpu_memory 40GiB: 1 node has GPUs; the largest is 24GiB (a); nearest that fits: "
                "lower resources.gpu_memory to 24GiB, or add a node with GPUs of at least 40GiB, such as A100-40GB; "
                "on node a, its GPUs differ (24GiB and 80GiB), and Ray chooses among them: it counts as its smallest"
            ],
            id="not all large enough",
        ),
        pytest.param(
            Request("r", cpus=8, gpus=1),
            [node("a", cpus=16), node("a2", cpus=16), node("b", cpus=2, gpus=cards(1, 24))],
            [
                "cpus 8 and gpus 1 together: node a (and 1 like it) has no GPU",
                "cpus 8 and gpus 1 together: node b has only 2 CPUs",
            ],
            id="no node has all at once",
        ),
        pytest.param(Request("r"), [], ["the cluster has no nodes; start some, or join another cluster"], id="empty"),
        pytest.param(
            Request("r"),
            [node("a", draining=True), node("b", alive=False)],
            [
                "no node takes new work: 1 dead and 1 draining",
            ],
            id="none usable",
        ),
        pytest.param(
            Request("r", cpus=8),
            [node("a"), node("b", cpus=8, draining=True)],
            [
                "cpus 8: the largest node has 4 (a); lower resources.cpus to 4, or add a node that has it",
                "node b could run it, but is draining and takes no new work",
            ],
            id="only a draining node could",
        ),
    ],
)
def test_what_can_never_run_says_why(request_: Request, nodes: list[NodeView], expected: list[str]) -> None:
    assert isinstance(only(request_, *nodes), Infeasible)
    assert reasons(request_, *nodes) == expected


def test_nodes_that_share_a_host_name_are_told_apart() -> None:
    twins = [
        node("host", node_id="0123456789abcdef", cpus_free=0),
        node("host", node_id="fedcba", cpus_free=0),
    ]
    assert reasons(Request("r"), *twins)[0].startswith("waiting for 1 CPU: node host (0123456789ab) has 0 of 4 free")


@pytest.mark.parametrize(
    ("declared", "overrides", "expected"),
    [
        (Capabilities(cpu_cores=2), {}, Request("r", 2.0, 512 * 1024**2)),
        (Capabilities(), {"cpus": 0.5, "memory": GIB, "gpus": None}, Request("r", 0.5, GIB)),
        (Capabilities(estimated_memory_mb=0), {}, Request("r", 1.0, None)),
        (Capabilities(gpu_memory_mb=2048), {}, Request("r", 1.0, 512 * 1024**2)),
        (Capabilities(requires_gpu=True), {}, Request("r", 1.0, 512 * 1024**2, 1)),
        (
            Capabilities(requires_gpu=True, gpu_memory_mb=2048),
            {},
            Request("r", 1.0, 512 * 1024**2, 1, 2 * GIB),
        ),
        (
            Capabilities(gpu_memory_mb=2048),
            {"gpus": 1},
            Request("r", 1.0, 512 * 1024**2, 1, 2 * GIB, whole_gpus=True),
        ),
        (Capabilities(), {"gpu_memory": GIB}, Request("r", 1.0, 512 * 1024**2, 1, GIB)),
        (Capabilities(requires_gpu=True, gpu_memory_mb=2048), {"gpus": 0}, Request("r", 1.0, 512 * 1024**2)),
        (
            Capabilities(),
            {"gpus": 2, "gpu_memory": GIB, "gpus_mandatory": False},
            Request("r", 1.0, 512 * 1024**2, 2, GIB, gpus_mandatory=False),
        ),
    ],
)
def test_a_request_is_what_the_worker_declares_unless_the_spec_says_otherwise(
    declared: Capabilities, overrides: dict[str, Any], expected: Request
) -> None:
    assert request_for(declared, run_id="r", overrides=overrides) == expected


def test_more_agents_than_the_worker_serves_are_refused() -> None:
    with pytest.raises(PlacementError, match="agents: 3 is more than this worker serves; give 2 or less"):
        request_for(Capabilities(max_agents=2), run_id="r", agents=3)


def test_workers_that_could_serve_so_many_agents_are_named() -> None:
    others = {"marllib": 100, "cleanrl": 1, "rllib": 64}
    for agents, expected in [
        (50, "take another worker (marllib serves up to 100, rllib serves up to 64)"),
        (500, "split them over several workers, since no other serves so many"),
    ]:
        with pytest.raises(PlacementError) as caught:
            request_for(Capabilities(max_agents=2), run_id="r", overrides={"agents": agents}, others=others)
        assert f"agents: {agents} is more than this worker serves; give 2 or less, or {expected}" in str(caught.value)


def test_what_each_agent_adds_grows_with_their_number() -> None:
    declared = Capabilities(cpu_cores=2, max_agents=100)
    each = {"cpus": 0.25, "memory": GIB, "gpu_memory": 2 * GIB}
    alone = request_for(declared, run_id="r", overrides={"agents": 4, "per_agent": each})
    assert (alone.cpus, alone.memory, alone.gpus, alone.gpu_memory, alone.agents) == (1.0, 4 * GIB, 1, 8 * GIB, 4)
    base = {"cpus": 1, "memory": GIB, "gpu_memory": GIB, "per_agent": {**each, "memory": None}}
    added = request_for(declared, run_id="r", overrides=base, agents=4)
    assert (added.cpus, added.memory, added.gpu_memory) == (2.0, GIB, 9 * GIB)


def test_a_spec_may_name_models_and_labels_and_the_queue_its_place() -> None:
    overrides = {"accelerator": "A100", "labels": {"zone": "a"}, "gpus": 1}
    request = request_for(Capabilities(), run_id="r", overrides=overrides, priority=3, gang="g", since=5.0, weight=2.0)
    assert (request.accelerator, request.labels) == (("A100",), {"zone": "a"})
    assert (request.priority, request.gang, request.since, request.weight) == (3, "g", 5.0, 2.0)
    several = request_for(Capabilities(), run_id="r", overrides={"accelerator": ["A100", "H100"], "gpus": 1})
    assert several.accelerator == ("A100", "H100")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus": -1}, "cpus of a request is -1: give a finite number, 0 or more"),
        ({"cpus": float("nan")}, "cpus of a request is nan: give a finite number, 0 or more"),
        ({"gpu_memory": GIB}, "a request has gpu_memory but no gpus: give gpus=1, or no gpu_memory"),
    ],
)
def test_a_senseless_request_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Request("r", **arguments)
    assert str(caught.value) == message


def test_everything_goes_through_json_and_back() -> None:
    view = cluster(node("a", gpus=cards(2, 24, "L4", 0.5), labels={"zone": "x"}), node("b", is_head=True))
    assert ClusterView.from_dict(json.loads(json.dumps(view.to_dict()))) == view
    requests = [Request("1", gpus=1, gpu_memory=GIB), Request("2", cpus=99), Request("3", gpus=2)]
    for request in requests:
        assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    made = plan(requests, view)
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert Placement.from_dict(made.answers[0].to_dict()) == made.answers[0]


def test_a_plan_reads_as_text() -> None:
    requests = [
        Request("1", memory=GIB, gpus=1, gpu_memory=6 * GIB),
        Request("2", cpus=4),
        Request("3", cpus=5),
    ]
    assert plan(requests, cluster(node("a", gpus=cards(1, 24)))).lines() == [
        "run 1: on a with 1 CPU, 1GiB of memory, 0.25 GPU (6GiB of its memory)",
        "  node a: best fit; leaves 3 CPUs of 4 and 15GiB of 16GiB of memory free",
        "  GPU 0 (24GiB): 6GiB is 0.25 of it; 0.75 is left",
        "run 2: waits",
        "  waiting for 4 CPUs: node a has 3 of 4 free",
        "run 3: can never run on this cluster",
        "  cpus 5: the largest node has 4 (a); lower resources.cpus to 4, or add a node that has it",
    ]
