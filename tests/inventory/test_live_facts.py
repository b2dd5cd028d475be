"""What is known of a live cluster's nodes, and who said it."""

from __future__ import annotations

from typing import Any

import pytest

from mosaic_cluster.inventory import GpuFact, needs_probe, node_types, parse_probe, view_from_ray

GIB = 1024**3
A100 = GpuFact("NVIDIA A100-SXM4-40GB", 40 * GIB - 1)
T4 = GpuFact("Tesla T4", 15 * GIB)


def node(gpus: float = 2, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": "n1", "Alive": True, "NodeManagerHostname": "host", "NodeManagerAddress": "10.0.0.1",
        "Resources": {"CPU": 4.0, "memory": float(GIB), "GPU": gpus, **resources}, "Labels": labels or {},
    }  # fmt: skip


def gpus(one: dict[str, Any], *probed: GpuFact) -> list[tuple[str | None, int | None, str]]:
    view = view_from_ray([one], {}, probed={"n1": probed}, taken_at=0.0)
    return [(gpu.model, gpu.memory, gpu.source) for gpu in view.nodes[0].gpus]


def test_a_label_goes_before_all() -> None:
    labels = {"mosaic/gpu-memory": "24GiB", "ray.io/accelerator-type": "A100"}
    assert gpus(node(labels=labels), A100, A100) == [("A100", 24 * GIB, "label")] * 2
    own = {**labels, "mosaic/gpu-model": "RTX 4090"}
    assert gpus(node(labels=own))[0] == ("RTX 4090", 24 * GIB, "label")
    assert not needs_probe(labels)


def test_then_the_driver() -> None:
    assert gpus(node(labels={"ray.io/accelerator-type": "A100"}), A100, A100) == [("A100", 40 * GIB - 1, "probed")] * 2


def test_a_node_of_mixed_models_keeps_them_apart() -> None:
    found = gpus(node(labels={"ray.io/accelerator-type": "A100"}), A100, T4)
    assert found == [("A100", 40 * GIB - 1, "probed"), ("T4", 15 * GIB, "probed")]


def test_then_the_table_and_then_nobody() -> None:
    assert gpus(node(labels={"ray.io/accelerator-type": "T4"})) == [("T4", 15 * GIB, "table")] * 2
    assert gpus(node(**{"accelerator_type:A100": 1.0})) == [("A100", 40 * GIB, "table")] * 2
    assert gpus(node(labels={"ray.io/accelerator-type": "Zork"})) == [("Zork", None, "unknown")] * 2
    assert gpus(node()) == [(None, None, "unknown")] * 2


@pytest.mark.parametrize("text", ["", "much", "-3GiB", "0"])
def test_a_label_that_cannot_be_read_says_nothing(text: str) -> None:
    labels = {"mosaic/gpu-memory": text}
    assert needs_probe(labels)
    assert gpus(node(labels=labels), T4, T4) == [("T4", 15 * GIB, "probed")] * 2


def test_a_driver_that_sees_other_gpus_than_ray_is_believed_only_if_all_are_alike() -> None:
    assert gpus(node(1), T4, T4) == [("T4", 15 * GIB, "probed")]
    assert gpus(node(1), T4, A100) == [(None, None, "unknown")]
    assert gpus(node(2), T4) == [(None, None, "unknown")] * 2


@pytest.mark.parametrize(
    "answer", [None, "x", 3, {}, [3], [{"name": "T4"}], [{"name": 3, "memory": 3}], [{"name": "T4", "memory": 0}]]
)
def test_a_probe_that_makes_no_sense_is_no_answer(answer: Any) -> None:
    assert parse_probe(answer) == ()
    assert parse_probe([{"name": "T4", "memory": 5}]) == (GpuFact("T4", 5),)


def test_names_agents_and_free_shares() -> None:
    one = node(labels={"mosaic/node-name": "big-1", "mosaic/agent-slots": "7"})
    (seen,) = view_from_ray([one], {"n1": {"CPU": 1.0, "GPU": 1.4}}, taken_at=0.0).nodes
    assert (seen.name, seen.slots, seen.address, seen.cpus_free) == ("big-1", 7, "10.0.0.1", 1.0)
    assert [gpu.free for gpu in seen.gpus] == [0.4, 1.0]
    (seen,) = view_from_ray([node(labels={"mosaic/agent-slots": "few"})], {}, taken_at=0.0).nodes
    assert (seen.name, seen.agent_slots) == ("host", None)


CONFIG = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}, "max_workers": 0, "node_config": {}},
        "a100": {
            "resources": {"CPU": 12, "memory": 85 * GIB, "GPU": 2, "accelerator_type:A100": 1},
            "labels": {"mosaic/gpu-memory": "40GiB", "zone": "a"},
            "max_workers": 4,
        },
        "cpu": {"resources": {"CPU": 16}, "min_workers": 0, "max_workers": 100},
        "full": {"resources": {"CPU": 1}, "max_workers": 1},
    },
}


def test_kinds_of_nodes_that_could_be_started() -> None:
    found = {kind.name: kind for kind in node_types(CONFIG, {"a100": 1, "full": 1})}
    assert {name: kind.more for name, kind in found.items()} == {"a100": 3, "cpu": 4}
    a100 = found["a100"].node
    assert (a100.cpus, a100.memory, a100.labels["zone"]) == (12, 85 * GIB, "a")
    assert [(gpu.model, gpu.memory, gpu.source, gpu.free) for gpu in a100.gpus] == [
        ("A100", 40 * GIB, "label", 1.0)
    ] * 2


@pytest.mark.parametrize(
    "config",
    [None, [], "x", {}, {"available_node_types": 3}, {"available_node_types": {"a": None, "b": {"max_workers": "x"}}}],
)
def test_a_config_that_is_not_understood_starts_nothing(config: Any) -> None:
    assert node_types(config, {}) == ()


def test_no_more_than_all_together() -> None:
    assert node_types(CONFIG, {"cpu": 6}) == ()
