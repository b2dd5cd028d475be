"""A world that needs no library, and worker processes that play in it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barlog_worker.config import BarlogConfig
from barlog_worker.worlds.base import Action, Demonstration, Observation, Step

import mosaic_cluster

PATHS = os.pathsep.join([str(Path(mosaic_cluster.__file__).parent.parent), str(Path(__file__).parent.parent)])
HERE = Path(__file__).parent
KEY = "sk-test-5e55f00d-must-not-be-seen"


class Corridor:
    """Five doors, one of which is right at each of four places; the seed decides which. A wrong one goes nowhere."""

    actions = tuple(Action(f"door {number}") for number in range(5))
    keys = ("knock",)
    fallback = "door 0"
    max_steps = 12
    instruction = "You stand in a corridor. Find the right door four times."

    def __init__(self, seed: int, vision: bool) -> None:
        self._right = random.Random(seed).choices(range(5), k=4)
        self._place = 0
        self._vision = vision

    def reset(self) -> Observation:
        return self._see()

    def step(self, action: str) -> Step:
        hit = action == f"door {self._right[self._place]}"
        self._place += hit
        return Step(self._see(), float(hit), self._place == 4)

    def progression(self) -> float:
        return 25.0 * self._place

    def details(self) -> Mapping[str, Any]:
        return {"place": self._place}

    def draw(self, rng: random.Random, observation: Observation) -> str:
        return rng.choice(self.actions).name

    def close(self) -> None:
        pass

    def _see(self) -> Observation:
        import numpy as np

        hint = f" A voice says: {self._right[self._place]}." if self._place < 4 else ""
        image = np.full((2, 3, 3), 60 * self._place, np.uint8) if self._vision else None
        return Observation(f"Place {self._place}.{hint}", image)


class Corridors:
    """A world of corridors."""

    has_images = True
    version = "corridors 1"

    def make(self, task: str, seed: int, *, vision: bool = False) -> Corridor:
        return Corridor(seed, vision)

    def demonstration(self, task: str, seed: int) -> Demonstration | None:
        return Demonstration(task, (("Place 0. A voice says: 3.", "door 3"), ("Place 1. A voice says: 1.", "door 1")))


def open_corridors(name: str, config: BarlogConfig, folder: Path) -> Corridors:
    return Corridors()


def listens(messages: Any) -> str:
    """The perfect player of corridors: it does what the voice says."""
    return "door " + str(messages[-1]["content"]).rsplit("A voice says: ", 1)[1][0]


PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from barlog_worker.config import BarlogConfig
from barlog_worker.runtime import BarlogRuntime
from barlog_corridors import open_corridors
from mosaic_cluster.worker import run_program

def runtime(config, **options):
    return BarlogRuntime(config, open_world=open_corridors, **options)

sys.exit(run_program("corridors", "Plays.", BarlogConfig, runtime))
"""
"""The worker's program, but for its worlds."""


def settings(**given: Any) -> dict[str, Any]:
    """A config of two tasks in one world."""
    return {
        "run_id": "r1", "seed": 3, "model": "scripted", "episodes": 3, "retry_delay": 0.01,
        "babyai_tasks": ["BabyAI-GoToObj-v0", "BabyAI-GoToLocal-v0"], **given,
    }  # fmt: skip


def command(folder: Path, config: Mapping[str, Any], *args: str) -> list[str]:
    """How the worker is started in corridors."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return [sys.executable, "-c", PROGRAM, "--config", str(path), *args]


def surroundings(folder: Path, **environ: str) -> dict[str, str]:
    """Variables of its process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOSAIC_", "OPENAI_"))}
    return {**kept, "PYTHONPATH": PATHS, "MOSAIC_RUN_DIR": str(folder), **environ}


def play(folder: Path, config: Mapping[str, Any], *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    line = command(folder, config, *args)
    return subprocess.run(
        line, cwd=folder, env=surroundings(folder, **environ), capture_output=True, text=True, timeout=60, check=False
    )


def lines_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Lines of stdout, all of which must be telemetry."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(done: subprocess.CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    """Payloads of an event."""
    return [line["payload"] for line in lines_of(done) if line.get("event") == name]


def played(folder: Path) -> dict[str, Any]:
    """All that a run has kept of its episodes, but for times: by name, the record and its steps."""
    found = {}
    for path in sorted((folder / "episodes").rglob("*.json")):
        record = json.loads(path.read_text())
        record.pop("seconds")
        record["usage"].pop("seconds")
        steps = path.with_suffix("").with_suffix(".steps.jsonl").read_text().splitlines()
        found[record["name"]] = (record, [json.loads(line) for line in steps])
    return found
