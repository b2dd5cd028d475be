"""Runs whose worker has an environment of its own, to their end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import Lab
from support import FIXTURES, install

from mosaic_cluster.catalog.environments import find_interpreter
from mosaic_cluster.worker.errors import EnvironmentFailed

HOUSED = FIXTURES / "workers" / "housed_worker"


def have(minor: str) -> bool:
    try:
        return bool(find_interpreter([minor]))
    except EnvironmentFailed:
        return False


@pytest.fixture
def lab(inline: Lab, tmp_path: Path) -> Lab:
    packages = tmp_path / "packages"
    install(packages, HOUSED, "housed", "housed_worker:get_worker_metadata")
    inline.env.update(
        PYTHONPATH=str(packages), MOSAIC_CACHE=str(tmp_path / "cache"), RAY_ADDRESS_X="1", VIRTUAL_ENV="/elsewhere"
    )
    return inline


def first_event(lab: Lab) -> dict:
    return json.loads(lab.experiment.text().splitlines()[1])["payload"]


@pytest.mark.skipif(not have("3.8"), reason="needs a Python 3.8")
def test_a_run_in_a_python_that_is_not_ours(lab: Lab, tmp_path: Path) -> None:
    done = lab.run(worker="housed", environment={"NUMBA_NUM_THREADS": "3"})
    assert done.returncode == 0, done.stderr + done.stdout
    seen = first_event(lab)
    assert seen["python"].startswith("3.8.")
    made = next((tmp_path / "cache" / "environments").glob("housed.old-*")).resolve()
    assert seen["executable"] == str(made / "bin" / "python")
    # The contract and its own code, and nothing else of what is installed beside mosaic_cluster.
    cache = str(tmp_path / "cache")
    ours = [path for path in seen["path"] if path and path.startswith(cache) and "environments" not in path]
    assert len(ours) == 2
    assert "numpy" not in seen["distributions"]
    assert "housed_worker" in seen["distributions"]
    assert seen["own_version"] == "1.0.0"
    assert not any("site-packages" in path and not path.startswith(str(made)) for path in seen["path"])
    variables = seen["variables"]
    assert variables["VIRTUAL_ENV"] == str(made)
    assert variables["PATH"].startswith(f"{made}/bin:")
    assert (variables["HOUSE"], variables["NUMBA_NUM_THREADS"]) == ("old", "3")
    assert not [name for name in variables if name.startswith("RAY_")]
    assert (made / "furniture").read_text() == "x"
    assert "builds the environment of housed.old: step" in done.stdout + done.stderr


def test_no_environment_matches(lab: Lab) -> None:
    done = lab.run({"house": "new"}, worker="housed")
    assert done.returncode == 0, done.stderr
    assert first_event(lab)["python"] == ".".join(map(str, sys.version_info[:3]))
