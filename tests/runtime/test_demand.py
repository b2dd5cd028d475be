"""What Ray's autoscaler is told of a request that only a new node can hold."""

from __future__ import annotations

from mosaic_cluster.inventory import node_types
from mosaic_cluster.placement import NodeType, Request
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
