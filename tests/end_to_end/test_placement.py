"""Real runs on real Ray clusters of many nodes, whose GPUs are pretended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import Simulated, simulated_cluster
from conftest import Lab, assert_nothing_left
from support import assert_tables_equal_logs, processes_of, started, wait_for, write_spec

# In one process, for the clusters of this file take a minute to start.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("placement")]

GPUS = "2x(2cpu,1xRTX4090,name=small),(4cpu,2xA100-80GB,name=big)"
SPARE = "4x(2cpu,1xRTX4090,name=node)"


@pytest.fixture(scope="module")
def gpus(workers: Path, own_cache: Path) -> Iterator[Simulated]:
    """Three nodes with GPUs of two models."""
    with simulated_cluster(GPUS, workers, MOSAIC_CACHE=str(own_cache)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def spare(workers: Path, own_cache: Path) -> Iterator[Simulated]:
    """More nodes than the tests of this file break."""
    with simulated_cluster(SPARE, workers, MOSAIC_CACHE=str(own_cache)) as cluster:
        yield cluster


@pytest.fixture
def mixed(tmp_path: Path, gpus: Simulated) -> Iterator[Lab]:
    made = Lab(tmp_path, gpus.env, gpus.address)
    yield made
    assert_nothing_left(made)


@pytest.fixture
def fragile(tmp_path: Path, spare: Simulated) -> Iterator[Lab]:
    made = Lab(tmp_path, spare.env, spare.address)
    yield made
    assert_nothing_left(made)


def sweep(config: dict[str, Any], runs: int, **more: Any) -> dict[str, Any]:
    """A sweep of equal runs."""
    return {
        "kind": "sweep",
        "name": "equal",
        "worker": "scripted",
        "config": config,
        "space": {"episode_every": {"choice": [1000]}},
        "metric": {"name": "value"},
        "search": "grid",
        "seeds": list(range(runs)),
        "telemetry": {"bridges": {"tensorboard": False}},
        **more,
    }


def placements(lab: Lab) -> list[dict[str, Any]]:
    """Where the attempts of the one experiment were started, in order."""
    entries = [json.loads(path.read_text()) for path in sorted((lab.experiment.path / "journal").iterdir())]
    return [entry["placement"] for entry in entries if entry["type"] == "attempt_started"]


ENDLESS = {"steps": 100_000, "pause": 0.02}
"""Longer than any command takes on a busy machine: such a run is stopped at its end."""


def end(lab: Lab, process: subprocess.Popen[str]) -> None:
    """Stop the one experiment of a lab."""
    assert lab.mosaic("stop", lab.experiment.path.name).returncode == 0
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output


def variables_of(run_id: str) -> dict[str, str]:
    """Environment of a run's worker process; empty while it has none."""
    for process in processes_of(run_id):
        try:
            values = process.environ()
        except psutil.Error:
            continue
        if "MOSAIC_CPUS" in values:
            return values
    return {}


def test_each_run_gets_its_model_and_its_share(mixed: Lab) -> None:
    document = sweep(
        {"steps": 200, "pause": 0.05}, 5, resources={"cpus": 0.5, "memory": "100MiB", "gpu_memory": "30GiB"}
    )
    with _started(mixed, document) as process:
        wait_for(lambda: mixed.run_ids() and len(mixed.run_ids()) >= 4, 60, "four runs")
        seen: dict[str, dict[str, str]] = {}

        def all_seen() -> bool:
            for run_id in mixed.run_ids():
                seen.setdefault(run_id, {}) or seen.update({run_id: variables_of(run_id)})
            return sum(bool(values) for values in seen.values()) >= 4

        wait_for(all_seen, 60, "four workers at once")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    made = placements(mixed)
    # 30GiB fit an A100 only, and two of them do.
    assert {each["node_name"] for each in made} == {"big"}
    assert {each["accelerator"] for each in made} == {"A100"}
    assert all(0.37 < each["gpus"] <= 0.38 for each in made), made
    assert Counter(each["gpu_indices"][0] for each in made[:4]) == {0: 2, 1: 2}
    running = [values for values in seen.values() if values]
    assert {values["CUDA_VISIBLE_DEVICES"] for values in running} == {"0", "1"}
    assert {values["MOSAIC_GPU_MEMORY"] for values in running} == {str(30 << 30)}
    assert {values["OMP_NUM_THREADS"] for values in running} == {"1"}


