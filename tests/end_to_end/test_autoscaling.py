"""Nodes that Ray's autoscaler starts because runs wait for GPU memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from autoscaled import autoscaling_cluster, gpu_type
from conftest import Lab, assert_nothing_left
from support import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def growing(tmp_path: Path, workers: Path, own_cache: Path) -> Iterator[Lab]:
    """A cluster of a head alone, which may grow by nodes of two kinds."""
    kinds = {"gpu24": gpu_type("RTX-4090", 24, 2), "gpu80": gpu_type("A100", 80, 2)}
    with autoscaling_cluster(kinds, workers, MOSAIC_CACHE=str(own_cache)) as cluster:
        made = Lab(tmp_path, cluster.env, cluster.address)
        yield made
        assert_nothing_left(made)


def nodes(lab: Lab) -> list[dict[str, Any]]:
    """The cluster's nodes, without the head."""
    shown = lab.mosaic("cluster", "nodes", "--json", "--address", lab.where[-1])
    assert shown.returncode == 0, shown.stderr
    return [node for node in json.loads(shown.stdout)["nodes"] if not node["is_head"]]


def groups(lab: Lab) -> list[str]:
    """Names of the placement groups that stand for demand."""
    code = (
        "import ray, sys, json\n"
        "from ray.util.placement_group import placement_group_table\n"
        "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
        "print(json.dumps([e['name'] for e in placement_group_table().values() if e['state'] != 'REMOVED']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, lab.where[-1]], env=lab.env, capture_output=True, text=True, check=True
    )
    return [name for name in json.loads(done.stdout.splitlines()[-1]) if name.startswith("mosaic-demand-")]


def test_gpu_memory_brings_up_a_node_that_has_it_and_lets_it_go(growing: Lab) -> None:
    assert nodes(growing) == []
    config = {"steps": 100, "pause": 0.05}
    with growing.start(config, resources={"gpu_memory": "40GiB", "cpus": 1, "memory": "100MiB"}) as process:

        def waits() -> str:
            try:
                status = growing.experiment.status()
            except (OSError, ValueError):
                return ""
            return status["reason"] if status["state"] == "PENDING" and "kind gpu80" in status["reason"] else ""

        assert wait_for(waits, 60, "a run that waits for a node") == "a new node of kind gpu80 would hold it"
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    experiment = growing.experiment
    assert experiment.attempts() == [1]
    entries = [json.loads(path.read_text()) for path in sorted((experiment.path / "journal").iterdir())]
    (placement,) = [entry["placement"] for entry in entries if entry["type"] == "attempt_started"]
    assert placement["node_name"].startswith("gpu80")
    assert placement["gpus"] == 0.5
    assert groups(growing) == []
    wait_for(lambda: nodes(growing) == [], 120, "the idle node to go", every=2.0)


def test_no_more_is_asked_for_once_nobody_waits(growing: Lab) -> None:
    with growing.start({"steps": 10}, resources={"gpu_memory": "20GiB"}, name="given-up") as process:
        wait_for(lambda: groups(growing), 90, "demand", every=1.0)
        growing.mosaic("stop", growing.experiment.path.name)
        process.communicate(timeout=120)
    wait_for(lambda: groups(growing) == [], 60, "the demand to go", every=1.0)
