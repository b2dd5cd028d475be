"""Proving that a worker can run in its environment on this machine. Builds nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.environments.building import locate
from mosaic_cluster.catalog.environments.declared import Environment, label
from mosaic_cluster.catalog.environments.using import Ready, make_ready
from mosaic_cluster.units import format_bytes
from mosaic_cluster.worker.errors import EnvironmentFailed

SECONDS = 300.0

_LOOK = """
import json, os, site, sys, sysconfig
from importlib.metadata import distributions
import mosaic_cluster.worker
seen = {
    "version": "%d.%d.%d" % sys.version_info[:3],
    "contract": os.path.dirname(mosaic_cluster.worker.__file__),
    "path": [os.path.realpath(entry) for entry in sys.path if entry],
    "homes": sorted({os.path.realpath(each) for each in (sys.prefix, sys.base_prefix)}),
    "user_site": bool(site.ENABLE_USER_SITE),
    "workers": sorted({point.name for each in distributions() for point in each.entry_points
                       if point.group == "mosaic.workers"}),
}
json.dump(seen, open(sys.argv[1], "w"))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: it is about.
        fine: whether it is as it must be.
        words: what was found, and what to do if it is not fine.
    """

    what: str
    fine: bool
    words: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """The worker that is examined: its registered name, where that comes from, and what it names.

    Attributes:
        value: of its entry point.
    """

    worker: str
    distribution: str
    package: str
    value: str


def examine(subject: Subject, environment: Environment | None, cache_dir: Path | None = None) -> Iterator[Check]:
    """Look at all that a run of a worker needs here, one thing after the other.

    Args:
        environment: one of the worker's; ``None``: the interpreter of mosaic_cluster.
    """
    if environment is not None:
        for program in environment.system:
            found = shutil.which(program)
            yield Check(program, found is not None, found or "is not on PATH: install it with the system's packages")
    try:
        if environment is not None and environment.is_built:
            place = locate(subject.worker, environment, cache_dir)
            python = place.interpreter
            yield Check("interpreter", True, f"Python {python.version}, {python.path} ({python.origin})")
            built = place.built()
            if built is None:
                words = f"is not built here: mosaic workers install {subject.worker}"
                yield Check("environment", False, words)
                return
            size = json.loads((built.folder / "environment.json").read_text(encoding="utf-8")).get("size", 0)
            yield Check("environment", True, f"{built.folder} ({format_bytes(size)})")
        ready = make_ready(subject.worker, subject.distribution, subject.package, environment, cache_dir=cache_dir)
    except (EnvironmentFailed, OSError, ValueError) as error:
        yield Check("interpreter", False, str(error))
        return
    with tempfile.TemporaryDirectory(prefix="mosaic-doctor-") as folder:
        yield from _Patient(subject, ready, Path(folder)).checks()


class _Patient:
    """What is seen from inside, in processes started as the worker's own are."""

    def __init__(self, subject: Subject, ready: Ready, folder: Path) -> None:
        self._subject = subject
        self._ready = ready
        self._folder = folder

    def checks(self) -> Iterator[Check]:
        looked, words = self._run([self._ready.python, "-c", _LOOK, str(self._folder / "seen.json")])
        seen = self._read("seen.json") if looked else None
        yield Check("contract", seen is not None, f"Python {seen['version']} imports it" if seen else words)
        if seen is not None:
            yield self._isolation(seen)
        yield self._discovery()
        environment = self._ready.declared
        if environment is not None and environment.smoke:
            first = environment.smoke[0]
            python = self._ready.python if first in ("python", "python3") else first
            fine, words = self._run([python, *environment.smoke[1:]])
            yield Check("smoke command", fine, " ".join(environment.smoke)[:100] if fine else words)

    def _isolation(self, seen: dict[str, Any]) -> Check:
        """Whether packages of another Python can be seen."""
        if self._ready.declared is None:
            return Check(
                "packages", True, "those that mosaic_cluster is installed beside: it has no environment of its own"
            )
        sites = [each for each in seen["path"] if {"site-packages", "dist-packages"} & set(Path(each).parts)]
        foreign = [each for each in sites if not any(Path(each).is_relative_to(home) for home in seen["homes"])]
        if seen["user_site"]:
            foreign.append("the user's own site-packages")
        if foreign:
            return Check("packages", False, f"it sees packages of another Python: {', '.join(foreign)}")
        return Check("packages", True, "only its own, the contract and the worker's code")

    def _discovery(self) -> Check:
        """Whether the worker tells there what it tells here."""
        out = self._folder / "answer.json"
        words = ["describe", "--entry", self._subject.value, "--name", self._subject.worker, "--out", str(out)]
        fine, said = self._run([self._ready.python, "-m", "mosaic_cluster.worker.probe", *words])
        answer = self._read(out.name) if fine else None
        if answer is None:
            return Check("worker", False, said)
        if answer["error"] is not None:
            return Check("worker", False, f"{self._subject.value} cannot be loaded there: {answer['error']}")
        fields = answer["config_fields"]
        known = "its config's fields are not known" if fields is None else f"{len(fields)} config fields"
        return Check("worker", True, f"{self._subject.value} tells what it is; {known}")

    def _run(self, command: Sequence[str]) -> tuple[bool, str]:
        """Whether a command succeeds, and what it said if not."""
        variables = {**self._ready.variables(os.environ), **self._ready.declared_variables, "CUDA_VISIBLE_DEVICES": ""}
        whole = self._ready.command(
            command, name=self._folder.name, cwd=str(self._folder), variables=variables, write=[self._folder]
        )
        try:
            done = subprocess.run(
                whole,
                cwd=self._folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"{command[0]} does not end within {SECONDS:g} s"
        except OSError as error:
            return False, f"cannot start {whole[0]}: {error.strerror}"
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-8:]
        return done.returncode == 0, "\n".join([f"exit code {done.returncode}", *lines])

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder / name).read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None


def title(worker: str, environment: Environment | None) -> str:
    """What is examined, for people."""
    return worker if environment is None else label(worker, environment)
