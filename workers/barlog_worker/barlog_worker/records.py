"""What a run keeps: each finished episode in a file of its own, and all of them in one, the checkpoint.

::

    <run>/checkpoints/evaluation.json                       settings, seed, finished episodes, progression
    <run>/episodes/<world>/<task>/<number>.json             one finished episode
    <run>/episodes/<world>/<task>/<number>.steps.jsonl      its steps, one a line

A file that is there is complete: it is written under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import Usage
from mosaic_cluster.worker import ConfigError, Problem

FORMAT = 1
EVALUATION = "evaluation.json"

DECIDING = (
    "backend", "agent", "model", "temperature", "max_tokens", "history", "thoughts", "vision", "image_history",
    "max_steps", "textworld_level", "textworld_commands", "nethack_character", "demonstrations",
    "demonstration_episodes", "send_seed",
)  # fmt: skip
"""Settings that decide what happens in an episode: finished ones of others are no part of this run."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Episode:
    """One that is to be played.

    Attributes:
        index: its place among all of the run.
        number: its place among those of its task.
        seed: of the game, and of all else that is drawn in it.
    """

    index: int
    world: str
    task: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Unique in the run, and a path."""
        return f"{self.world}/{_safe(self.task)}/{self.number:03d}"


def plan(config: BarlogConfig, seed: int) -> list[Episode]:
    """All episodes of a run, in the order in which they are begun."""
    found: list[Episode] = []
    for world in config.worlds:
        for task in config.tasks(world):
            for number in range(config.episodes):
                found.append(Episode(len(found), world, task, number, episode_seed(seed, world, task, number)))
    return found


def episode_seed(seed: int, world: str, task: str, number: int) -> int:
    """31 bits; it depends on nothing else of the run, so that more tasks or episodes leave these as they are."""
    text = f"{seed}/{world}/{task}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class Records:
    """The finished episodes of a run.

    Args:
        config: the run's.
        run_dir: holds ``episodes/``.
        checkpoint_dir: holds ``evaluation.json``.

    Attributes:
        seed: of the run; drawn where neither the config nor an earlier attempt has one.
        finished: by name.
        step: environment steps that earlier attempts took, those of interrupted episodes included, as far as is known.
        usage: what their requests took.
    """

    def __init__(self, config: BarlogConfig, run_dir: Path, checkpoint_dir: Path) -> None:
        self.config = config
        self.folder = run_dir / "episodes"
        self.path = checkpoint_dir / EVALUATION
        self.finished: dict[str, Record] = {}
        self.step = 0
        self.usage = Usage()
        self._given = config.seed
        self.seed = config.seed if config.seed is not None else secrets.randbits(31)

    def load(self, resume_from: Path | None) -> Path | None:
        """Take over what earlier attempts finished: from a checkpoint, and from this run's own folder.

        Args:
            resume_from: ``evaluation.json`` of an earlier attempt, which may lie elsewhere; or ``None``.

        Returns:
            the file that was gone on from, or ``None``.

        Raises:
            ConfigError: it was made with other settings.
            ValueError: it cannot be read.
        """
        used = None
        sources = [path for path in (resume_from, self.path) if path is not None]
        for path in dict.fromkeys(sources):
            if path != resume_from and not path.exists():
                continue
            data = read_evaluation(path)
            self._check(path, data)
            if self._given is None:
                self.seed = self._given = int(data["seed"])
            for record in data["episodes"]:
                self.finished.setdefault(record["name"], record)
            self._account(int(data.get("step", 0)), Usage.from_dict(data.get("usage", {})))
            used = used or path
        if used:  # files say more than the list of the last checkpoint, which is written at most once a second
            for record in self._files():
                self.finished[record["name"]] = record
            done = self.finished.values()
            self._account(sum(int(record["steps"]) for record in done), total_usage(done))
        return used

    def _account(self, step: int, usage: Usage) -> None:
        """Of several accounts of the same past, the one that knows of more."""
        self.step = max(self.step, step)
        self.usage = max(self.usage, usage, key=lambda each: (each.requests, each.prompt_tokens))

    def add(self, record: Record) -> None:
        """An episode is finished; its file is written."""
        self.finished[record["name"]] = record
        write_json(self.folder / f"{record['name']}.json", record)

    def save(self, step: int, usage: Usage) -> Path:
        """Write ``evaluation.json``.

        Args:
            step: environment steps of all attempts.
            usage: of all attempts.
        """
        settings = self.config.to_dict()
        episodes = sorted(self.finished.values(), key=lambda record: str(record["name"]))
        content = {
            "format": FORMAT,
            "worker": "barlog",
            "run_id": self.config.run_id,
            "seed": self.seed,
            "settings": settings,
            "progression": progressions(episodes),
            "step": step,
            "usage": usage.to_dict(),
            "episodes": episodes,
        }
        write_json(self.path, content)
        return self.path

    def _files(self) -> list[Record]:
        found = []
        for path in sorted(self.folder.glob("*/*/*.json")):
            record = json.loads(path.read_text())
            if record.get("run_seed") == self.seed:
                found.append(record)
        return found

    def _check(self, path: Path, data: Mapping[str, Any]) -> None:
        before, now = data["settings"], self.config.to_dict()
        problems = [
            Problem(name, f"is {now[name]!r}, but the finished episodes were played with {before.get(name)!r}")
            for name in DECIDING
            if before.get(name) != now[name]
        ]
        if self.config.seed is not None and data["seed"] != self.config.seed:
            problems.append(Problem("seed", f"is {self.config.seed}, but the finished episodes have {data['seed']}"))
        if problems:
            heading = f"{path} holds episodes of another evaluation; set these back, or use another run folder"
            raise ConfigError(problems, heading=heading)


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of ``evaluation.json``.

    Raises:
        ValueError: it is missing or not such a file.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    wanted = ("format", "seed", "settings", "episodes")
    if not isinstance(data, dict) or any(name not in data for name in wanted):
        raise ValueError(f"{path} is no evaluation of this worker: it must have {', '.join(wanted)}")
    if data["format"] != FORMAT:
        raise ValueError(f"{path} has the format {data['format']}; this version reads {FORMAT}")
    return data


def progressions(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean progression in percent per world and per task of it, each with its standard error.

    The standard error is the sample deviation (n - 1) over the root of n; ``None`` for a single episode.
    """
    worlds: dict[str, dict[str, list[float]]] = {}
    for record in records:
        worlds.setdefault(record["world"], {}).setdefault(record["task"], []).append(float(record["progression"]))
    found: dict[str, dict[str, Any]] = {}
    for world, tasks in worlds.items():
        found[world] = _mean([value for values in tasks.values() for value in values])
        found[world]["tasks"] = {task: _mean(values) for task, values in tasks.items()}
    return found


def overall(found: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Mean over the worlds; ``None`` before the first episode."""
    values = [float(world["progression"]) for world in found.values()]
    return sum(values) / len(values) if values else None


def total_usage(records: Iterable[Mapping[str, Any]]) -> Usage:
    """Of finished episodes."""
    total = Usage()
    for record in records:
        total.add(Usage.from_dict(record["usage"]))
    return total


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    os.replace(part, path)


def _mean(values: list[float]) -> dict[str, Any]:
    number = len(values)
    mean = sum(values) / number
    error = None
    if number > 1:
        error = math.sqrt(sum((value - mean) ** 2 for value in values) / (number - 1) / number)
    return {
        "progression": round(mean, 4),
        "standard_error": None if error is None else round(error, 4),
        "episodes": number,
    }


def _safe(task: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", task)


__all__ = [
    "DECIDING",
    "EVALUATION",
    "Episode",
    "Record",
    "Records",
    "episode_seed",
    "overall",
    "plan",
    "progressions",
    "read_evaluation",
    "total_usage",
    "write_json",
]
