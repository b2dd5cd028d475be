"""What Ray's autoscaler is told of a request that only a new node can hold."""

from __future__ import annotations

import pytest

from mosaic_cluster.inventory import node_types
from mosaic_cluster.placement import Answer, ClusterView, Infeasible, NodeType, Placement, Request, Waiting
from mosaic_cluster.runtime.allocation import demand
from mosaic_cluster.runtime.allocation.demand import bundle_for, selector_for

GIB = 1024**3


def kinds() -> dict[str, NodeType]:
    """Kinds of nodes whose GPUs Ray tells apart by a resource, as it does on AWS, or by a label."""
    config = {
        "available_node_types": {
            "named": {"resources": {"CPU": 8, "memory": 64 * GIB, "GPU": 2, "accelerator_type:A100": 1}},
            "labelled": {
                "resources": {"CPU": 8, "memory": 64 * GIB, "GPU": 1},
                "labels": {"mosaic/gpu-memory": "80GiB", "mosaic/gpu-model": "A100", "zone": "a", "rack": "7"},
            },
            "bare": {"resources": {"CPU": 8, "memory": 64 * GIB}},
        }
    }
    for kind in config["available_node_types"].values():
        kind["max_workers"] = 1
    return {kind.name: kind for kind in node_types(config, {})}


def test_a_share_of_that_kind_of_gpu_and_no_other() -> None:
    request = Request("r", cpus=2, memory=GIB, gpus=1, gpu_memory=20 * GIB, labels={"zone": "a"})
    found = kinds()
    assert bundle_for(request, found["labelled"]) == {"CPU": 2, "memory": GIB, "GPU": 0.25}
    assert selector_for(request, found["labelled"]) == {
        "mosaic/gpu-memory": "80GiB", "mosaic/gpu-model": "A100", "zone": "a",
    }  # fmt: skip
    # Ray's table has the A100 with 40GiB: half of one, and not of a smaller one that another kind has.
    assert bundle_for(request, found["named"]) == {
        "CPU": 2, "memory": GIB, "GPU": 0.5, "accelerator_type:A100": 0.001,
    }  # fmt: skip
    assert selector_for(Request("r", gpus=1), found["named"]) == {}


def test_whole_gpus_are_asked_for_whole() -> None:
    assert bundle_for(Request("r", cpus=1, gpus=2), kinds()["named"])["GPU"] == 2


def test_there_is_always_something_to_ask_for() -> None:
    assert bundle_for(Request("r", cpus=0), kinds()["bare"]) == {"CPU": 0.001}
    assert bundle_for(Request("r", cpus=1, gpus=0), kinds()["bare"]) == {"CPU": 1}


def test_a_kind_survives_being_sent() -> None:
    for kind in kinds().values():
        assert NodeType.from_dict(kind.to_dict()) == kind


class Groups:
    """Stands for Ray's placement groups: those there are, and the node of each that has got room."""

    def __init__(self) -> None:
        self.ready: dict[str, str] = {}
        self.names: list[str] = []

    def make(self, bundles: object, *, name: str, **options: object) -> str:
        del bundles, options
        run = name.removeprefix("mosaic-demand-").partition("-")[0]
        self.names.append(run)
        return run

    def table(self, run: str) -> dict[str, object]:
        if run not in self.ready:
            return {"state": "PENDING"}
        return {"state": "CREATED", "bundles_to_node_id": {0: self.ready[run]}}

    def remove(self, run: str) -> None:
        self.names.remove(run)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    made = Groups()
    monkeypatch.setattr(demand, "placement_group", made.make)
    monkeypatch.setattr(demand, "placement_group_table", made.table)
    monkeypatch.setattr(demand, "remove_placement_group", made.remove)
    return made


def follow(asked: demand.Demand, answers: dict[str, Answer], *others: str, full: bool = False) -> None:
    """One driver's turn; ``full``: no kind of node may be started any more."""
    requests = [Request(run, cpus=2, gpus=1, gpu_memory=20 * GIB) for run in answers]
    waiting = {run for run, answer in answers.items() if not isinstance(answer, Placement)}
    view = ClusterView((), 0.0, launchable=() if full else tuple(kinds().values()))
    asked.follow(requests, list(answers.values()), view, waiting=waiting | set(others))


def launch(run: str) -> Waiting:
    return Waiting(run, ("a new node would hold it",), "labelled")


def test_demand_lasts_until_its_run_has_a_place(groups: Groups) -> None:
    asked = demand.Demand()
    follow(asked, {"a": launch("a"), "b": launch("b"), "c": Waiting("c", ("waits",))})
    assert groups.names == ["a", "b"]
    follow(asked, {"a": launch("a"), "b": launch("b")})
    assert groups.names == ["a", "b"]
    groups.ready["a"] = "n1"
    assert asked.held() == {"n1": {"CPU": 2, "GPU": 0.25}}
    # Also where no more nodes may be started.
    follow(asked, {"a": Placement("a", "n1", "n1", 2.0), "b": launch("b")}, full=True)
    assert groups.names == []
    assert not asked


def test_a_run_of_another_driver_keeps_its_demand(groups: Groups) -> None:
    asked = demand.Demand()
    follow(asked, {"a": launch("a")})
    follow(asked, {"b": launch("b")}, "a")
    assert groups.names == ["a", "b"]
    follow(asked, {"b": launch("b")})
    assert groups.names == ["b"]


def test_room_that_another_run_gets_is_not_held(groups: Groups) -> None:
    asked = demand.Demand()
    follow(asked, {"a": launch("a"), "b": launch("b")})
    groups.ready = {"a": "n1", "b": "n2"}
    # Of a higher priority: its actor could never start while a group holds its room.
    follow(asked, {"urgent": Placement("urgent", "n1", "n1", 2.0), "a": Waiting("a", ("waits",))}, "b")
    assert groups.names == ["b"]


def test_what_no_node_is_started_for_is_not_asked_for(groups: Groups) -> None:
    asked = demand.Demand()
    follow(asked, {"a": launch("a"), "b": launch("b"), "c": launch("c")})
    groups.ready = {"b": "n1", "c": "n2"}
    follow(asked, {"a": Waiting("a", ("w",)), "b": Waiting("b", ("w",)), "c": Infeasible("c", ("no",))}, full=True)
    assert groups.names == ["b"]  # it has got room already
