"""Where Pythons are looked for, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mosaic_cluster.catalog.environments import Interpreter, find_interpreter
from mosaic_cluster.catalog.environments.interpreters import probe_interpreter
from mosaic_cluster.worker.errors import EnvironmentFailed

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def fake(path: Path, version: str, implementation: str = "CPython") -> Path:
    """A program that answers as a Python of that version would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho \'["{version}", "{implementation}", "linux-x86_64", "glibc 2.31", "{path}"]\'\n')
    path.chmod(0o755)
    return path


def places(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(home / "bin"), "PYENV_ROOT": str(home / "pyenv"), **more}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOSAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_this_one(home: Path) -> None:
    found = find_interpreter([], places(home))
    assert (found.minor, found.origin) == (OWN, "this process's own")
    assert Path(found.path).exists()
    # Of an environment, the Python that it was made from.
    assert not (Path(found.path).parent.parent / "pyvenv.cfg").exists()


def test_the_order_of_places(home: Path) -> None:
    from_uv = fake(home / ".local/share/uv/python/cpython-3.6.9-linux/bin/python3.6", "3.6.9")
    assert find_interpreter(["3.6"], places(home)).path == str(from_uv)
    from_conda = fake(home / "miniconda3/envs/old/bin/python3.6", "3.6.13")
    assert find_interpreter(["3.6"], places(home)).path == str(from_conda)
    fake(home / "pyenv/versions/3.6.9/bin/python3.6", "3.6.9")
    newest = fake(home / "pyenv/versions/3.6.15/bin/python3.6", "3.6.15")
    assert find_interpreter(["3.6"], places(home)).path == str(newest)
    on_path = fake(home / "bin/python3.6", "3.6.1")
    assert find_interpreter(["3.6"], places(home)).path == str(on_path)
    named = fake(home / "named", "3.6.2")
    assert find_interpreter(["3.6"], places(home, MOSAIC_PYTHON_3_6=str(named))).path == str(named)


def test_the_best_version_wins_over_the_nearest_place(home: Path) -> None:
    fake(home / "bin/python3.6", "3.6.1")
    far = fake(home / "miniconda3/bin/python3.7", "3.7.1")
    assert find_interpreter(["3.7", "3.6"], places(home)).path == str(far)


def test_what_answers_otherwise_is_passed_over(home: Path) -> None:
    fake(home / "bin/python3.6", "3.5.1")
    fake(home / "pyenv/versions/3.6.9/bin/python3.6", "3.6.9", "PyPy")
    with pytest.raises(EnvironmentFailed) as caught:
        find_interpreter(["3.6"], places(home))
    text = str(caught.value)
    assert "there is no Python 3.6 on this machine" in text
    assert "bin/python3.6 is CPython 3.5.1" in text
    assert "python3.6 is PyPy 3.6.9" in text
    for word in ("pyenv install 3.6", "conda create", "uv python install 3.6", "--debian-python", "MOSAIC_PYTHON_3_6"):
        assert word in text
    with pytest.raises(EnvironmentFailed, match=r"\$MOSAIC_PYTHON_3_6: /nowhere is not there"):
        find_interpreter(["3.6"], places(home, MOSAIC_PYTHON_3_6="/nowhere"))


def test_what_does_not_start(home: Path) -> None:
    broken = fake(home / "broken", "3.6.1")
    broken.write_text("#!/bin/sh\necho 'pyenv: python3.6: command not found' >&2; exit 127\n")
    assert "command not found" in str(probe_interpreter(broken, "here"))
    assert probe_interpreter(home / "nothing", "here") == "is not there"
    assert isinstance(probe_interpreter(Path(sys.executable), "here"), Interpreter)
