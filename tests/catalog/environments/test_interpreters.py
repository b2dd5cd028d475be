"""Where Pythons are looked for, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mosaic_cluster.catalog.environments import Interpreter, debian, find_interpreter
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


def test_what_did_not_answer_is_asked_again(home: Path) -> None:
    slow = fake(home / "slow", "3.6.1")
    slow.write_text(slow.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n[ -e {home}/ready ] || exit 1\n"))
    assert probe_interpreter(slow, "here") == "does not start (exit code 1)"
    (home / "ready").touch()
    assert isinstance(probe_interpreter(slow, "here"), Interpreter)


def test_of_an_unpacked_python_only_what_was_unpacked_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, real = tmp_path / "system", tmp_path / "real"
    unpacked = real / "usr" / "lib" / "x86_64-linux-gnu"
    for folder in (system, unpacked):
        folder.mkdir(parents=True)
    for path in (system / "libz.so.1", system / "libm.so.6", unpacked / "libz.so.1.2", unpacked / "libown.so.1"):
        path.touch()
    (unpacked / "libz.so.1").symlink_to("libz.so.1.2")
    (unpacked / "libm.so.6").symlink_to(system / "libm.so.6")
    (unpacked.parent / "elsewhere").symlink_to(system)
    (tmp_path / "root").symlink_to(real)
    have = "".join(f"\t{name} (libc6) => /lib/{name}\n" for name in ("libz.so.1", "libz.so.1.2", "libm.so.6"))
    monkeypatch.setattr(debian, "_run", lambda command, cwd: have)
    debian._drop_known_libraries(tmp_path / "root")
    assert [path.name for path in unpacked.iterdir()] == ["libown.so.1"]
    assert sorted(path.name for path in system.iterdir()) == ["libm.so.6", "libz.so.1"]
