"""What a node makes of a declaration that is not built: interpreters that are named, images, and the worker's code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import FIXTURES, install

from mosaic_cluster.catalog import make_ready
from mosaic_cluster.catalog.code_folder import code_folder
from mosaic_cluster.catalog.environments import Environment
from mosaic_cluster.worker.errors import EnvironmentFailed


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    worker = FIXTURES / "workers" / "housed_worker"
    made = install(tmp_path / "packages", worker, "housed", "housed_worker:get_worker_metadata")
    monkeypatch.syspath_prepend(str(made))
    monkeypatch.setenv("MOSAIC_CACHE", str(tmp_path / "cache"))
    return made


def test_the_code_alone(packages: Path) -> None:
    folder = code_folder("housed_worker", "housed_worker")
    assert sorted(path.name for path in folder.iterdir()) == ["housed_worker", "housed_worker-1.0.0.dist-info"]
    assert (folder / "housed_worker" / "environment.toml").exists()
    assert code_folder("housed_worker", "housed_worker") == folder
    (packages / "housed_worker" / "more.py").write_text("")
    assert code_folder("housed_worker", "housed_worker") != folder


def test_of_an_editable_install(tmp_path: Path) -> None:
    """Those of this project are."""
    folder = code_folder("mosaic-cleanrl-worker", "cleanrl_worker", tmp_path)
    assert (folder / "cleanrl_worker" / "cli.py").exists()
    assert "mosaic.workers" in next(folder.glob("*.dist-info/entry_points.txt")).read_text()


def test_not_installed_here(packages: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="install it on each node"):
        code_folder("no-such-worker", "no_such_worker")
    with pytest.raises(EnvironmentFailed, match="package other of housed_worker was not found"):
        code_folder("housed_worker", "other")


def test_a_named_interpreter(packages: Path) -> None:
    named = Environment(interpreter=sys.executable, variables={"A": "b"})
    ready = make_ready("housed", "housed_worker", "housed_worker", named)
    assert ready.python == sys.executable
    variables = ready.variables({**os.environ, "PYTHONPATH": "/elsewhere", "RAY_X": "1", "MOSAIC_CACHE": "c"})
    assert "/elsewhere" not in variables["PYTHONPATH"]
    assert "RAY_X" not in variables
    assert variables["MOSAIC_CACHE"] == "c"
    assert variables["PATH"].startswith(str(Path(sys.executable).parent))
    assert ready.declared_variables == {"A": "b"}
    look = "import housed_worker as h, mosaic_cluster.worker as w, json; print(json.dumps([h.__file__, w.__file__]))"
    seen = json.loads(subprocess.check_output([ready.python, "-c", look], env=variables, cwd="/", text=True))
    assert all("/cache/" in path for path in seen)
    with pytest.raises(EnvironmentFailed, match="/no/python that the worker's environment names is not there"):
        make_ready("housed", "housed_worker", "housed_worker", Environment(interpreter="/no/python"))


def test_an_image(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a podman that only writes down how it was called."""
    image = Environment(image_uri="docker.io/library/python:3.9", python=("3.9",), variables={"B": "2"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFailed, match="needs podman on each node"):
        make_ready("housed", "housed_worker", "housed_worker", image)
    engine = tmp_path / "bin" / "podman"
    engine.parent.mkdir()
    engine.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\necho "$SECRET" >> {tmp_path}/called\n')
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{engine.parent}:/usr/bin:/bin")
    ready = make_ready("housed", "housed_worker", "housed_worker", image)
    variables = {**ready.variables(os.environ), "SECRET": "s3cret", "MOSAIC_RUN_ID": "r"}
    command = ready.command(
        [ready.python, "-m", "x.cli"], name="n", cwd="/run", variables=variables, write=[Path("/run")], gpu=True
    )
    assert not any("s3cret" in word for word in command)  # command lines are for all to see
    subprocess.run(command, env=variables, check=True)
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "run"
    assert called[-5:] == ["docker.io/library/python:3.9", "python3.9", "-m", "x.cli", "s3cret"]
    volumes = [called[index + 1] for index, word in enumerate(called) if word == "--volume"]
    assert "/run:/run" in volumes
    contract, code = variables["PYTHONPATH"].split(os.pathsep)
    assert {f"{contract}:{contract}:ro", f"{code}:{code}:ro"} <= set(volumes)
    named = [called[index + 1] for index, word in enumerate(called) if word == "--env"]
    assert {"SECRET", "MOSAIC_RUN_ID", "PYTHONPATH"} <= set(named)
    assert not {"PATH", "HOME"} & set(named)
    assert "nvidia.com/gpu=all" in called
    assert called[called.index("--workdir") + 1] == "/run"
