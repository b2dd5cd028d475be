"""Workers that are no part of this project: the guide's template, and one that `mosaic workers new` has written.

Both lie outside the repository and are installed with pip, into an environment of their own that sees ours; then they
are checked, run and swept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from support import FIXTURES, environment, write_spec

from mosaic_cluster.specs import read_document

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Place:
    """A folder with a Python of its own, in which everything that is installed here can be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        site = next((folder / "venv" / "lib").glob("python3*/site-packages"))
        (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        self.env = environment(MOSAIC_CACHE=str(folder / "cache"), MOSAIC_STORAGE=str(folder / "results"))
        self.env["PATH"] = f"{self.python.parent}{os.pathsep}{self.env['PATH']}"

    def run(self, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A module of that Python."""
        command = [str(self.python), "-m", *map(str, words)]
        return subprocess.run(
            command, cwd=cwd or self.folder, env=self.env, capture_output=True, text=True, timeout=400, check=False
        )

    def mosaic(self, *words: str | Path, ok: bool = True) -> str:
        """The command line; what it printed."""
        done = self.run("mosaic_cluster.cli", *words)
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("third-party"))
    shutil.copytree(FIXTURES / "guide" / "template", made.folder / "template")
    made.mosaic("workers", "new", "hill_worker")
    for package in ("template", "hill_worker"):
        done = made.run(
            "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-e", made.folder / package
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def verdicts(place: Place, worker: str, *words: str) -> dict[str, str]:
    found = json.loads(place.mosaic("workers", "check", worker, "--json", *words))
    return {each["check"]: each["status"] for each in found["checks"]}


def swept(place: Place, spec: Any) -> dict[str, Any]:
    """A sweep on an embedded Ray; the status that is left."""
    path = write_spec(place.folder, spec, f"{spec['name']}.json")
    for _ in range(3):
        done = place.run("mosaic_cluster.cli", "run", path)
        if "timed out during startup" not in done.stderr:  # Ray, on a busy machine: it is given three tries
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(place.mosaic("status", "--json")))


def test_a_new_worker_keeps_the_contract_and_its_own_tests_pass(place: Place) -> None:
    # Its own tests are the same checks, one test each, and that it learns.
    done = place.run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", cwd=place.folder / "hill_worker")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 passed" in done.stdout


def test_a_new_worker_is_run_and_swept(place: Place) -> None:
    example = {**read_document(place.folder / "hill_worker" / "example.yaml"), "telemetry": {"bridges": {}}}
    place.mosaic("run", write_spec(place.folder, example), "--backend", "inline")
    (run,) = json.loads(place.mosaic("status", "--json"))["runs"]
    assert run["state"] == "COMPLETED"
    status = swept(place, read_document(place.folder / "hill_worker" / "sweep.yaml"))
    assert status["state"] == "COMPLETED"
    assert [each["state"] for each in status["runs"]] == ["COMPLETED"] * 4


def test_the_guides_template_is_checked_honestly_run_and_swept(place: Place) -> None:
    found = verdicts(place, "myworker")
    assert {check for check, status in found.items() if status == "failed"} == set()
    assert {check for check, status in found.items() if status == "warned"} == {
        "bad-value", "unknown-field", "heartbeat-payload", "checkpoint-files", "resume",
    }  # fmt: skip
    spec = {
        "kind": "sweep", "name": "guide", "worker": "myworker", "space": {"learning_rate": {"choice": [0.1, 0.01]}},
        "seeds": [1], "metric": {"name": "episode_reward", "mode": "max", "at": [1000]},
        "search": {"kind": "grid"}, "scheduler": "none", "telemetry": {"bridges": {}},
    }  # fmt: skip
    status = swept(place, spec)
    assert status["state"] == "COMPLETED"
    assert [each["state"] for each in status["runs"]] == ["COMPLETED"] * 2
