"""Finding a Python of a given minor version on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.environments.surroundings import plain_variables
from mosaic_cluster.storage import cache_folder
from mosaic_cluster.worker.errors import EnvironmentFailed

PROBE_SECONDS = 30.0
_ASK = (
    "import json, platform, sys, sysconfig; print(json.dumps(["
    "'%d.%d.%d' % sys.version_info[:3], platform.python_implementation(), sysconfig.get_platform(), "
    "' '.join(platform.libc_ver()), getattr(sys, '_base_executable', sys.executable) or sys.executable]))"
)
_CONDA = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", ".conda")


@dataclass(frozen=True)
class Interpreter:
    """A Python that starts.

    Attributes:
        path: of its executable.
        version: ``3.9.18``; implementation: ``CPython``; platform: as ``sysconfig`` says, with the C library's version.
        origin: where it was found, for people.
        variables: environment variables without which it does not start.
    """

    path: str
    version: str
    implementation: str
    platform: str
    origin: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def minor(self) -> str:
        """``3.9`` of ``3.9.18``."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True)
class _Candidate:
    path: Path
    origin: str
    variables: Mapping[str, str] = field(default_factory=dict)


def find_interpreter(wanted: Sequence[str], variables: Mapping[str, str] | None = None) -> Interpreter:
    """The best Python there is on this machine.

    Args:
        wanted: minor versions that will do, the best first; empty: this process's own.
        variables: of this process; ``os.environ`` by default.

    Raises:
        EnvironmentFailed: there is none; it says where was looked, and what to do.
    """
    variables = os.environ if variables is None else variables
    wanted = tuple(wanted) or (_own_minor(),)
    looked: list[str] = []
    for minor in wanted:
        for candidate in _candidates(minor, variables):
            found = probe_interpreter(candidate.path, candidate.origin, candidate.variables)
            if isinstance(found, Interpreter) and found.minor == minor and found.implementation == "CPython":
                return found
            why = f"is {found.implementation} {found.version}" if isinstance(found, Interpreter) else found
            looked.append(f"{candidate.origin}: {candidate.path} {why}")
            if candidate.origin.startswith("$MOSAIC_PYTHON"):  # asked for by name: nothing else is meant
                raise EnvironmentFailed(f"{looked[-1]}, and not a CPython {minor}")
    raise EnvironmentFailed(_not_found(wanted, looked))


def probe_interpreter(path: Path, origin: str, variables: Mapping[str, str] | None = None) -> Interpreter | str:
    """What an executable says that it is, or why it is no Python that starts."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return "is not there"
    try:
        answer = _ask(str(path), changed, tuple(sorted((variables or {}).items())))
    except _NoAnswer as error:
        return str(error)
    version, implementation, platform, libc, base = answer
    # Of an environment, the Python that it was made from: whoever made it may remove it.
    real = base if Path(base).exists() else str(path)
    return Interpreter(real, version, implementation, f"{platform} {libc}".strip(), origin, dict(variables or {}))


class _NoAnswer(Exception):
    """Why there was none. An exception, since those are not cached: a busy machine is so for a while only."""


@lru_cache(maxsize=256)
def _ask(path: str, changed: int, variables: tuple[tuple[str, str], ...]) -> list[Any]:
    del changed  # only so that a replaced executable is asked anew
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env={**plain_variables(os.environ), **dict(variables)},
            check=False,
        )
        answer: list[Any] = json.loads(done.stdout)
        return answer
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"does not answer within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise _NoAnswer(f"cannot be started ({error.strerror})") from None
    except ValueError:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        why = words[-1][:200] if words else f"exit code {done.returncode}"
        raise _NoAnswer(f"does not start ({why})") from None


def _own_minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _candidates(minor: str, variables: Mapping[str, str]) -> Iterator[_Candidate]:
    """Executables that may be it, the likeliest first."""
    program = f"python{minor}"
    named = variable_of(minor)
    if variables.get(named):
        yield _Candidate(Path(variables[named]).expanduser(), f"${named}")
    if minor == _own_minor():
        yield _Candidate(Path(sys.executable), "this process's own")
    found = shutil.which(program, path=variables.get("PATH"))
    if found:
        yield _Candidate(Path(found), "PATH")
    for folder in _pyenv(minor, variables):
        yield _Candidate(folder / "bin" / program, "pyenv")
    for folder in _conda(variables):
        if (folder / "bin" / program).exists():
            yield _Candidate(folder / "bin" / program, "conda")
    for folder in _newest(_uv_folder(variables).glob(f"cpython-{minor}*")):
        yield _Candidate(folder / "bin" / program, "uv")
    for folder in sorted(unpacked_folder(minor).parent.glob(f"{unpacked_folder(minor).name}*")):
        if (folder / "usr" / "bin" / program).exists():
            yield _Candidate(folder / "usr" / "bin" / program, "unpacked from Debian", unpacked_variables(folder))


def variable_of(minor: str) -> str:
    """The environment variable that names a Python of this version: ``MOSAIC_PYTHON_3_9``."""
    return f"MOSAIC_PYTHON_{minor.replace('.', '_')}"


def unpacked_folder(minor: str) -> Path:
    """Where a Python taken from Debian's packages lies in the cache."""
    return cache_folder() / "interpreters" / f"debian-python{minor}"


