"""One attempt, as every backend runs it: its environment, its checkpoint, its refusal to run blind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ulid import ULID

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.attempt import Attempt, finish_attempt
from mosaic_cluster.runtime.backend import AttemptOrder, WorkerLaunch
from mosaic_cluster.runtime.checkpoints import Checkpoint, last_checkpoint
from mosaic_cluster.runtime.environment import GPU_CONTEXT, THREAD_VARIABLES, attempt_environment
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits

RUN = str(ULID())  # each process of the test suite has its own: processes are found by it


def order(folder: Path, *, gpus: float = 0.0, cpus: float = 1.0, attempt: int = 1, **environment: str) -> AttemptOrder:
    return AttemptOrder(
        experiment_id="e",
        experiment_dir=str(folder),
        run_id=RUN,
        attempt=attempt,
        worker=WorkerLaunch("w", "w", True, supports_checkpointing=True, command=("/bin/true",)),
        config={"a": 1},
        seed=7,
        placement=Placement(RUN, "id", "node", cpus, gpus=gpus),
        limits=Limits(),
        environment=environment,
    )


def test_threads_follow_the_cpus(tmp_path: Path) -> None:
    found = attempt_environment(order(tmp_path, cpus=2.5), {"OMP_NUM_THREADS": "64"}, None)
    assert {found[name] for name in THREAD_VARIABLES} == {"2"}
    assert attempt_environment(order(tmp_path, cpus=0.5), {}, None)["OMP_NUM_THREADS"] == "1"


def test_no_gpu_granted_no_gpu_seen(tmp_path: Path) -> None:
    base = {"CUDA_VISIBLE_DEVICES": "3"}
    assert attempt_environment(order(tmp_path), base, None)["CUDA_VISIBLE_DEVICES"] == ""
    assert attempt_environment(order(tmp_path, gpus=0.5), base, None)["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_specs_environment_wins_but_not_over_ours(tmp_path: Path) -> None:
    given = order(tmp_path, OMP_NUM_THREADS="4", MOSAIC_RUN_ID="another", MOSAIC_RESUME_FROM="/elsewhere")
    found = attempt_environment(given, {"RAY_JOB_ID": "1", "KEPT": "yes"}, None)
    assert found["OMP_NUM_THREADS"] == "4"
    assert found["MOSAIC_RUN_ID"] == RUN
    assert "MOSAIC_RESUME_FROM" not in found
    assert "RAY_JOB_ID" not in found
    assert found["KEPT"] == "yes"
    resumed = attempt_environment(given, {}, Checkpoint("/c.pt", 5, 1, 0))
    assert resumed["MOSAIC_RESUME_FROM"] == "/c.pt"


GIB = 1 << 30


def shared(folder: Path, share: float = 0.25, memory: int = 20 * GIB, **environment: str) -> AttemptOrder:
    placement = Placement(RUN, "id", "node", 2.5, gpus=share, gpu_memory=memory, agents=3)
    return replace(order(folder, **environment), placement=placement)


def test_a_share_of_a_gpu_is_told_to_every_library(tmp_path: Path) -> None:
    found = attempt_environment(shared(tmp_path), {"CUDA_VISIBLE_DEVICES": "1"}, None)
    assert (found["MOSAIC_CPUS"], found["MOSAIC_AGENTS"]) == ("2.5", "3")
    assert found["MOSAIC_GPU_MEMORY"] == str(20 * GIB)
    assert found["MOSAIC_GPU_MEMORY_CAP"] == str(20 * GIB - GPU_CONTEXT)
    fraction = float(found["XLA_PYTHON_CLIENT_MEM_FRACTION"])
    assert fraction * 80 * GIB <= 20 * GIB - GPU_CONTEXT < (fraction + 0.0001) * 80 * GIB
    assert (found["XLA_PYTHON_CLIENT_PREALLOCATE"], found["TF_FORCE_GPU_ALLOW_GROWTH"]) == ("false", "true")
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    small = attempt_environment(shared(tmp_path, 0.0125, GIB), {}, None)
    assert int(small["MOSAIC_GPU_MEMORY_CAP"]) == GIB // 2


@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_whole_gpus_have_no_cap(tmp_path: Path, gpus: float) -> None:
    base = {"MOSAIC_GPU_MEMORY_CAP": "1", "MOSAIC_GPU_MEMORY": "1"}
    found = attempt_environment(order(tmp_path, gpus=gpus), base, None)
    assert not {name for name in found if "MEM_FRACTION" in name or name.startswith("MOSAIC_GPU")}


def test_who_is_only_warned_has_no_cap(tmp_path: Path) -> None:
    lenient = replace(shared(tmp_path), limits=Limits(on_excess="warn"))
    found = attempt_environment(lenient, {}, None)
    assert not {"MOSAIC_GPU_MEMORY_CAP", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & found.keys()
    assert found["MOSAIC_GPU_MEMORY"] == str(20 * GIB)


def test_a_specs_own_fraction_wins(tmp_path: Path) -> None:
    found = attempt_environment(shared(tmp_path, XLA_CLIENT_MEM_FRACTION="0.1"), {}, None)
    assert found["XLA_CLIENT_MEM_FRACTION"] == "0.1"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in found
    found = attempt_environment(shared(tmp_path, XLA_PYTHON_CLIENT_MEM_FRACTION="0.2"), {}, None)
    assert found["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.2"


def announce(folder: Path, attempt: int, *paths: str) -> None:
    log = folder / "attempts" / str(attempt) / "stdout.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"event": "checkpoint_saved", "payload": {"path": path, "step": int(path)}} for path in paths]
    log.write_text("noise\n" + "".join(json.dumps(line) + "\n" for line in lines) + '{"event":"checkpoint_saved"\n')


def test_the_last_checkpoint_that_is_still_there(tmp_path: Path) -> None:
    announce(tmp_path, 1, "5", "10", "15")
    announce(tmp_path, 2, "20")
    for name in ("5", "10"):
        (tmp_path / name).write_text("x")
    (tmp_path / "15").write_text("")  # announced, but empty: of no use
    found = last_checkpoint(tmp_path, 3)
    assert found is not None
    assert (found.path, found.step, found.attempt) == (str(tmp_path / "10"), 10, 1)
    log = (tmp_path / "attempts" / "1" / "stdout.log").read_bytes()
    assert json.loads(log[found.offset :].splitlines()[0])["payload"]["step"] == 10
    assert last_checkpoint(tmp_path, 1) is None
    assert last_checkpoint(tmp_path / "nothing", 3) is None


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    service = HubService(Storage.open(tmp_path / "experiment" / "telemetry"), on_fenced=lambda: None)
    yield service
    service.close()


def test_a_node_that_does_not_see_the_storage(tmp_path: Path, hub: HubService) -> None:
    result = Attempt(order(tmp_path / "experiment"), hub).run()
    assert (result.outcome.state, result.outcome.code) == ("FAILED", "start_failed")
    assert "every node mounts" in result.outcome.message
    assert not (tmp_path / "experiment" / "runs").exists()


def test_a_stop_before_the_start(tmp_path: Path, hub: HubService) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir(exist_ok=True)
    (folder / "experiment.json").write_text("{}")
    attempt = Attempt(order(folder), hub)
    attempt.stop("cancelled", "too late")
    result = attempt.run()
    assert (result.outcome.state, result.outcome.message) == ("CANCELLED", "too late")
    assert result.committed == result.log_bytes > 0


def test_an_attempt_and_its_closing_again(tmp_path: Path, hub: HubService) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir(exist_ok=True)
    (folder / "experiment.json").write_text("{}")
    given = order(folder)
    result = Attempt(given, hub).run()
    assert result.outcome.state == "COMPLETED"
    assert result.committed == result.log_bytes > 0
    assert json.loads((given.run_dir / "config.json").read_text()) == {"a": 1, "run_id": RUN, "seed": 7}
    assert finish_attempt(given, 1, hub).outcome == result.outcome
