"""``mosaic workers check`` and ``mosaic workers new``."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest
from support import FIXTURES, environment, install, mosaic

from mosaic_cluster.app.scaffolding import new_worker
from mosaic_cluster.worker import ConfigError


@pytest.fixture
def env(tmp_path: Path, own_cache: Path) -> dict[str, str]:
    packages = tmp_path / "packages"
    install(packages, FIXTURES / "workers" / "faulty_worker", "faulty", "faulty_worker:get_worker_metadata")
    return environment(packages, MOSAIC_CACHE=str(own_cache))


def case(folder: Path, fault: str) -> Path:
    path = folder / "case.json"
    config = {"steps": 20, "fault": fault}
    path.write_text(json.dumps({"config": config, "long_config": {**config, "steps": 100_000}, "library": False}))
    return path


def test_a_readable_verdict(tmp_path: Path, env: dict[str, str]) -> None:
    done = mosaic("workers", "check", "faulty", "--config", case(tmp_path, "drops unknown"), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warned   unknown-field" in done.stdout
    assert "the misspelt 'stepx' (for 'steps') is dropped without a word" in done.stdout
    assert "→ refuse unknown keys" in done.stdout
    assert "not run  sigterm" in done.stdout
    assert "faulty keeps the contract: 10 passed, 1 warned, 13 not run" in done.stderr


def test_a_failure_has_exit_code_1(tmp_path: Path, env: dict[str, str]) -> None:
    path = case(tmp_path, "dry run writes")
    done = mosaic("workers", "check", "faulty", "--config", path, "--json", env=env, cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["worker"], found["passed"]) == ("faulty", False)
    failed = [each for each in found["checks"] if each["status"] == "failed"]
    assert [(each["check"], each["reason"]) for each in failed] == [("dry-run", "it wrote left.txt")]
    strict = mosaic(
        "workers", "check", "faulty", "--config", case(tmp_path, "drops unknown"), "--strict", env=env, cwd=tmp_path
    )
    assert strict.returncode == 1
    assert "faulty does not keep the contract" in strict.stderr


def test_what_cannot_be_checked(tmp_path: Path, env: dict[str, str]) -> None:
    done = mosaic("workers", "check", "fautly", env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'faulty'" in done.stderr
    (tmp_path / "case.json").write_text('{"config": {}, "sekonds": 5}')
    done = mosaic("workers", "check", "faulty", "--config", tmp_path / "case.json", env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert "sekonds" in done.stderr


def test_a_new_worker_is_written_once(tmp_path: Path, env: dict[str, str]) -> None:
    done = mosaic("workers", "new", "hill_worker", "--path", tmp_path / "made", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mosaic workers check hill_worker" in done.stdout
    folder = tmp_path / "made" / "hill_worker"
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert {"pyproject.toml", "README.md", "hill_worker/cli.py", "hill_worker/environment.toml.example"} <= set(written)
    assert "tests/test_hill_worker_standardization.py" in written
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))
        assert "$" not in path.read_text()
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["mosaic.workers"] == {"hill_worker": "hill_worker:get_worker_metadata"}
    tomllib.loads((folder / "hill_worker" / "environment.toml.example").read_text())
    (folder / "README.md").write_text("mine")
    again = mosaic("workers", "new", "hill_worker", "--path", tmp_path / "made", env=env, cwd=tmp_path)
    assert again.returncode == 2
    assert f"{folder} is there already" in again.stderr
    assert (folder / "README.md").read_text() == "mine"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["hill_worker"]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="hill_worker cannot be made: ") as caught:
        new_worker("hill_worker", tmp_path / "file" / "deeper")
    assert caught.value.problems[0].path == "path"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My-Worker", "lower-case letters"),
        ("_x", "lower-case letters"),
        ("a__b", "single underscores"),
        ("class", "a word of Python's own"),
        ("json", "there is a module 'json' already"),
        ("faulty", "the worker 'faulty' is there already"),
        ("../evil", "lower-case letters"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, env: dict[str, str], name: str, words: str) -> None:
    done = mosaic("workers", "new", name, "--path", tmp_path / "made", env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "made").exists()
