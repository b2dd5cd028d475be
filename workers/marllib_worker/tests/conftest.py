"""The environments of both backends, built where they are not there yet, and runs in them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mosaic_cluster.catalog.environments.reading import read_environments
from mosaic_cluster.catalog.environments.using import Ready, make_ready

import marllib_worker

PACKAGE = Path(marllib_worker.__file__).parent


@dataclass
class Run:
    """A run of the worker's program.

    Attributes:
        folder: its working directory, and the run's.
        process: the program.
    """

    folder: Path
    process: subprocess.Popen[bytes]

    def lines(self) -> list[dict[str, Any]]:
        """Complete lines of stdout, all of which must be telemetry."""
        text = (self.folder / "out").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Payloads of one event."""
        return [line["payload"] for line in self.lines() if line.get("event") == name]

    def returns(self) -> list[float]:
        """Of the episodes, summed over the agents."""
        return [line["total_reward"] for line in self.lines() if line.get("type") == "episode"]

    def wait(self, seconds: float = 600) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def errors(self) -> str:
        """The end of stderr."""
        return (self.folder / "err").read_text()[-3000:]


@dataclass
class Backend:
    """A backend's environment."""

    name: str
    ready: Ready

    def python(self, folder: Path, *args: str, **environ: str) -> Run:
        """Start the environment's interpreter, as a supervisor would, and as if Ray ran a cluster beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        env = self.ready.variables(os.environ)
        env.update(self.ready.declared_variables)
        env.update(
            MOSAIC_RUN_DIR=str(folder), OMP_NUM_THREADS="1", RAY_ADDRESS="192.0.2.1:6379", CUDA_VISIBLE_DEVICES=""
        )
        env.update(environ)
        with (folder / "out").open("wb") as out, (folder / "err").open("ab") as err:
            command = [self.ready.python, *args]
            return Run(folder, subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=err))

    def start(self, folder: Path, *args: str, environ: dict[str, str] | None = None, **config: Any) -> Run:
        """Start the worker's program."""
        folder.mkdir(parents=True, exist_ok=True)
        given = {"run_id": "r1", "seed": 1, "backend": self.name, **config}
        (folder / "config.json").write_text(json.dumps(given))
        return self.python(folder, "-m", "marllib_worker.cli", "--config", "config.json", *args, **(environ or {}))


@pytest.fixture(scope="session")
def backend() -> Callable[[str], Backend]:
    """A backend by its name, in an environment built as the worker declares it."""
    known: dict[str, Backend] = {}

    def find(name: str) -> Backend:
        if name not in known:
            (declared,) = (each for each in read_environments(PACKAGE / "environment.toml") if each.name == name)
            ready = make_ready("marllib", "mosaic-marllib-worker", "marllib_worker", declared)
            known[name] = Backend(name, ready)
        return known[name]

    return find
