"""pip in environments: packages installed without a network, interpreters that come without pip, half-done installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mosaic_cluster.catalog.environments import (
    Environment,
    Interpreter,
    Place,
    Step,
    build,
    find_interpreter,
    pip_alone,
)
from mosaic_cluster.catalog.environments.debian import can_unpack, unpack_debian_python
from mosaic_cluster.worker.errors import EnvironmentFailed


def wheel(folder: Path, name: str, needs: str = "") -> Path:
    """A package of one module, as pip wants it."""
    info = f"{name}-1.0.dist-info"
    texts = {
        f"{name}.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in texts.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*texts, f"{info}/RECORD"]))
    return path


@pytest.mark.long
def test_packages_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user tells pip holds: here, that there is no network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    lonely = wheel(tmp_path, "lonely", "Requires-Dist: not-to-be-had\n")
    steps = (
        Step(pip=(str(wheel(tmp_path, "tiny")),)),
        Step(pip=(str(lonely),), no_deps=True),
        Step(run=("pip", "show", "tiny")),
    )
    smoke = ("python", "-c", "import tiny, lonely; assert tiny.ANSWER == 42")
    where = Place("tiny", Environment(steps=steps, smoke=smoke), find_interpreter([]), tmp_path / "environments")
    built = build(where)
    assert "Name: tiny" in (built.folder / "build.log").read_text()
    assert not (tmp_path / "elsewhere").exists()
    wrong = Place("tiny", Environment(steps=(Step(pip=(str(lonely),)),)), where.interpreter, where.root)
    with pytest.raises(EnvironmentFailed, match="No matching distribution found for not-to-be-had"):
        build(wrong)


def test_what_a_killed_pip_leaves(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.8" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "~alf"):
        (site / name).mkdir(parents=True)
    (site / "whole-1.dist-info" / "RECORD").touch()
    (site / "module.py").touch()
    pip_alone.clear_half_installed(tmp_path)
    assert sorted(path.name for path in site.iterdir()) == ["module.py", "whole-1.dist-info"]


def test_the_pip_that_this_python_carries(tmp_path: Path) -> None:
    def of(version: str) -> Interpreter:
        return Interpreter("/x", version, "CPython", "linux", "here")

    carried = pip_alone._bundled()
    if not carried:
        pytest.skip("this Python carries no pip")
    found = pip_alone.pip_wheel(of("3.9.2"), tmp_path, tmp_path / "log", lambda line: None)
    assert found in carried
    assert subprocess.check_output([sys.executable, f"{found}/pip", "--version"], text=True).startswith("pip ")
    assert not any(pip_alone._runs_on(each, of("3.5.1")) for each in carried)


@pytest.mark.workers
@pytest.mark.timeout(900)
@pytest.mark.skipif(can_unpack() is not None, reason="needs Debian's apt")
def test_a_python_out_of_debians_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_CACHE", str(tmp_path))
    found = unpack_debian_python("3.9")
    assert found.version.startswith("3.9.")
    assert unpack_debian_python("3.9") == found
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
    # It has no ensurepip, and a stdlib that needs libraries of its own.
    smoke = ("python", "-c", "import ssl, sqlite3, ctypes, decimal, lzma, bz2, readline, distutils, pip")
    environment = Environment(steps=(Step(pip=("pip==21.0", "setuptools==65.5.0")),), smoke=smoke)
    built = build(Place("tiny", environment, found, tmp_path / "environments"))
    assert built.variables == found.variables
    with pytest.raises(EnvironmentFailed, match=r"no Debian release has Python 3\.10; there are 3\.9 \(bullseye\)"):
        unpack_debian_python("3.10")
