"""Runs whose worker has an environment of its own, from `mosaic run` to their end."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Lab, assert_nothing_left
from support import FIXTURES, environment, install, wait_for

from mosaic_cluster.app.listing import list_experiments
from mosaic_cluster.catalog.environments import find_interpreter
from mosaic_cluster.worker.errors import EnvironmentFailed

HOUSED = FIXTURES / "workers" / "housed_worker"
KEEPS_STANDING = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.05)"


def have(minor: str) -> bool:
    try:
        return bool(find_interpreter([minor]))
    except EnvironmentFailed:
        return False


def housed(folder: Path, toml: str | None = None) -> Path:
    """The worker as if installed, with another ``environment.toml`` if one is given."""
    packages = install(folder / "packages", HOUSED, "housed", "housed_worker:get_worker_metadata")
    if toml is not None:
        (packages / "housed_worker" / "environment.toml").write_text(textwrap.dedent(toml))
    return packages


@pytest.fixture
def lab(inline: Lab, tmp_path: Path) -> Iterator[Lab]:
    """A lab whose variables are none that a worker may see."""
    inline.env.update(
        PYTHONPATH=str(tmp_path / "packages"),
        MOSAIC_CACHE=str(tmp_path / "cache"),
        RAY_NAMESPACE="ours",
        VIRTUAL_ENV="/elsewhere",
        PYTHONUSERBASE="/elsewhere",
    )
    return inline


def first_event(lab: Lab, attempt: int = 1) -> dict[str, Any]:
    lines = [line for _, line in lab.experiment.lines(attempt)]
    payload: dict[str, Any] = next(line["payload"] for line in lines if line["event"] == "run_started")
    return payload


def assert_at_home(seen: dict[str, Any], cache: Path, made: Path) -> None:
    """The contract, its own code and its environment, and nothing else of what is installed beside mosaic_cluster."""
    assert seen["executable"] == str(made / "bin" / "python")
    ours = [Path(each) for each in seen["path"] if each and Path(each).is_relative_to(cache)]
    assert sorted(path.relative_to(cache).parts[0] for path in ours if path.parts[-3:-1] != made.parts[-2:]) == [
        "code", "contract", "environments"
    ]  # fmt: skip
    assert seen["distributions"] == ["housed_worker"]
    assert seen["own_version"] == "1.0.0"
    assert not any("site-packages" in each and not each.startswith(str(made)) for each in seen["path"])


@pytest.mark.skipif(not have("3.8"), reason="needs a Python 3.8")
def test_a_run_in_a_python_that_is_not_ours(lab: Lab, tmp_path: Path) -> None:
    housed(tmp_path)
    done = lab.run(worker="housed", environment={"NUMBA_NUM_THREADS": "3"})
    assert done.returncode == 0, done.stderr + done.stdout
    seen = first_event(lab)
    assert seen["python"].startswith("3.8.")
    cache = tmp_path / "cache"
    made = next((cache / "environments").glob("housed.old-*")).resolve()
    assert_at_home(seen, cache, made)
    variables = seen["variables"]
    assert variables["VIRTUAL_ENV"] == str(made)
    assert variables["PATH"].startswith(f"{made}/bin{os.pathsep}")
    # The worker's own declaration holds, and the spec's wins over it.
    assert (variables["HOUSE"], variables["NUMBA_NUM_THREADS"]) == ("old", "3")
    assert not {"RAY_NAMESPACE", "PYTHONUSERBASE"} & variables.keys()
    assert variables["PYTHONNOUSERSITE"] == "1"
    assert (made / "furniture").read_text() == "x"
    assert "builds the environment of housed.old: step" in done.stdout + done.stderr


SLOWLY = """
    [[environment]]
    [[environment.steps]]
    name = "building the house"
    run = ["python", "-c", '''{script}''', "{go}"]
"""


def builders(folder: Path) -> list[psutil.Process]:
    found = []
    for each in psutil.process_iter():
        try:
            if str(folder) in each.environ().get("MOSAIC_BUILDS", "") and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


def test_a_build_is_why_a_run_is_starting_and_a_stop_ends_it(lab: Lab, tmp_path: Path) -> None:
    housed(tmp_path, SLOWLY.format(script=KEEPS_STANDING, go=tmp_path / "go"))
    with lab.start(worker="housed") as process:
        wait_for(lambda: (tmp_path / "results").exists() and builds(lab), 60, "the build to be told of")
        status = lab.experiment.status()
        assert status["state"] == "STARTING"
        assert "builds the environment of housed: step 2 of 2, building the house (" in status["reason"]
        (listed,) = list_experiments(str(tmp_path / "results"))[1]
        assert "step 2 of 2, building the house" in listed["reason"]
        asked = lab.mosaic("stop", "latest")
        assert asked.returncode == 0, asked.stderr
        process.wait(30)
    assert lab.experiment.status()["state"] == "CANCELLED"
    assert not builders(tmp_path)


def builds(lab: Lab) -> bool:
    try:
        return "building the house" in lab.experiment.status()["reason"]
    except (OSError, ValueError, LookupError):
        return False


def test_a_build_that_fails_is_the_runs_end(lab: Lab, tmp_path: Path) -> None:
    housed(
        tmp_path,
        """
        [[environment]]
        [[environment.steps]]
        run = ["python", "-c", "import a_library_that_is_not_there"]
        """,
    )
    done = lab.run(worker="housed", limits={"max_failures": 3})
    assert done.returncode == 1
    status = lab.experiment.status()
    assert (status["state"], status["code"]) == ("FAILED", "environment_failed")
    assert status["reason"].startswith("the environment of housed cannot be built: step 2 of 2, python -c")
    assert "it said: ModuleNotFoundError: No module named 'a_library_that_is_not_there'" in status["reason"]
    assert lab.experiment.attempts() == [1]  # here it would not go better the next time
    said = (lab.experiment.run_dir / "attempts" / "1" / "stderr.log").read_text()
    assert "  command: " in said
    assert said.rstrip().endswith("build.log")


@pytest.mark.long
@pytest.mark.skipif(not have("3.8"), reason="needs a Python 3.8")
@pytest.mark.parametrize("backend", ["inline", "ray"])
def test_runs_of_one_node_wait_for_one_build(tmp_path: Path, backend: str) -> None:
    """Two runs need the same environment at once: in threads, and in worker actors of a real Ray."""
    packages = housed(
        tmp_path,
        f"""
        [[environment]]
        python = "3.8"
        [[environment.steps]]
        run = ["python", "-c", "import time; open('{tmp_path}/marks', 'a').write('x'); time.sleep(4)"]
        """,
    )
    made = Lab(tmp_path, environment(packages, MOSAIC_CACHE=str(tmp_path / "cache")), None, backend)
    document = {
        "kind": "sweep",
        "name": "housed",
        "worker": "housed",
        "config": {},
        "space": {"house": {"choice": ["a", "b"]}},
        "search": "grid",
        "metric": {"name": "value", "mode": "max"},
        "seeds": [1],
        "resources": {"cpus": 0.5},
    }
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(document))
    done = made.mosaic("run", path, *made.where, timeout=170)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "marks").read_text() == "x"
    logs = list((tmp_path / "results").glob("*/runs/*/attempts/1/stdout.log"))
    assert len(logs) == 2
    home = next((tmp_path / "cache" / "environments").glob("housed-*")).resolve()
    for log in logs:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        seen = next(line["payload"] for line in lines if line["event"] == "run_started")
        assert_at_home(seen, tmp_path / "cache", home)
        assert not [name for name in seen["variables"] if name.startswith("RAY_")]
    assert_nothing_left(made)