def _started(lab: Lab, document: dict[str, Any]) -> Any:
    return started("run", write_spec(lab.folder, document), *lab.where, env=lab.env, cwd=lab.folder)


def test_what_can_never_run_is_refused_with_every_reason(mixed: Lab) -> None:
    done = mixed.run(resources={"gpu_memory": "100GiB", "cpus": 64, "accelerator": "H100"})
    assert done.returncode == 2
    assert "cpus 64" in done.stderr
    assert "gpu_memory 100GiB" in done.stderr
    assert "accelerator H100" in done.stderr
    assert mixed.run_ids() == []


def test_what_waits_says_why_and_since_when(mixed: Lab) -> None:
    document = sweep({"steps": 150, "pause": 0.05}, 3, resources={"gpus": 1, "accelerator": "RTX 4090"})
    with _started(mixed, document) as process:

        def waiting() -> list[dict[str, Any]]:
            try:
                runs = json.loads((mixed.experiment.path / "status.json").read_text())["runs"]
            except (OSError, ValueError):
                return []
            return [run for run in runs if run["state"] == "PENDING" and "waiting for a whole GPU" in run["reason"]]

        (run,) = wait_for(waiting, 60, "a run that waits")
        assert "RTX 4090" in run["reason"] or "small" in run["reason"]
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert sorted(each["node_name"] for each in placements(mixed)[:2]) == ["small-1", "small-2"]


def test_a_population_is_placed_as_a_gang(mixed: Lab) -> None:
    done = mixed.run({"steps": 5}, population={"agents": 3, "strategy": "spread"}, resources={"cpus": 1})
    assert done.returncode == 0, done.stdout + done.stderr
    made = placements(mixed)
    assert {each["gang"] for each in made} == {"population"}
    assert len({each["node_name"] for each in made}) == 3


def test_who_has_priority_gets_the_next_free_places(mixed: Lab, tmp_path: Path) -> None:
    """Of two places, none is given to runs that waited before while one of higher priority waits."""
    urgent = Lab(tmp_path / "urgent", mixed.env, mixed.where[-1])
    urgent.folder.mkdir()
    wanted = {"resources": {"gpus": 1, "accelerator": "RTX 4090", "memory": "50MiB"}}
    with _started(mixed, sweep({"steps": 60, "pause": 0.05}, 10, **wanted)) as process:
        wait_for(lambda: len(_starts(mixed)) >= 2, 60, "the first two runs")
        with _started(urgent, sweep({"steps": 10}, 3, priority=5, **wanted)) as first:
            output, _ = first.communicate(timeout=120)
        assert first.returncode == 0, output
        # The others still wait: they do after every urgent run has started.
        waiting = 10 - len(_starts(mixed))
        mixed.mosaic("stop", mixed.experiment.path.name)
        process.communicate(timeout=60)
    assert waiting > 0
    began, ended = min(_starts(urgent)), max(_starts(urgent))
    assert len(_starts(urgent)) == 3
    assert [at for at in _starts(mixed) if began < at < ended] == []
    assert_nothing_left(urgent)


def _starts(lab: Lab) -> list[float]:
    """When attempts of the one experiment were started."""
    try:
        entries = [json.loads(path.read_text()) for path in (lab.experiment.path / "journal").iterdir()]
    except (OSError, ValueError):
        return []
    return [entry["at"] for entry in entries if entry["type"] == "attempt_started"]


