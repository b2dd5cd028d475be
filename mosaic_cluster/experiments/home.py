"""An experiment's folder in storage: making it, finding it, its name."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import InvalidInput, NotFound, Problem, StorageError

RECORD = "experiment.json"
LAYOUT_VERSION = 1
REQUESTS = 8
"""Records of an object store that are read at once."""
ALPHABET = "abcdefghjkmnpqrstvwxyz0123456789"


def new_experiment_id(name: str, now: float) -> str:
    """``<name>-<date>-<time>-<four random characters>``: readable, and sorts by time within a name (UTC)."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{name}-{stamp}-" + "".join(secrets.choice(ALPHABET) for _ in range(4))


@dataclass(frozen=True)
class ExperimentHome:
    """The folder of one experiment.

    Attributes:
        experiment_id: its name in storage.
        storage: storage at the experiment's folder.
    """

    experiment_id: str
    storage: Storage

    @classmethod
    def create(cls, storage: Storage, experiment_id: str, record: Mapping[str, Any]) -> ExperimentHome:
        """Make the folder with its ``experiment.json``.

        Raises:
            AlreadyExists: an experiment of that id is there.
        """
        home = cls(experiment_id, storage.at(experiment_id))
        home.storage.create_json(RECORD, {"layout": LAYOUT_VERSION, "experiment_id": experiment_id, **record})
        return home

    @property
    def location(self) -> str:
        """Where it is: an absolute path, or a URI."""
        return self.storage.location

    @property
    def path(self) -> Path:
        """Absolute path of the folder.

        Raises:
            StorageError: it is in an object store.
        """
        return self.storage.local_path

    def record(self) -> dict[str, Any]:
        """``experiment.json``: the spec as submitted, its digest, provenance."""
        document: dict[str, Any] = self.storage.get_json(RECORD)
        return document

    def run_dir(self, run_id: str) -> Path:
        """Folder of one run, where :attr:`path` is one."""
        return self.path / "runs" / run_id


def experiments_in(storage: Storage) -> list[ExperimentHome]:
    """Every experiment in ``storage``, oldest first."""
    homes = [ExperimentHome(name, storage.at(name)) for name in storage.folders()]
    if storage.is_local:
        there = [home for home in homes if home.storage.exists(RECORD)]
        return sorted(there, key=lambda home: (home.path / RECORD).stat().st_mtime_ns)
    # An object store keeps whole seconds: the record knows better.
    with ThreadPoolExecutor(REQUESTS) as pool:
        dated = zip(pool.map(_created_at, homes), homes, strict=True)
        return [home for at, home in sorted(dated, key=lambda each: each[0] or 0.0) if at is not None]


def _created_at(home: ExperimentHome) -> float | None:
    """Unix time; ``None`` for a folder that is no experiment's."""
    try:
        return float(home.record().get("created_at") or 0.0)
    except NotFound:
        return None
    except (StorageError, TypeError, ValueError):  # a damaged one is listed as such
        return 0.0


def find_experiment(storage: Storage, wanted: str) -> ExperimentHome:
    """The experiment that a person means.

    Args:
        wanted: its id, an unambiguous beginning or end of it, the path or URI of its folder, or ``latest``.

    Raises:
        InvalidInput: none or several match; says which there are.
    """
    if "://" in wanted:
        given = Storage.open(wanted)
        if given.exists(RECORD):
            return ExperimentHome(given.location.rpartition("/")[2], given)
        raise _unknown(wanted, f"there is no experiment at {given.location}")
    as_path = Path(wanted)
    if (as_path / RECORD).is_file():
        folder = as_path.resolve()
        return ExperimentHome(folder.name, Storage.open(folder))
    homes = experiments_in(storage)
    if not homes:
        raise _unknown(wanted, f"there is no experiment in {storage.location}; say where with --storage")
    if wanted == "latest":
        return homes[-1]
    matching = [home for home in homes if home.experiment_id == wanted] or [
        home for home in homes if home.experiment_id.startswith(wanted) or home.experiment_id.endswith(wanted)
    ]
    if len(matching) == 1:
        return matching[0]
    names = [home.experiment_id for home in matching or homes]
    if matching:
        raise _unknown(wanted, f"it fits {len(names)} experiments: {', '.join(names[-5:])}")
    near = get_close_matches(wanted, names, n=3, cutoff=0.3) or names[-3:]
    raise _unknown(wanted, f"no such experiment in {storage.location}; there is {', '.join(near)}")


def _unknown(wanted: str, message: str) -> InvalidInput:
    return InvalidInput([Problem(f"experiment {wanted!r}", message)])
