"""Where built environments lie in the cache, and what is known of them.

::

    <cache>/environments/xuance-3f2a90c1d2e4      link to the one in use; it appears when that is whole
                         .made/xuance-3f2a….1/    the virtual environment itself, and environment.json, written last
                         .building/xuance-3f2a…/  who builds it (holder.<n>), what is done, progress, the log

A virtual environment has its own path in many files, so it is never moved: it is made where it stays, and the link is
what appears at once. That is also why one can be built anew while runs still use the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.environments.declared import Environment, label
from mosaic_cluster.catalog.environments.holding import holder_of
from mosaic_cluster.catalog.environments.interpreters import Interpreter
from mosaic_cluster.storage import cache_folder

FORMAT = 1
RECORD = "environment.json"
LOG = "build.log"


def environments_folder(cache_dir: Path | None = None) -> Path:
    """Where all lie."""
    return (cache_dir or cache_folder()) / "environments"


def recipe_digest(environment: Environment, interpreter: Interpreter) -> str:
    """What an environment's content follows from: its steps, and the very interpreter.

    The interpreter's path is part of it: a virtual environment points there, and on a cache that several nodes
    share, it may be another one on each.
    """
    parts = {
        "format": FORMAT,
        "steps": [{**asdict(step), "name": ""} for step in environment.steps],
        "python": [interpreter.path, interpreter.version, interpreter.implementation, interpreter.platform],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Place:
    """The place of one environment in the cache.

    Attributes:
        worker: whose it is.
        root: the folder of all environments.
    """

    worker: str
    environment: Environment
    interpreter: Interpreter
    root: Path

    @property
    def label(self) -> str:
        """For people: ``xuance``."""
        return label(self.worker, self.environment)

    @property
    def name(self) -> str:
        """``xuance-3f2a90c1d2e4``."""
        return f"{self.label}-{recipe_digest(self.environment, self.interpreter)}"

    @property
    def link(self) -> Path:
        """Appears when it is whole."""
        return self.root / self.name

    @property
    def building(self) -> Path:
        """What concerns the building of it."""
        return self.root / ".building" / self.name

    def made(self, generation: int) -> Path:
        """The environment itself."""
        return self.root / ".made" / f"{self.name}.{generation}"

    def built(self) -> Built | None:
        """The finished environment; ``None`` if there is none."""
        try:
            folder = self.link.resolve(strict=True)
        except OSError:
            return None
        python = folder / "bin" / "python"
        if not (folder / RECORD).is_file() or not python.exists():
            return None
        return Built(folder, python, self.interpreter.variables)

    def generations(self) -> list[int]:
        """Numbers of those that were made or begun."""
        prefix = f"{self.name}."
        made = self.root / ".made"
        names = os.listdir(made) if made.is_dir() else []
        return sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))

    def publish(self, generation: int) -> None:
        """Make this generation the one in use."""
        staged = self.root / f".link-{self.name}-{os.getpid()}"
        staged.unlink(missing_ok=True)
        os.symlink(os.path.join(".made", self.made(generation).name), staged)
        os.replace(staged, self.link)


@dataclass(frozen=True)
class Built:
    """A finished environment.

    Attributes:
        folder: its own, where it stays.
        python: its interpreter; variables: without which that does not start.
    """

    folder: Path
    python: Path
    variables: dict[str, str] | Any = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """What lies in the cache under one name.

    Attributes:
        state: ``built``, ``superseded`` (a newer one of the same name is in use), ``building``, or ``unfinished``.
        size: in bytes.
        record: what was written when it was finished.
    """

    name: str
    state: str
    folder: Path
    size: int
    record: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "folder": str(self.folder)}


def stored(cache_dir: Path | None = None) -> Iterator[Stored]:
    """Everything in the cache, sorted by name."""
    root = environments_folder(cache_dir)
    made = root / ".made"
    for name in sorted(os.listdir(made)) if made.is_dir() else []:
        folder = made / name
        head, _, _ = name.rpartition(".")
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            in_use = (root / head).resolve() == folder.resolve()
            yield Stored(name, "built" if in_use else "superseded", folder, int(record.get("size", 0)), record)
        except (OSError, ValueError):
            state = "building" if holder_of(root / ".building" / head) else "unfinished"
            yield Stored(name, state, folder, folder_size(folder), {})


def remove(entry: Stored, cache_dir: Path | None = None) -> None:
    """Remove one from the cache, with its link if that is to it."""
    root = environments_folder(cache_dir)
    head, _, _ = entry.name.rpartition(".")
    if (root / head).resolve() == entry.folder.resolve():
        (root / head).unlink(missing_ok=True)
    if not entry.record:
        shutil.rmtree(root / ".building" / head, ignore_errors=True)
    shutil.rmtree(entry.folder, ignore_errors=True)


def is_used(folder: Path) -> bool:
    """Whether a process of this machine runs in an environment."""
    mark = b"VIRTUAL_ENV="
    wanted = os.path.realpath(folder)  # the cache's path may have a link in it, which its processes have followed
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path("/proc", name, "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            named = (os.fsdecode(word[len(mark) :]) for word in words if word.startswith(mark))
            if any(os.path.realpath(each) == wanted for each in named):
                return True
    return False


def folder_size(folder: Path, tick: Callable[[], None] = lambda: None) -> int:
    """Bytes of all files in a folder.

    Args:
        tick: called again and again meanwhile.
    """
    total = 0
    for here, _, names in os.walk(folder):
        tick()
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_size
            except OSError:
                continue
    return total