def test_nodes_show_who_is_where(mixed: Lab) -> None:
    with mixed.start(ENDLESS, resources={"gpu_memory": "60GiB"}) as process:
        wait_for(lambda: mixed.experiment_started() and mixed.experiment.reached(3), 60, "the run")
        shown = mixed.mosaic("cluster", "nodes", "--json", "--address", mixed.where[-1])
        assert shown.returncode == 0, shown.stderr
        view = json.loads(shown.stdout)
        (holding,) = view["holdings"]
        assert holding["placement"]["run_id"] == mixed.experiment.run_id
        (big,) = [node for node in view["nodes"] if node["name"] == "big"]
        assert sorted(gpu["free"] for gpu in big["gpus"]) == [0.25, 1.0]
        end(mixed, process)


def test_an_allocator_that_is_killed_knows_again(mixed: Lab, gpus: Simulated) -> None:
    with mixed.start(ENDLESS, resources={"gpu_memory": "60GiB"}) as process:
        wait_for(lambda: mixed.experiment_started() and mixed.experiment.reached(3), 60, "the run")
        allocators = [
            each for each in psutil.process_iter(["cmdline"])
            if "ray::AllocatorActor" in " ".join(each.info["cmdline"] or ())
            and any(mine.pid == each.pid for mine in psutil.Process(gpus.pid).children(recursive=True))
        ]  # fmt: skip
        (allocator,) = allocators
        os.kill(allocator.pid, signal.SIGKILL)

        def told() -> list[Any]:
            shown = mixed.mosaic("cluster", "nodes", "--json", "--address", mixed.where[-1])
            return json.loads(shown.stdout)["holdings"] if shown.returncode == 0 else []

        (holding,) = wait_for(told, 60, "the allocator to know the run")
        assert holding["placement"]["run_id"] == mixed.experiment.run_id
        end(mixed, process)
    assert mixed.experiment.attempts() == [1]


def test_runs_of_a_node_that_dies_go_on_elsewhere(fragile: Lab, spare: Simulated) -> None:
    config = {"steps": 400, "pause": 0.02, "checkpoint_every": 10}
    with fragile.start(config, limits={"max_failures": 0}, resources={"gpu_memory": "20GiB"}) as process:
        wait_for(lambda: fragile.experiment_started() and fragile.experiment.reached(40), 60, "step 40")
        node = fragile.experiment.status()["node"]
        spare.nodes[node].kill()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    experiment = fragile.experiment
    status = experiment.status()
    assert (status["attempt"], status["failures"]) == (2, 0)
    assert status["node"] != node
    first = json.loads((experiment.run_dir / "analytics.json").read_text())["metadata"]["mosaic"]["attempts"][0]
    assert first["outcome"]["code"] == "node_lost", first
    assert experiment.lines(2)[0][1]["payload"]["resumed_from_step"] >= 30
    assert_tables_equal_logs(experiment)


def test_a_drained_node_is_left(fragile: Lab, spare: Simulated) -> None:
    with fragile.start({**ENDLESS, "checkpoint_every": 10}, limits={"max_failures": 0}) as process:
        wait_for(lambda: fragile.experiment_started() and fragile.experiment.reached(20), 60, "step 20")
        node = fragile.experiment.status()["node"]
        _drain(spare, node)
        wait_for(lambda: '"heartbeat"' in fragile.experiment.text(2), 90, "it to go on elsewhere")
        end(fragile, process)
    status = fragile.experiment.status()
    assert (status["attempt"], status["failures"]) == (2, 0)
    assert status["node"] != node
    assert fragile.experiment.outcome(1)["message"] == f"node {node} is being drained"
    assert fragile.experiment.lines(2)[0][1]["payload"]["resumed_from_step"] >= 10


def _drain(cluster: Simulated, node: str) -> None:
    code = (
        "import ray, sys\n"
        "ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "(found,) = [n['NodeID'] for n in ray.nodes() if n['Labels'].get('mosaic/node-name') == sys.argv[2]]\n"
        "print(found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cluster.address, node], env=cluster.env, capture_output=True, text=True, check=True
    )
    node_id = done.stdout.split()[-1]
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address,
        "--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test",
        "--deadline-remaining-seconds", "300",
    ]  # fmt: skip
    subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=True)


