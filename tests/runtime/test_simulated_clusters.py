"""A real Ray of several nodes on this machine, with pretend GPUs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clusters import Simulated, simulated_cluster
from support import mosaic, wait_for

GIB = 1024**3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Simulated]:
    with simulated_cluster("2x(2cpu,4GiB,2xA100-40GB,name=big,zone=a),(1cpu,1xRTX4090,agents=7,name=small)") as made:
        yield made


@pytest.mark.slow
def test_nodes_are_told_apart_and_killed(cluster: Simulated, tmp_path: Path) -> None:
    def nodes() -> dict[str, dict]:
        done = mosaic("cluster", "nodes", "--address", cluster.address, "--json", env=cluster.env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return {node["name"]: node for node in json.loads(done.stdout)["nodes"]}

    seen = nodes()
    assert set(seen) == {"head", "big-1", "big-2", "small"} == {"head", *cluster.nodes}
    assert seen["head"]["is_head"] and not seen["head"]["cpus"]
    big, small = seen["big-1"], seen["small"]
    assert (big["cpus"], big["memory"], big["labels"]["zone"]) == (2, 4 * GIB, "a")
    assert [(gpu["model"], gpu["memory"], gpu["source"]) for gpu in big["gpus"]] == [("A100", 40 * GIB, "label")] * 2
    assert [(gpu["model"], gpu["memory"]) for gpu in small["gpus"]] == [("RTX 4090", 24 * GIB)]
    assert small["agent_slots"] == 7
    assert {node["address"] for node in seen.values()} == {"127.0.0.2"}
    text = mosaic("cluster", "nodes", "--address", cluster.address, env=cluster.env, cwd=tmp_path).stdout
    assert "A100 40GiB (label), 40GiB free" in text

    cluster.nodes["big-2"].kill()
    wait_for(lambda: not cluster.nodes["big-2"].alive(), 10, "the node to die")
    wait_for(lambda: "big-2" not in nodes(), 60, "a killed node to be noticed", every=0.5)
    assert cluster.nodes["big-1"].alive()


PROBE = """
import json, ray
from mosaic_cluster.runtime import probing
from mosaic_cluster.runtime.node_types import launchable_types
from mosaic_cluster.runtime.probing import GpuProbe
ray.init(address={address!r}, log_to_driver=False)
probing.needs_probe = lambda labels: True
probe = GpuProbe()
first = probe.facts(ray.nodes())
alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
print(json.dumps([len(first), len(alive), probe.facts(ray.nodes(), timeout=0) == first, list(launchable_types())]))
"""


@pytest.mark.slow
def test_each_node_with_gpus_is_asked_and_no_autoscaler_starts_nothing(cluster: Simulated) -> None:
    """The nodes' GPUs are not there: a driver knows nothing of them, which is an answer."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(address=cluster.address)],
        env=cluster.env, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    asked, alive, same, kinds = json.loads(done.stdout)
    assert asked == alive >= 2
    assert same
    assert kinds == []


@pytest.mark.long
def test_nothing_is_left_when_it_ends(tmp_path: Path) -> None:
    with simulated_cluster("(1cpu)") as made:
        top = psutil.Process(made.pid)
        family = top.children(recursive=True)
        text = " ".join(part for process in family for part in process.cmdline())
        folders = set(re.findall(r"/tmp/mc-\w+", text))
        assert len(family) >= 3
        assert folders
    wait_for(lambda: not any(process.is_running() for process in family), 15, "its processes to end")
    assert not [folder for folder in folders if Path(folder).exists()]
