"""Runs whose worker joins the cluster: all of it stays in a placement group, which goes when the attempt does."""

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
from clusters import Simulated, simulated_cluster
from conftest import Lab, assert_nothing_left
from support import processes_of, wait_for

pytestmark = pytest.mark.slow

LOOK = """
import json, ray
from ray.util.placement_group import placement_group_table
ray.init(address=%r, log_to_driver=False, logging_level="ERROR")
for line in iter(input, "end"):
    groups = [each for each in placement_group_table().values() if each["name"][:7] == "mosaic-"]
    nodes = {node["NodeID"]: node["Labels"].get("mosaic/node-name") for node in ray.nodes()}
    on = lambda group: sorted({nodes.get(node) or "" for node in group["bundles_to_node_id"].values()})
    print(json.dumps([[each["name"], each["state"], len(each["bundles"]), on(each)] for each in groups]), flush=True)
"""


class Looker:
    """Looks at a cluster's placement groups, from a process of its own."""

    def __init__(self, address: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOOK % address],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def groups(self, run_id: str) -> list[tuple[str, str, int, list[str]]]:
        """Name, state, number of bundles and nodes of a run's groups that are there."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("["):
            assert line, "the looker has ended"
        found = [tuple(each) for each in json.loads(line)]
        return [each for each in found if run_id in each[0] and each[1] != "REMOVED"]  # type: ignore[misc]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture(scope="module")
def gpus(workers: Path, own_cache: Path) -> Iterator[Simulated]:
    with simulated_cluster(
        "(4cpu,1xRTX4090,name=a),(4cpu,1xRTX4090,name=b)", workers, MOSAIC_CACHE=str(own_cache)
    ) as made:
        yield made


@pytest.fixture(scope="module")
def looker(gpus: Simulated) -> Iterator[Looker]:
    made = Looker(gpus.address, gpus.env)
    yield made
    made.close()


@pytest.fixture
def many(tmp_path: Path, gpus: Simulated) -> Iterator[Lab]:
    made = Lab(tmp_path, gpus.env, gpus.address)
    yield made
    assert_nothing_left(made)


JOINS = {"worker": "joining", "resources": {"cpus": 3}, "limits": {"max_failures": 0}}


def begun(lab: Lab, attempt: int = 1) -> dict[str, Any]:
    """What the worker said when it had started everything."""

    def look() -> dict[str, Any] | None:
        if not lab.experiment_started() or attempt not in lab.experiment.attempts():
            return None
        named = [line for _, line in lab.experiment.lines(attempt) if line.get("event") == "run_started"]
        return next((line["payload"] for line in named if "places" in line["payload"]), None)

    return dict(wait_for(look, 90, "the worker to say where it is"))


def all_gone(lab: Lab, looker: Looker, places: list[dict[str, Any]]) -> None:
    run_id = lab.experiment.run_id
    wait_for(lambda: not looker.groups(run_id), 30, "the placement group to be removed", every=0.2)
    pids = [place["pid"] for place in places]
    wait_for(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], 30, "its actors to end")


def test_all_of_it_is_in_the_group_that_the_plan_counts(many: Lab, looker: Looker) -> None:
    spec = {**JOINS, "resources": {"cpus": 3, "gpu_memory": "12GiB", "labels": {"mosaic/node-name": "b"}}}
    planned = many.mosaic("plan", many.write({"actors": 2}, **spec), *many.where[2:])
    assert "3 CPUs" in planned.stdout, planned.stdout + planned.stderr
    with many.start({"actors": 2, "steps": 60}, **spec) as process:
        said = begun(many)
        ((name, state, bundles, nodes),) = looker.groups(many.experiment.run_id)
        assert (name, state, bundles, nodes) == (f"mosaic-{many.experiment.run_id}-1", "CREATED", 3, ["b"])
        assert process.wait(90) == 0
    assert {place["group"] for place in said["places"]} == {said["group"]}
    assert len(said["places"]) == 3
    assert said["places"][0]["gpus"] == ["0"]
    assert sum(bundle["CPU"] for bundle in said["bundles"]) == 3
    assert [round(bundle.get("GPU", 0), 2) for bundle in said["bundles"]] == [0.5, 0, 0]
    told = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    assert {name for name in said["environ"] if name.startswith("RAY_")} <= told
    all_gone(many, looker, said["places"])


def worker_process(lab: Lab, said: dict[str, Any]) -> int:
    return int(said["pid"])


def worker_actor(lab: Lab, said: dict[str, Any]) -> int:
    """The one process beside the supervisor that holds its pipe."""
    supervisor = lab.experiment.launch()["supervisor_pid"]
    pipe = os.readlink(f"/proc/{supervisor}/fd/0")
    for process in psutil.process_iter():
        try:
            held = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if pipe in held and process.pid != supervisor:
            return process.pid
    raise AssertionError("nobody holds the supervisor's pipe")


def driver(lab: Lab, said: dict[str, Any]) -> int:
    found = json.loads((lab.experiment.path / "experiment.json").read_text())["driver"]["pid"]
    return int(found)


@pytest.mark.parametrize("victim", [worker_process, worker_actor, driver])
def test_it_is_gone_after_kill_9(many: Lab, looker: Looker, victim: Any) -> None:
    with many.start({"actors": 2, "steps": 10_000}, **JOINS) as process:
        said = begun(many)
        assert len(looker.groups(many.experiment.run_id)) == 1
        os.kill(victim(many, said), signal.SIGKILL)
        assert process.wait(60) != 0
        all_gone(many, looker, said["places"])


def test_it_is_gone_after_a_stop(many: Lab, looker: Looker) -> None:
    with many.start({"actors": 1, "steps": 10_000}, **JOINS) as process:
        said = begun(many)
        assert many.mosaic("stop", many.experiment.path.name).returncode == 0
        assert process.wait(60) == 130
        assert many.experiment.outcome()["state"] == "CANCELLED"
        all_gone(many, looker, said["places"])


def test_another_attempt_has_another_group(many: Lab, looker: Looker) -> None:
    with many.start({"actors": 1, "steps": 10_000}, **{**JOINS, "limits": {"max_failures": 1}}):
        said = begun(many)
        os.kill(said["pid"], signal.SIGKILL)
        again = begun(many, attempt=2)
        assert again["group"] != said["group"]
        names = [group[0] for group in looker.groups(many.experiment.run_id)]
        assert names == [f"mosaic-{many.experiment.run_id}-2"]
        assert many.mosaic("stop", many.experiment.path.name).returncode == 0
    assert not processes_of(many.experiment.run_id)


def test_an_embedded_ray_is_joined_likewise(embedded: Lab) -> None:
    done = embedded.run({"actors": 1}, **{**JOINS, "resources": {"cpus": 2}})
    assert done.returncode == 0, done.stdout + done.stderr
    said = begun(embedded)
    assert {place["group"] for place in said["places"]} == {said["group"]}
