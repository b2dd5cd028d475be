"""Real runs with both libraries, in their environments: ``make test-workers``."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mosaic_cluster.worker import WorkerAnalyticsManifest

from marllib_worker.algorithms import ALGORITHMS, SETTINGS, algorithms_of

pytestmark = [pytest.mark.workers, pytest.mark.timeout(900)]

Backends = Callable[[str], Any]
ALL = [(name, algo) for name in SETTINGS for algo in algorithms_of(name)]
SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("marllib", "ppo"): {"rollout_steps": 100, "num_envs": 2, "update_epochs": 2},
    ("marllib", "trpo"): {"rollout_steps": 100, "num_envs": 2},
    ("marllib", "a2c"): {"rollout_steps": 100},
    ("marllib", "ddpg"): {
        "batch_size": 4,
        "parameters": {"learning_starts_episode": 4, "timesteps_per_iteration": 100},
    },
    ("marllib", "q"): {"batch_size": 4, "parameters": {"timesteps_per_iteration": 100}},
    ("benchmarl", "ppo"): {"rollout_steps": 100, "num_envs": 4, "update_epochs": 2, "batch_size": 50},
    **{
        ("benchmarl", family): {"rollout_steps": 100, "num_envs": 4, "update_epochs": 2, "batch_size": 32}
        for family in ("ddpg", "sac", "q")
    },
}
"""What makes a run short, by backend and family."""


def small(name: str, algo: str) -> dict[str, Any]:
    return {"algo": algo, "total_steps": 200, "checkpoint_every": 0, **SMALL[name, ALGORITHMS[algo].family]}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test did, no process and no folder of Ray's is left behind."""
    before = _of_the_dead()
    yield
    left = [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert _of_the_dead() <= before


def _of_the_dead() -> set[str]:
    """Folders of Ray's whose owner has ended; those of tests beside this one are theirs."""
    named = (re.match(r"ml(\d+)-", path.name) for path in Path("/tmp").glob("ml*"))
    return {found.string for found in named if found and not psutil.pid_exists(int(found[1]))}


@pytest.mark.parametrize(("name", "algo"), ALL)
def test_every_algorithm_trains(backend: Backends, tmp_path: Path, name: str, algo: str) -> None:
    """A few iterations: heartbeats, episodes, a checkpoint, a manifest."""
    run = backend(name).start(tmp_path, "--emit-summary", **small(name, algo))
    assert run.wait() == 0, run.errors()
    events = [line["event"] for line in run.lines() if "event" in line]
    assert (events[0], events[-1]) == ("run_started", "run_completed")
    assert run.named("heartbeat")[-1]["step"] >= 200
    assert len(run.returns()) >= 4
    assert all(-400 < each < 0 for each in run.returns())
    saved = run.named("checkpoint_saved")[-1]
    assert saved["step"] == run.named("run_completed")[0]["step"]
    manifest = WorkerAnalyticsManifest.load(tmp_path / "analytics.json")
    assert manifest.artifacts.checkpoints is not None
    assert (tmp_path / manifest.artifacts.checkpoints.final_checkpoint / "mosaic.json").is_file()


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_stop_saves_leaves_nothing_and_a_resume_goes_on(backend: Backends, tmp_path: Path, name: str) -> None:
    settings = {**small(name, "ippo"), "total_steps": 1_000_000}
    run = backend(name).start(tmp_path, **settings)
    while not run.named("heartbeat"):
        assert run.process.poll() is None, run.errors()
        time.sleep(0.2)
    below = psutil.Process(run.process.pid).children(recursive=True)
    assert [address for address in listening([psutil.Process(run.process.pid), *below]) if not loopback(address)] == []
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait(60) == 143, run.errors()
    assert time.monotonic() - began < 30
    assert [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    (cancelled,) = run.named("run_cancelled")
    saved = run.named("checkpoint_saved")[-1]
    assert saved["step"] == cancelled["step"] > 0

    environ = {"MOSAIC_RESUME_FROM": saved["path"]}
    settings["total_steps"] = saved["step"] + 150
    again = backend(name).start(tmp_path / "again", environ=environ, **settings)
    assert again.wait() == 0, again.errors()
    assert again.named("checkpoint_loaded") == [{"path": saved["path"], "step": saved["step"]}]
    steps = [each["step"] for each in again.named("heartbeat")]
    assert saved["step"] < steps[0] <= saved["step"] + 100
    assert saved["step"] + 150 <= steps[-1] < saved["step"] + 300
    refused = backend(name).start(tmp_path / "other", environ=environ, **{**settings, **small(name, "mappo")})
    assert refused.wait() == 2
    assert "was made with 'ippo'" in refused.errors()


def listening(processes: list[psutil.Process]) -> list[str]:
    """Addresses that processes accept connections at."""
    found = [each for process in processes for each in process.net_connections("inet")]
    return [each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN]


def loopback(address: str) -> bool:
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_seed_gives_the_same_run(backend: Backends, tmp_path: Path, name: str) -> None:
    one, two, other = (
        backend(name).start(tmp_path / folder, **{**small(name, "ippo"), "seed": seed})
        for folder, seed in (("one", 3), ("two", 3), ("other", 4))
    )
    assert [run.wait() for run in (one, two, other)] == [0, 0, 0], one.errors()
    assert one.returns() == two.returns()
    assert one.returns() != other.returns()


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_dry_run_checks_the_librarys_own_settings(backend: Backends, tmp_path: Path, name: str) -> None:
    good = backend(name).start(tmp_path / "good", "--dry-run", **small(name, "mappo"))
    bad = backend(name).start(tmp_path / "bad", "--dry-run", algo="mappo", parameters={"no_such_thing": 1})
    assert good.wait() == 0, good.errors()
    assert sorted(path.name for path in good.folder.iterdir()) == ["config.json", "err", "out"]
    assert bad.wait() == 2
    assert "no_such_thing" in bad.errors()


PLAY = """
import json, sys
import numpy as np
from marllib_worker.policy import load_policy
policy = load_policy(sys.argv[1], game="simple_spread_v3", agent="agent_1")
rows = np.random.RandomState(0).uniform(-1, 1, (6, 18)).astype("float32")
policy.reset(0)
batch = policy.act_batch(rows)
print(json.dumps({"batch": batch.tolist(), "single": [policy.act(row) for row in rows], "games": policy.games}))
"""


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("algo", ["ippo", "qmix"])
def test_a_checkpoint_is_a_policy(backend: Backends, tmp_path: Path, name: str, algo: str) -> None:
    run = backend(name).start(tmp_path, **small(name, algo))
    assert run.wait() == 0, run.errors()
    (tmp_path / "play").mkdir()
    played = backend(name).python(tmp_path / "play", "-c", PLAY, run.named("checkpoint_saved")[-1]["path"])
    assert played.wait() == 0, played.errors()
    found = json.loads((tmp_path / "play" / "out").read_text().splitlines()[-1])
    assert found["batch"] == found["single"]
    assert set(found["batch"]) <= set(range(5))
    assert found["games"] == ["simple_spread_v3"]


def test_the_interpreter_of_marllib_is_old(backend: Backends, tmp_path: Path) -> None:
    run = backend("marllib").python(tmp_path, "-c", "import sys, ray; print(sys.version_info[:2], ray.__version__)")
    assert run.wait() == 0, run.errors()
    assert (tmp_path / "out").read_text().split() == ["(3,", "9)", "1.8.0"]
    assert "RAY_ADDRESS" not in os.environ