def unpacked_variables(folder: Path) -> dict[str, str]:
    """Variables without which a Python unpacked to a folder does not find the libraries it came with."""
    libraries = sorted({str(path.parent) for path in (folder / "usr" / "lib").glob("*/lib*.so*")})
    return {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}


def _pyenv(minor: str, variables: Mapping[str, str]) -> list[Path]:
    root = Path(variables.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    return _newest(path for path in (root / "versions").glob(f"{minor}*") if re.fullmatch(rf"{minor}\.\d+", path.name))


def _conda(variables: Mapping[str, str]) -> Iterator[Path]:
    roots = [Path("~").expanduser() / name for name in _CONDA] + [Path("/opt/conda"), Path("/opt/miniconda3")]
    if variables.get("CONDA_EXE"):
        roots.insert(0, Path(variables["CONDA_EXE"]).parent.parent)
    if variables.get("MAMBA_ROOT_PREFIX"):
        roots.insert(0, Path(variables["MAMBA_ROOT_PREFIX"]))
    if variables.get("CONDA_PREFIX"):
        yield Path(variables["CONDA_PREFIX"])
    for root in dict.fromkeys(roots):
        if root.is_dir():
            yield root
            yield from sorted((root / "envs").glob("*"))


def _uv_folder(variables: Mapping[str, str]) -> Path:
    given = variables.get("UV_PYTHON_INSTALL_DIR")
    data = variables.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(given or f"{data}/uv/python").expanduser()


def _newest(folders: Iterator[Path]) -> list[Path]:
    """The newest patch version first."""
    return sorted(folders, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)], reverse=True)


def _not_found(wanted: Sequence[str], looked: Sequence[str]) -> str:
    minor = wanted[0]
    versions = " or ".join(wanted)
    program = f"python{minor}"
    root = os.environ.get("PYENV_ROOT") or "~/.pyenv"
    lines = [
        f"there is no Python {versions} on this machine. Looked at: ${variable_of(minor)} (not set), {program} on "
        f"PATH, {root}/versions, conda's environments ($CONDA_PREFIX, $CONDA_EXE, ~/miniconda3 and alike, /opt/conda), "
        f"{_uv_folder(os.environ)}, {unpacked_folder(minor)}",
        *(f"  {each}" for each in looked),
        "One of these will do:",
        f"  pyenv:   pyenv install {minor}",
        f"  conda:   conda create -n py{minor.replace('.', '')} python={minor}",
        f"  uv:      uv python install {minor}",
        "  Debian:  mosaic workers install NAME --debian-python (no root needed; Debian releases have 3.9, 3.11, 3.13)",
        f"  any other: set {variable_of(minor)} to the path of its executable, on each node",
        "  or a container: run the node itself from an image that has it",
    ]
    return "\n".join(lines)
