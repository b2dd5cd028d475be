"""Clusters in a file or in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

from mosaic_cluster.inventory import assumed, parse_cluster, parse_nodes_table, read_cluster
from mosaic_cluster.placement import Placement, Request, plan
from mosaic_cluster.units import parse_bytes
from mosaic_cluster.worker.errors import InvalidInput

GIB = 1024**3
FILES = sorted((ROOT / "cluster_configs").glob("*.yaml"))


def problems(error: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [str(problem) for problem in error.value.problems]


def test_a_nodes_table() -> None:
    view = read_cluster("4x(8cpu,2xA100-40GB),2x(4cpu, 1xRTX4090, 24GiB, agents=50, zone=a, name=small)")
    assert [node.name for node in view.nodes] == ["node-1", "node-2", "node-3", "node-4", "small-1", "small-2"]
    first, last = view.nodes[0], view.nodes[-1]
    assert (first.cpus, first.cpus_free, first.memory) == (8, 8, 32 * GIB)
    assert [(gpu.index, gpu.model, gpu.memory, gpu.source) for gpu in first.gpus] == [
        (0, "A100", 40 * GIB, "file"), (1, "A100", 40 * GIB, "file"),
    ]  # fmt: skip
    assert (last.cpus, last.memory, last.slots, last.labels) == (4, 24 * GIB, 50, {"zone": "a"})
    assert [(gpu.model, gpu.memory, gpu.source) for gpu in last.gpus] == [("RTX 4090", 24 * GIB, "table")]
    assert len({node.node_id for node in view.nodes}) == 6


def test_names_of_nodes_never_meet() -> None:
    view = read_cluster("2x(1cpu,name=a),(1cpu,name=a-1),(1cpu,name=b),3x(1cpu,name=a)")
    names = [node.name for node in view.nodes]
    assert len(set(names)) == len(names) == 7
    assert {"a-1", "b"} <= set(names)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("4x(8cpu", ["column 3: this bracket is never closed"]),
        ("x(8cpu)", ["column 1: 'x(8cpu)' is no group of nodes"]),
        ("(8cpu),", ["column 8: nothing is no group of nodes"]),
        ("(8cpu)(4cpu)", ["column 7: groups of nodes are parted by commas"]),
        ("0x(1cpu)", ["column 1: 0 nodes; give 1 to"]),
        ("()", ["column 2: nothing is not understood"]),
        ("(1cpu, 0xA100)", ["column 8: 0 GPUs; give 1 to"]),
        ("(1cpu,a$=b)", ["column 7: 'a$=b' is no label"]),
        ("(1cpu,zone=)", ["column 7: 'zone' has no value"]),
        (
            "(8cpu,9cpu,7foo,2xZork,agents=many),(1cpu,12parsecs)",
            [
                "column 7: '9cpu' gives cpus a second time, after '8cpu'",
                "column 12: '7foo' is not understood; give CPUs (8cpu)",
                "column 17: nothing is known of the GPU 'Zork'; give its memory too: 2xZork-24GB",
                "column 24: 'many' agent slots",
                "column 43: '12parsecs' is not understood",
            ],
        ),
    ],
)
def test_what_is_wrong_with_a_nodes_table(table: str, expected: list[str]) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_nodes_table(table)
    found = problems(error)
    assert len(found) == len(expected)
    assert all(message.startswith(begin) for message, begin in zip(found, expected, strict=True)), found


def test_a_size_that_a_name_states_is_taken() -> None:
    (group,) = parse_nodes_table("(1cpu,1xZork-48GB)")
    assert group.node("n").gpus[0].memory == 48 * GIB


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "nodes:\n"
        "  - {name: mixed, cpus: 8, memory: 10GiB, labels: {zone: a}, agent_slots: 5, draining: true,\n"
        "     gpus: [{model: A100, memory: 40GiB}, {model: rtx4090, count: 2}]}\n"
        "launchable:\n"
        "  - {name: burst, max: 3, cpus: 2, gpus: {model: Zork, memory: 1000MB}}\n"
    )
    view = read_cluster(path)
    (node,) = view.nodes
    assert node.name == "mixed"
    assert node.draining
    assert (node.memory, node.slots, node.labels) == (10 * GIB, 5, {"zone": "a"})
    assert [(gpu.index, gpu.model) for gpu in node.gpus] == [(0, "A100"), (1, "RTX 4090"), (2, "RTX 4090")]
    (kind,) = view.launchable
    assert (kind.name, kind.more, kind.node.cpus, kind.node.memory) == ("burst", 3, 2, 8 * GIB)
    assert kind.node.gpus[0].memory == parse_bytes("1000MB")


def test_all_that_is_wrong_with_a_file() -> None:
    document = {
        "nodes": [{"cpu": 4, "gpus": [{"model": "A100", "count": 0}, 3, {"model": "Zork"}], "labels": {"a": 1}}, 5],
        "launchable": [{"name": "b", "cpus": 4}],
        "name": "x",
    }
    with pytest.raises(InvalidInput) as error:
        parse_cluster(document)
    found = problems(error)
    for begin in (
        "nodes.0.cpus: missing; give CPUs of each",
        "nodes.0.cpu: unknown key; did you mean cpus?",
        "nodes.0.gpus.0.count: 0 is out of range",
        "nodes.0.gpus.1: 3 is not a mapping",
        "nodes.0.gpus.2.memory: missing; nothing is known of the GPU 'Zork'",
        "nodes.0.labels.a: 1 is not text",
        "nodes.1: 5 is not a mapping",
        "launchable.0.max: missing",
        "name: unknown key",
    ):
        assert any(message.startswith(begin) for message in found), (begin, found)
    assert len(found) == 9


@pytest.mark.parametrize("document", [{}, {"nodes": []}])
def test_a_cluster_has_nodes(document: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="nodes: missing; give nodes"):
        parse_cluster(document)


def test_a_table_in_a_file_and_what_else_is_wrong_there() -> None:
    with pytest.raises(InvalidInput) as error:
        parse_cluster({"nodes": "(8cpu,3foo)", "launchable": 3})
    assert [message[:20] for message in problems(error)] == ["nodes: column 7: '3f", "launchable: 3 is not"]


def test_what_is_assumed_is_said() -> None:
    (line,) = assumed(read_cluster("(1cpu,1xA100),(1cpu,1xA100)"))
    assert line == "GPU A100: 40GiB, the smallest of that name (40GiB or 80GiB); say which with its memory"
    (line,) = assumed(read_cluster("(1cpu,1xT4)"))
    assert line == "GPU T4: 15GiB, as the table of models has it"
    assert assumed(read_cluster("(1cpu,1xA100-80GB)")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_files_load_and_can_be_planned_against(path: Path) -> None:
    view = read_cluster(path)
    assert view.nodes
    assert isinstance(plan([Request("r")], view).answers[0], Placement)
    largest = max((gpu.memory or 0 for node in view.nodes for gpu in node.gpus), default=0)
    if largest:
        (answer,) = plan([Request("g", gpus=1, gpu_memory=largest // 2)], view).answers
        assert isinstance(answer, Placement)
        assert answer.gpus <= 1


def test_there_are_files() -> None:
    assert {path.stem for path in FILES} >= {"laptop", "mixed-gpus", "autoscaling", "simulated"}
