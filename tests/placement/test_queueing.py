"""Whose turn it is, what is kept free for whom, gangs, and nodes that could be started."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

from placement.clusters import GIB, cards, node

from mosaic_cluster.placement import (
    Answer,
    ClusterView,
    Holding,
    Infeasible,
    NodeType,
    NodeView,
    Placement,
    Plan,
    Request,
    Waiting,
    plan,
)

NOW = 1000.0


def view(*nodes: NodeView, **more: Any) -> ClusterView:
    return ClusterView(nodes, NOW, **more)


def holding(name: str, cpus: float, until: float | None, experiment: str = "other") -> Holding:
    return Holding(Placement(f"on-{name}", f"id-{name}", name, cpus), experiment, until=until)


def where(answers: tuple[Answer, ...]) -> list[str | None]:
    return [answer.node_name if isinstance(answer, Placement) else None for answer in answers]


def runs(count: int, **more: Any) -> list[Request]:
    return [Request(f"{more.get('experiment', 'r')}{number}", **more) for number in range(count)]


def test_higher_priority_then_longer_waiting_goes_first() -> None:
    asked = [Request("late", since=20.0), Request("early", since=10.0), Request("high", since=30.0, priority=1)]
    assert where(plan(asked, view(node("a", cpus=1))).answers) == [None, None, "a"]
    assert where(plan(asked, view(node("a", cpus=2))).answers) == [None, "a", "a"]


def test_experiments_share_by_weight() -> None:
    asked = runs(20, experiment="one", weight=1.0) + runs(20, experiment="three", weight=3.0)
    made = plan(asked, view(node("a", cpus=16)))
    assert sum(placement.run_id.startswith("three") for placement in made.placements) == 12
    assert sum(placement.run_id.startswith("one") for placement in made.placements) == 4


def test_what_an_experiment_holds_already_counts_by_its_dominant_share() -> None:
    # One holds 8 of 32 CPUs, the other 2 of 4 GPUs: the half of the GPUs is the larger share.
    gpus = node("a", cpus=32, cpus_free=2, gpus=cards("L4", 4))
    cpu = Holding(Placement("x", "id-a", "a", 8.0), "cpu")
    gpu = Holding(Placement("y", "id-a", "a", 1.0, gpus=2.0, gpu_indices=(2, 3)), "gpu")
    made = plan(runs(3, experiment="gpu") + runs(3, experiment="cpu"), view(gpus, holdings=(cpu, gpu)))
    assert [placement.run_id for placement in made.placements] == ["cpu0", "cpu1"]


def busy(*free: tuple[str, float, float | None]) -> ClusterView:
    """Nodes of 4 CPUs: name, CPUs free, when the rest ends."""
    nodes = tuple(node(name, cpus_free=cpus) for name, cpus, _ in free)
    return ClusterView(nodes, NOW, holdings=tuple(holding(name, 4 - cpus, until) for name, cpus, until in free))


LARGE = Request("large", cpus=4, since=900.0)


def test_a_large_run_that_waits_gets_the_node_that_is_free_soonest() -> None:
    cluster = busy(("a", 2, 1200.0), ("b", 2, 1050.0), ("c", 2, None))
    made = plan([LARGE, *runs(6, since=950.0)], cluster)
    assert where(made.answers) == [None, "a", "a", "c", "c", None, None]
    assert made.answers[0].reasons[-1] == "node b is kept free for it, where it fits in 50s"
    assert made.answers[5].reasons == ("node b has room, but is kept free for run large, which waits for 1m40s",)


def test_a_run_that_has_just_come_keeps_nothing_free() -> None:
    cluster = busy(("a", 2, 1050.0))
    fresh = [replace(LARGE, since=950.0), *runs(2, since=960.0)]
    assert where(plan(fresh, cluster).answers) == [None, "a", "a"]
    assert where(plan(fresh, cluster, patience=50.0).answers) == [None, None, None]
    assert where(plan([replace(LARGE, since=0.0), *runs(2)], cluster).answers) == [None, "a", "a"]


def test_who_will_have_ended_by_then_may_use_what_is_kept_free() -> None:
    asked = [LARGE, Request("long", duration=51.0, since=950.0), Request("short", duration=50.0, since=951.0)]
    assert where(plan(asked, busy(("a", 2, 1050.0))).answers) == [None, None, "a"]
    assert where(plan(asked, busy(("a", 2, None))).answers) == [None, None, None]


def test_room_that_the_large_run_does_not_need_is_not_kept_free() -> None:
    asked = [replace(LARGE, cpus=3), *runs(2, since=950.0)]
    assert where(plan(asked, busy(("a", 2, 1050.0))).answers) == [None, "a", None]


def large_starts(patience: float) -> float | None:
    """When a run that needs a whole node starts, where two small ones come for each that ends: of another experiment,
    which holds less than its weight lets it."""
    running: dict[str, tuple[str, float]] = {
        f"first{name}{end}": (name, end) for name in "ab" for end in range(10, 50, 10)
    }
    for now in range(10, 400, 10):
        running = {run: entry for run, entry in running.items() if entry[1] > now}
        taken = {name: sum(where == name for where, _ in running.values()) for name in "ab"}
        nodes = tuple(node(name, cpus_free=4 - taken[name]) for name in "ab")
        holdings = tuple(
            Holding(Placement(run, f"id-{name}", name, 1.0), "small", until=end) for run, (name, end) in running.items()
        )
        small = [Request(f"s{now}-{number}", experiment="small", since=float(now)) for number in range(4)]
        large = Request("large", cpus=4, experiment="large", since=1.0)
        for placement in plan(
            [large, *small], ClusterView(nodes, float(now), holdings=holdings), patience=patience
        ).placements:
            if placement.run_id == "large":
                return now
            running[placement.run_id] = (placement.node_name, now + 40.0)
        assert sum(name == "a" for name, _ in running.values()) == 4 or now >= patience
        assert sum(1 for _ in running) >= 4, "no more than one node is kept free"
    return None


def test_large_runs_are_not_starved_by_small_ones_that_always_come() -> None:
    assert large_starts(patience=10_000.0) is None
    assert large_starts(patience=60.0) == 100


def test_a_gang_keeps_together_on_the_fewest_nodes() -> None:
    made = plan(runs(6, cpus=2, gang="g"), view(node("a"), node("b", cpus=8), node("c"), node("d", cpus=8)))
    assert sorted(placement.node_name for placement in made.placements) == ["a", "a", "b", "b", "b", "b"]
    assert all(placement.gang == "g" for placement in made.placements)


def test_a_gang_that_lacks_one_place_takes_none_and_says_what_it_lacks() -> None:
    made = plan([*runs(4, cpus=2, gang="g"), Request("after", cpus=3)], view(node("a"), node("b", cpus_free=3)))
    assert where(made.answers) == [None, None, None, None, "b"]
    assert made.answers[0].reasons == (
        "gang of 4: 2 of 4 would fit now, and all start together or none",
        "run r2: waiting for 2 CPUs: node a has 0 of 4 free; 1 other node of its kind has no room for it either",
    )


def test_a_gang_that_is_too_large_for_ever_says_how_many_fit() -> None:
    made = plan(runs(5, cpus=2, gang="g"), view(node("a"), node("b", cpus_free=0)))
    assert all(isinstance(answer, Infeasible) for answer in made.answers)
    assert made.answers[4].reasons == (
        "gang of 5: the whole cluster, idle, holds 4 of 5; make it 4 or fewer, ask for less each, or add nodes",
    )


def test_a_gang_that_waits_has_nodes_kept_free() -> None:
    cluster = busy(("a", 2, 1100.0), ("b", 2, 1050.0), ("c", 0, 1500.0))
    gang = [replace(LARGE, run_id=str(number), cpus=3, gang="g") for number in range(2)]
    made = plan([*gang, *runs(3, since=950.0)], cluster)
    assert where(made.answers) == [None, None, "a", "b", None]
    assert made.answers[0].reasons[-1] == "nodes a and b are kept free for it, where it fits in 1m40s"
    assert "kept free for gang g" in made.answers[4].reasons[0]


KIND = NodeType("gpu", node("t", cpus=8, gpus=cards("A100-40GB", 1)), 2)
SHARE = Request("r", gpus=1, gpu_memory=20 * GIB)


def test_what_only_a_new_node_holds_waits_for_one_and_several_share_it() -> None:
    asked = [replace(SHARE, run_id=str(number)) for number in range(5)]
    made = plan(asked, view(node("a"), launchable=(KIND,)))
    assert [answer.launch for answer in made.answers if isinstance(answer, Waiting)] == ["gpu"] * 4 + [None]
    assert made.answers[0].reasons == ("a new node of kind gpu would hold it",)
    assert made.answers[4].reasons == (
        "a new node of kind gpu would hold it, but all that may be started are meant for others",
    )
    (answer,) = plan([SHARE], view(node("a"), launchable=(replace(KIND, more=0),))).answers
    assert isinstance(answer, Infeasible)


def test_what_fits_no_new_node_either_says_what_those_have() -> None:
    (answer,) = plan([replace(SHARE, gpu_memory=60 * GIB)], view(launchable=(KIND,))).answers
    assert isinstance(answer, Infeasible)
    assert "the largest is 40GiB (A100-40GB, a new node of kind gpu)" in answer.reasons[0]
    assert answer.reasons[0].endswith("or add a node with GPUs of at least 60GiB, such as H100-80GB")


def test_a_gang_may_need_new_nodes_for_some_of_its_members() -> None:
    kind = NodeType("small", node("t", cpus=4), 1)
    made = plan(runs(2, cpus=4, gang="g"), view(node("a"), launchable=(kind,)))
    assert [answer.launch for answer in made.answers if isinstance(answer, Waiting)] == [None, "small"]
    more = plan(runs(3, cpus=4, gang="g"), view(node("a"), launchable=(kind,)))
    assert all(isinstance(answer, Infeasible) for answer in more.answers)


def only(request: Request, *nodes: NodeView) -> Any:
    (answer,) = plan([request], view(*nodes)).answers
    return answer


def test_labels_models_slots_and_quarantine_say_why_not() -> None:
    there = node("a", gpus=cards("A100-40GB", 1), labels={"zone": "c"})
    asked = {
        "labels zone=in(a,b): nodes have zone: c; change resources.labels, or label a node so": {
            "labels": {"zone": "in(a,b)"}
        },
        "accelerator H100: the cluster has A100-40GB; set resources.accelerator to A100-40GB, or add a node with GPUs "
        "of that model": {"gpus": 1, "accelerator": ("H100",)},
        "every node is in quarantine for it; look into what failed there, or add a node": {"avoid": ("id-a",)},
        "agents 600: the most slots on one node are 512 (a); lower resources.agents to 512, or add a node that has "
        "it": {"agents": 600},
    }
    for sentence, more in asked.items():
        answer = only(Request("r", **more), there)
        assert isinstance(answer, Infeasible)
        assert list(answer.reasons) == [sentence]


def test_what_no_node_has_all_of_says_what_each_lacks() -> None:
    mixed = node("m", gpus=(*cards("L4", 1), replace(cards("A100-80GB", 1)[0], index=1)), labels={"zone": "a"})
    answer = only(Request("r", cpus=3, gpus=1, gpu_memory=30 * GIB, labels={"zone": "a"}), mixed,
                  node("b", cpus=2, gpus=cards("A100-40GB", 1), labels={"zone": "a"}),
                  node("c", gpus=cards("A100-40GB", 1)))  # fmt: skip
    demands = "cpus 3, gpus 1, gpu_memory 30GiB and zone=a together"
    assert list(answer.reasons) == [
        f"{demands}: node b has only 2 CPUs",
        f"{demands}: node c has no label zone",
        f"{demands}: node m has GPUs of at most 24GiB (its GPUs differ (24GiB and 80GiB), and Ray chooses among them)",
    ]


def test_agent_slots_are_waited_for() -> None:
    answer = only(Request("r", agents=100), node("a", agent_slots=128, agents=64))
    assert answer.reasons == ("waiting for 100 agent slots: node a has 64 of 128 agent slots free",)


def test_ten_thousand_light_agents_do_not_land_on_one_node() -> None:
    nodes = [node(str(number), cpus=8) for number in range(12)]
    made = plan([Request(str(number), cpus=0.01, agents=100) for number in range(100)], view(*nodes))
    assert len(made.placements) == 100
    assert len({placement.node_id for placement in made.placements}) == 10


def test_all_of_it_goes_through_json_and_pickle() -> None:
    cluster = view(node("a", agent_slots=5, agents=2, address="10.0.0.1"), launchable=(KIND,),
                   holdings=(replace(holding("a", 1, 5.0), priority=2, weight=2.0),))  # fmt: skip
    assert ClusterView.from_dict(json.loads(json.dumps(cluster.to_dict()))) == cluster
    made = plan([Request("1", agents=3), SHARE, Request("3", cpus=99)], cluster)
    assert [answer.to_dict()["answer"] for answer in made.answers] == ["placed", "waiting", "infeasible"]
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert pickle.loads(pickle.dumps(made)) == made
    request = Request(
        "r", labels={"zone": "a"}, accelerator=("A100",), avoid=("x",), gang="g", spread=True, duration=3.0
    )
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
