"""What is asked of Ray's autoscaler is taken back: at a kind's limit, and whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from autoscaled import autoscaling_cluster, gpu_type
from conftest import Lab, assert_nothing_left
from support import Cluster, kill_tree, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

TYPES = {"gpu24": gpu_type("RTX4090", 24, most=2), "gpu80": gpu_type("A100", 80, most=1)}
LOOK = """
import json, sys
import ray
from ray.util.placement_group import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
alive = [node["Labels"]["mosaic/node-name"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
groups = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
print(json.dumps({"nodes": alive, "groups": groups}))
"""


@pytest.fixture(scope="module")
def growing(workers: Path, own_cache: Path) -> Iterator[Cluster]:
    """A head without GPUs, and two kinds of nodes that may be started."""
    with autoscaling_cluster(TYPES, workers, MOSAIC_CACHE=str(own_cache)) as cluster:
        yield cluster


@pytest.fixture
def lab(tmp_path: Path, growing: Cluster) -> Iterator[Lab]:
    made = Lab(tmp_path, growing.env, growing.address)
    yield made
    assert_nothing_left(made)
    wait_for(lambda: look(growing) == {"nodes": [], "groups": []}, 90, "the cluster to be empty again")


def look(cluster: Cluster) -> dict[str, list[str]]:
    """Nodes with GPUs that live, and placement groups."""
    command = [sys.executable, "-c", LOOK, cluster.address]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def reason(lab: Lab) -> str:
    """What the one run's status says."""
    try:
        return str(lab.experiment.status()["reason"])
    except (OSError, ValueError):
        return ""


def waits_for_a_node(lab: Lab) -> bool:
    return reason(lab) == "a new node of kind gpu80 would hold it"


def placement(lab: Lab) -> dict[str, Any]:
    """Where the one run's first attempt was started."""
    entries = [json.loads(path.read_text()) for path in sorted((lab.experiment.path / "journal").iterdir())]
    (found,) = [entry["placement"] for entry in entries if entry["type"] == "attempt_started"]
    return dict(found)


def test_the_last_node_of_its_kind_is_let_go_too(lab: Lab, growing: Cluster) -> None:
    with lab.start({"steps": 100, "pause": 0.02}, resources={"gpu_memory": "40GiB"}) as process:
        wait_for(lambda: waits_for_a_node(lab), 90, "the reason why it waits")
        wait_for(lambda: lab.experiment_started() and lab.experiment.reached(3), 90, "the run")
        seen = look(growing)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    # There may be no other node of that kind now; the demand is gone all the same as soon as the run has a place.
    assert [name.partition("-")[0] for name in seen["nodes"]] == ["gpu80"]
    assert seen["groups"] == []
    made = placement(lab)
    assert made["node_name"] == seen["nodes"][0]
    assert (made["accelerator"], made["gpus"]) == ("A100", 0.5)


def test_an_allocator_that_is_killed_takes_its_demand_back(lab: Lab, growing: Cluster) -> None:
    with lab.start({"steps": 10}, resources={"gpu_memory": "40GiB"}) as process:
        wait_for(lambda: waits_for_a_node(lab), 90, "the reason why it waits")
        wait_for(lambda: look(growing)["groups"], 30, "the demand")
        _kill_allocator(growing)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    # The fixture: what the first allocator asked for is gone, too.


def test_a_driver_that_is_killed_keeps_no_node_up(lab: Lab, growing: Cluster) -> None:
    with lab.start({"steps": 10}, resources={"gpu_memory": "40GiB"}) as process:
        wait_for(lambda: waits_for_a_node(lab), 90, "the reason why it waits")
        wait_for(lambda: look(growing)["groups"], 30, "the demand")
        kill_tree(process.pid)
    assert lab.experiment.status()["attempt"] == 0
    # The fixture: nobody asks the allocator any more, and yet the demand ends, and then the node.


def _kill_allocator(cluster: Cluster) -> None:
    (allocator,) = [
        each for each in psutil.Process(cluster.pid).children(recursive=True)
        if "ray::AllocatorActor" in " ".join(each.cmdline())
    ]  # fmt: skip
    os.kill(allocator.pid, signal.SIGKILL)
