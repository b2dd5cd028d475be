"""``mosaic workers install | doctor | environments``."""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
from support import FIXTURES, install, write_spec
from typer.testing import CliRunner

from mosaic_cluster.catalog import entries
from mosaic_cluster.cli import build
from mosaic_cluster.worker.errors import MosaicError

TOML = """
    [[environment]]
    smoke = ["python", "-c", "import os; assert os.path.exists('{folder}/fine')"]
    [[environment.steps]]
    run = ["python", "-c", "1"]
"""


class Bench:
    """The command line in this process, with the worker as if installed."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self.folder = folder
        self.toml = packages / "housed_worker" / "environment.toml"
        self.declare(TOML.format(folder=folder))

    def declare(self, text: str) -> None:
        self.toml.write_text(textwrap.dedent(text))

    def __call__(self, *words: str, verb: str = "workers") -> tuple[int, str, str]:
        done = CliRunner().invoke(build(), [verb, *words])
        if isinstance(done.exception, MosaicError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    worker = FIXTURES / "workers" / "housed_worker"
    packages = install(tmp_path / "packages", worker, "housed", "housed_worker:get_worker_metadata")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("MOSAIC_CACHE", str(tmp_path / "cache"))
    return Bench(tmp_path, packages)


def planned(bench: Bench) -> str:
    spec = write_spec(bench.folder, {"kind": "run", "name": "t", "worker": "housed"})
    code, out, err = bench(str(spec), "--on", "1x(2cpu)", verb="plan")
    assert code == 0, err
    return out


def test_from_nothing_to_pruned(bench: Bench) -> None:
    assert "not built here: each node that lacks it builds it first" in planned(bench)
    code, out, err = bench("doctor", "housed")
    assert code == 1
    assert "WRONG  environment     is not built here: mosaic workers install housed" in out
    code, out, err = bench("install", "housed", "--json")
    assert code == 1
    (result,) = json.loads(out)
    assert result["state"] == "failed"
    assert "step 3 of 3, smoke command, failed with exit code 1" in result["words"]
    assert "AssertionError" in err
    (bench.folder / "fine").touch()
    code, out, err = bench("install", "housed")
    assert code == 0, err
    assert "builds the environment of housed: step 3 of 3, smoke command" in err
    assert "step 2 of 3" not in err  # done before
    assert "housed is built: " in err
    assert "environment housed: Python 3." in planned(bench)
    assert "built here (" in planned(bench)
    code, out, err = bench("doctor", "housed", "--json")
    assert code == 0, out
    (subject,) = json.loads(out)
    assert [check["what"] for check in subject["checks"]] == [
        "interpreter", "environment", "contract", "packages", "worker", "smoke command"
    ]  # fmt: skip
    (bench.folder / "fine").unlink()
    code, out, err = bench("doctor", "housed")
    assert code == 1
    assert "WRONG  smoke command   exit code 1" in out
    assert "1 thing is wrong" in err
    bench.declare(TOML.format(folder=bench.folder).replace('"1"', '"2"'))
    code, out, err = bench("environments", "--json")
    (listed,) = json.loads(out)["environments"]
    assert (listed["state"], listed["record"]["worker"]) == ("unused", "housed")
    code, out, err = bench("environments", "--prune")
    assert code == 0
    assert "removed 1: " in err
    assert json.loads(bench("environments", "--json")[1]) == {"environments": [], "removed": []}
    assert not [path for path in (bench.folder / "cache" / "environments").iterdir() if path.name[0] != "."]


def test_what_is_wrong_on_the_command_line(bench: Bench) -> None:
    assert bench("install")[0] == 2
    assert bench("install", "housed", "--all")[0] == 2
    code, _, err = bench("install", "housed", "--environment", "old")
    assert code == 2
    assert "housed has no environment 'old'; it has default" in err
    code, _, err = bench("doctor", "husd")
    assert code == 2
    assert "did you mean 'housed'?" in err


def test_a_broken_worker_hides_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    there = entries.registrations  # of those alone: what else is installed takes minutes to build
    monkeypatch.setattr(
        entries, "registrations", lambda: (one for one in there() if one.name in ("housed", "scripted"))
    )
    bench.declare("[[environment]]\nstep = []\n")
    scripted, packages = FIXTURES / "workers" / "scripted_worker", bench.toml.parent.parent
    install(packages, scripted, "scripted", "scripted_worker:get_worker_metadata")
    (packages / "scripted_worker" / "environment.toml").write_text(
        '[[environment]]\n[environment.variables]\nA = "1"\n'
    )
    code, out, err = bench("install", "--all", "--json")
    assert code == 1
    assert [(each["worker"], each["state"]) for each in json.loads(out)] == [
        ("housed", "failed"), ("scripted", "built")
    ]  # fmt: skip
    assert "environment[0].step: is not known; did you mean 'steps'?" in err


def test_packages_of_another_python_are_found_out(bench: Bench) -> None:
    """A named interpreter that lets in what it should not."""
    other = bench.folder / "other" / "site-packages"
    other.mkdir(parents=True)
    script = bench.folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{other}" exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    bench.declare(f'[[environment]]\ninterpreter = "{script}"\n')
    code, out, _ = bench("doctor", "housed")
    assert code == 1
    assert f"WRONG  packages        it sees packages of another Python: {other}" in out


def test_what_another_machine_built_is_left_to_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "registrations", lambda: iter(()))
    made = bench.folder / "cache" / "environments" / ".made"
    for name, host in (("gone-1.1", os.uname().nodename), ("gone-2.1", "another-host")):
        (made / name).mkdir(parents=True)
        record = {"host": host, "built_at": 0, "interpreter": {"version": "3.9.1"}}
        (made / name / "environment.json").write_text(json.dumps(record))
        (made.parent / name.removesuffix(".1")).symlink_to(f".made/{name}")
    code, _, err = bench("environments", "--prune")
    assert code == 0
    assert "removed 1: " in err
    assert "gone-2.1 is left: another-host has built it" in err
    assert [path.name for path in made.iterdir()] == ["gone-2.1"]


def test_a_cache_that_cannot_be_written_to_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.declare(f'[[environment]]\ninterpreter = "{sys.executable}"\n')
    monkeypatch.setattr("mosaic_cluster.app.environments.make_ready", _full)
    code, out, err = bench("install", "housed", "--json")
    assert (code, json.loads(out)[0]["state"]) == (1, "failed")
    assert f"the environment of housed cannot be had in {bench.folder / 'cache'}: [Errno 28]" in err


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/cache/contract")