def test_a_node_that_breaks_runs_is_kept_off(fragile: Lab) -> None:
    document = sweep(
        {"steps": 10, "pause": 0.3, "fail_on": "node-4", "raise_text": "ImportError: libGL.so.1"},
        12, resources={"cpus": 1, "memory": "100MiB"}, limits={"max_failures": 0},
    )  # fmt: skip
    with _started(fragile, document) as process:
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    status = json.loads((fragile.experiment.path / "status.json").read_text())
    assert {run["state"] for run in status["runs"]} == {"COMPLETED"}
    (kept,) = status["quarantine"]
    assert kept["node"] == "node-4"
    assert "ImportError: libGL.so.1" in kept["reason"]
    assert "node node-4 is kept off" in fragile.mosaic("status").stdout


def test_a_gang_that_does_not_fit_waits_whole(mixed: Lab, tmp_path: Path) -> None:
    """Three of four members would fit beside the run that is there: none starts until all can."""
    other = Lab(tmp_path / "other", mixed.env, mixed.where[-1])
    other.folder.mkdir()
    long = {"steps": 200, "pause": 0.05}
    with other.start(long, resources={"gpus": 2, "accelerator": "A100"}, name="first") as first:
        wait_for(lambda: other.experiment_started() and other.experiment.reached(3), 60, "the first run")
        with mixed.start({"steps": 5}, population={"agents": 4}, resources={"gpus": 1}, name="gang") as gang:

            def waiting() -> list[str]:
                try:
                    runs = json.loads((mixed.experiment.path / "status.json").read_text())["runs"]
                except (OSError, ValueError):
                    return []
                assert all(run["state"] == "PENDING" for run in runs) or first.poll() is not None
                return [run["reason"] for run in runs if "gang of 4: 2 of 4 would fit now" in run["reason"]]

            assert len(wait_for(waiting, 60, "a gang that waits")) == 4
            other.mosaic("stop", other.experiment.path.name)
            first.communicate(timeout=60)
            output, _ = gang.communicate(timeout=90)
        assert gang.returncode == 0, output
    assert len(placements(mixed)) == 4
    assert_nothing_left(other)


@pytest.mark.long
def test_two_experiments_share_by_weight(mixed: Lab, tmp_path: Path) -> None:
    """Of eight CPUs, an experiment of weight 3 has six while one of weight 1 waits beside it."""
    labs = {name: Lab(tmp_path / name, mixed.env, mixed.where[-1]) for name in ("light", "heavy")}
    running = []
    for (name, lab), (weight, runs) in zip(labs.items(), ((1, 24), (3, 40)), strict=True):
        lab.folder.mkdir()
        small = {"cpus": 1, "memory": "50MiB"}
        document = sweep({"steps": 60, "pause": 0.05}, runs, resources=small, weight=weight)
        running.append(_started(lab, {**document, "name": name}))
    with running[0] as light, running[1] as heavy:
        for process in (light, heavy):
            output, _ = process.communicate(timeout=170)
            assert process.returncode == 0, output
    spans = {name: _spans(lab) for name, lab in labs.items()}
    # From when both have started until one has nothing left to start.
    begin = max(min(start for start, _ in each) for each in spans.values()) + 4.0
    end = min(max(start for start, _ in each) for each in spans.values())
    assert end - begin > 5, spans
    held = {
        name: sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in each) / (end - begin)
        for name, each in spans.items()
    }
    # Six and two on average; what has just ended is free for a moment, and a run is not taken back.
    assert 2.0 <= held["heavy"] / held["light"] <= 4.5, held
    for lab in labs.values():
        assert_nothing_left(lab)


def _spans(lab: Lab) -> list[tuple[float, float]]:
    """When each attempt of an experiment started and ended."""
    entries = [json.loads(path.read_text()) for path in sorted((lab.experiment.path / "journal").iterdir())]
    starts = {entry["run_id"]: entry["at"] for entry in entries if entry["type"] == "attempt_started"}
    ends = {entry["run_id"]: entry["at"] for entry in entries if entry["type"] == "attempt_ended"}
    return [(starts[run], ends[run]) for run in starts]
