"""Which workers are installed, asked in processes that are thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support import FIXTURES, install, quick_start, register

from mosaic_cluster.catalog import Catalog, contract_folder, worker_command, worker_environment
from mosaic_cluster.worker.errors import BrokenWorker, DuplicateWorker, WorkerNotFound


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of this process and of those it starts."""
    made = tmp_path / "packages"
    made.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(made))
    monkeypatch.syspath_prepend(str(made))
    monkeypatch.setenv("MOSAIC_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def scripted(folder: Path) -> Path:
    return install(folder, FIXTURES / "workers" / "scripted_worker", "scripted", "scripted_worker:get_worker_metadata")


def package(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    register(folder, name, {name: f"{name}:get_worker_metadata"})


def test_what_a_worker_declares(scripted: Path) -> None:
    entry = Catalog().get("scripted")
    assert (entry.distribution, entry.version, entry.package) == ("scripted_worker", "1.0.0", "scripted_worker")
    assert entry.has_cli
    assert entry.usable
    assert entry.capabilities is not None
    assert entry.capabilities.estimated_memory_mb == 64
    assert entry.config_fields is not None
    fields = {field.name: field for field in entry.config_fields}
    assert (fields["pause"].type, fields["pause"].default, fields["pause"].unit) == ("float", 0.01, "seconds")
    assert fields["steps"].min == 1
    assert fields["run_id"].required
    assert json.loads(json.dumps(entry.to_dict()))["metadata"]["name"] == "Scripted worker"
    assert "scripted_worker" not in sys.modules


def test_the_guides_quick_start(folder: Path) -> None:
    entry = Catalog().get("myworker") if quick_start(folder) else None
    assert entry is not None
    assert not entry.has_cli
    assert [field.name for field in entry.config_fields or ()] == ["run_id", "env_id", "seed"]


def test_unknown_names_get_a_suggestion(scripted: Path) -> None:
    with pytest.raises(WorkerNotFound, match="no worker 'scriptd'; did you mean 'scripted'"):
        Catalog().get("scriptd")


def test_a_broken_worker_hides_nobody(scripted: Path) -> None:
    package(scripted, "broken", "import a_library_that_is_not_there\n")
    package(scripted, "crashing", "import os\nos._exit(3)\n")
    package(scripted, "lying", "def get_worker_metadata():\n    return 5\n")
    catalog = Catalog()
    found = {entry.name: entry for entry in catalog.entries()}
    assert found["scripted"].usable
    assert "a_library_that_is_not_there" in str(found["broken"].error)
    assert "exited with code 3" in str(found["crashing"].error)
    assert "must return (WorkerMetadata, WorkerCapabilities)" in str(found["lying"].error)
    with pytest.raises(BrokenWorker, match="a_library_that_is_not_there"):
        catalog.get("broken")


def test_two_that_claim_one_name(scripted: Path) -> None:
    register(scripted, "impostor", {"scripted": "impostor:get_worker_metadata"})
    catalog = Catalog()
    with pytest.raises(DuplicateWorker, match=r"impostor 1\.0\.0 .*scripted_worker 1\.0\.0"):
        catalog.get("scripted")
    (entry,) = [entry for entry in catalog.entries() if entry.name == "scripted"]
    assert "impostor" in str(entry.error)


def test_answers_are_kept_until_the_package_changes(scripted: Path, tmp_path: Path) -> None:
    text = """
        import pathlib
        from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
        with open({marks!r}, "a") as stream:
            stream.write("x")
        def get_worker_metadata():
            return (
                WorkerMetadata("n", "1", "d", "a", "", license="MIT"),
                WorkerCapabilities("w", ("sequential",), ("e",), ("discrete",), ("vector",), {agents}),
            )
    """
    marks = tmp_path / "marks"

    def loads() -> int:
        before = len(marks.read_text()) if marks.exists() else 0
        entry = Catalog().get("counted")
        assert entry.error is None
        return len(marks.read_text()) - before

    package(scripted, "counted", text.format(marks=str(marks), agents=1))
    assert loads() >= 1
    assert loads() == 0
    time.sleep(0.01)
    (scripted / "counted.py").write_text(textwrap.dedent(text.format(marks=str(marks), agents=2)))
    assert loads() >= 1


def test_a_config_is_checked_by_its_worker(scripted: Path) -> None:
    catalog = Catalog()
    entry = catalog.get("scripted")
    good = {"run_id": "r", "seed": 1, "steps": 3}
    assert catalog.check_config(entry, good) == []
    problems = catalog.check_config(entry, {**good, "steps": 0, "pase": 1, "exit_code": "x"})
    assert sorted(problem.path for problem in problems) == ["config.exit_code", "config.pase", "config.steps"]
    assert "pause" in next(problem.message for problem in problems if problem.path == "config.pase")


def test_a_setting_that_would_be_dropped_is_a_problem(folder: Path) -> None:
    quick_start(folder)
    catalog = Catalog()
    entry = catalog.get("myworker")
    (problem,) = catalog.check_config(entry, {"run_id": "r", "seed": 1, "env_id": "x", "env_ids": "y"})
    assert problem.path == "config.env_ids"
    assert "did you mean 'env_id'" in problem.message


def test_a_worker_by_its_module(scripted: Path) -> None:
    entry = Catalog().find_by_module("scripted_worker.cli")
    assert entry is not None
    assert entry.name == "scripted"
    assert Catalog().find_by_module("nobody.cli") is None


def test_the_contract_folder_holds_the_contract_and_nothing_else(tmp_path: Path) -> None:
    folder = contract_folder(tmp_path)
    assert sorted(entry.name for entry in folder.iterdir()) == ["gym_gui", "mosaic_cluster", "sitecustomize.py"]
    assert sorted(entry.name for entry in (folder / "mosaic_cluster").iterdir()) == ["__init__.py", "worker"]
    assert contract_folder(tmp_path) == folder
    (folder / "mosaic_cluster" / "worker" / "telemetry.py").unlink()
    assert contract_folder(tmp_path) == folder
    assert (folder / "mosaic_cluster" / "worker" / "telemetry.py").is_file()


def ask(code: str, *folders: Path) -> str:
    """What code prints in an interpreter that has nothing but the standard library and ``folders``."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-S", "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd="/").stdout.strip()


EVERY_NAME = """
    import gym_gui.core.worker as theirs, mosaic_cluster.worker as ours
    for name in theirs.__all__:
        assert getattr(theirs, name) is getattr(ours, name), name
    from gym_gui.core.worker import TelemetryEmitter, WorkerConfig
    from gym_gui.core.worker.telemetry import LifecycleEventType
    from gym_gui.logging_config.helpers import log_constant
    from gym_gui.logging_config.log_constants import LOG_WORKER_ERROR
    from gym_gui.config.paths import VAR_TENSORBOARD_DIR
    import logging
    log_constant(logging.getLogger(), LOG_WORKER_ERROR, extra={"a": 1})
    print(LOG_WORKER_ERROR.code, VAR_TENSORBOARD_DIR.name, len(theirs.__all__) >= 19)
"""


def test_gym_gui_is_the_contract(tmp_path: Path) -> None:
    assert ask(EVERY_NAME, contract_folder(tmp_path)) == "LOG_WORKER_ERROR tensorboard True"


def test_a_real_gym_gui_wins(tmp_path: Path) -> None:
    real = tmp_path / "real" / "gym_gui"
    (real / "core").mkdir(parents=True)
    (real / "__init__.py").write_text("VERSION = 'real'\n")
    (real / "core" / "__init__.py").write_text("")
    (real / "core" / "worker.py").write_text("TelemetryEmitter = 'the real one'\n")
    code = """
        import gym_gui
        from gym_gui.core.worker import TelemetryEmitter
        print(gym_gui.VERSION, TelemetryEmitter, gym_gui.__file__)
    """
    found = ask(code, contract_folder(tmp_path), tmp_path / "real")
    assert found == f"real the real one {real / '__init__.py'}"


def test_only_the_contract_is_seen(tmp_path: Path) -> None:
    code = """
        import importlib.util
        names = ("mosaic_cluster.worker", "mosaic_cluster.telemetry", "pyarrow", "pydantic", "ray")
        def found(name):
            try:
                return importlib.util.find_spec(name) is not None
            except ModuleNotFoundError:
                return False
        print([name for name in names if found(name)])
    """
    assert ask(code, contract_folder(tmp_path)) == "['mosaic_cluster.worker']"


def test_a_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {
        "PATH": "/bin", "RAY_ADDRESS": "x", "RAY_AUTH_TOKEN": "secret", "MOSAIC_RUN_ID": "other", "HOME": "/home/me",
        "PYTHONPATH": "/mine",
    }  # fmt: skip
    found = worker_environment(base)
    assert sorted(found) == ["HOME", "PATH", "PYTHONPATH"]
    assert found["PYTHONPATH"] == f"{contract_folder()}{os.pathsep}/mine"
    assert worker_environment(found) == found


def test_commands() -> None:
    assert worker_command("w", True, "c.json", "py") == ["py", "-m", "w.cli", "--config", "c.json"]
    assert worker_command("w", False, "c.json", "py")[2] == "mosaic_cluster.worker.runner"
