"""Which workers are installed here, by the entry points of their distributions.

This loads the workers' packages into the process that asks. Inside mosaic_cluster only throwaway processes do
that; it is offered for tools that want the plain answer.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Set, Tuple

from mosaic_cluster.worker.capabilities import WorkerCapabilities, WorkerMetadata
from mosaic_cluster.worker.errors import BrokenWorker, DuplicateWorker, WorkerError

WORKER_ENTRY_POINT_GROUP = "mosaic.workers"


@dataclass(frozen=True)
class DiscoveredWorker:
    """An installed worker.

    Attributes:
        worker_id: the name of its entry point.
        metadata: who it is.
        capabilities: what it can do and needs.
        entry_point_name: same as ``worker_id``.
        module_path: what the entry point names, ``"my_worker:get_worker_metadata"``.
        distribution: name of the installed distribution.
        distribution_version: its version.
    """

    worker_id: str
    metadata: WorkerMetadata
    capabilities: WorkerCapabilities
    entry_point_name: str
    module_path: str
    distribution: str = ""
    distribution_version: str = ""


@dataclass(frozen=True)
class Registration:
    """An entry point of the group, not loaded."""

    name: str
    value: str
    distribution: str
    version: str


class WorkerDiscovery:
    """Finds workers once and remembers them.

    A worker that cannot be loaded, or whose name two distributions claim, is left out, logged, and kept in
    :attr:`errors`; the others are found all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._found: Optional[Dict[str, DiscoveredWorker]] = None
        self._errors: Dict[str, WorkerError] = {}

    @property
    def errors(self) -> Dict[str, WorkerError]:
        """Why workers are missing, by their names."""
        self._workers()
        return dict(self._errors)

    def discover_all(self, force_reload: bool = False) -> List[DiscoveredWorker]:
        """All workers, sorted by id.

        Args:
            force_reload: look again, instead of remembering.
        """
        if force_reload:
            self.clear_cache()
        return list(self._workers().values())

    def get_worker(self, worker_id: str) -> Optional[DiscoveredWorker]:
        """One worker; ``None`` if it is not there."""
        return self._workers().get(worker_id)

    def list_worker_ids(self) -> List[str]:
        """All ids, sorted."""
        return list(self._workers())

    def has_worker(self, worker_id: str) -> bool:
        """Whether it is there and can be loaded."""
        return worker_id in self._workers()

    def get_capabilities(self, worker_id: str) -> Optional[WorkerCapabilities]:
        """What one worker can do; ``None`` if it is not there."""
        worker = self.get_worker(worker_id)
        return worker.capabilities if worker else None

    def filter_by_paradigm(self, paradigm: str) -> List[DiscoveredWorker]:
        """Workers that declare the paradigm."""
        return [worker for worker in self.discover_all() if worker.capabilities.supports_paradigm(paradigm)]

    def filter_by_env_family(self, family: str) -> List[DiscoveredWorker]:
        """Workers that declare the environment family."""
        return [worker for worker in self.discover_all() if worker.capabilities.supports_env_family(family)]

    def clear_cache(self) -> None:
        """Forget what was found."""
        with self._lock:
            self._found = None
            self._errors = {}

    def _workers(self) -> Dict[str, DiscoveredWorker]:
        with self._lock:
            if self._found is None:
                self._found, self._errors = _discover()
                for name, error in self._errors.items():
                    import logging

                    logging.getLogger(__name__).warning("worker %s is left out: %s", name, error)
            return self._found


def discover_workers() -> List[DiscoveredWorker]:
    """All installed workers that can be loaded, sorted by id."""
    return WorkerDiscovery().discover_all()


def _discover() -> Tuple[Dict[str, DiscoveredWorker], Dict[str, WorkerError]]:
    by_name: Dict[str, List[Registration]] = {}
    for registration in registrations():
        by_name.setdefault(registration.name, []).append(registration)
    found: Dict[str, DiscoveredWorker] = {}
    errors: Dict[str, WorkerError] = {}
    for name, claims in sorted(by_name.items()):
        if len(claims) > 1:
            errors[name] = duplicate(name, claims)
            continue
        try:
            found[name] = _load(claims[0])
        except WorkerError as error:
            errors[name] = error
    return found, errors


def registrations(group: str = WORKER_ENTRY_POINT_GROUP) -> Iterator[Registration]:
    """Entry points with their distributions: on Python 3.8 and 3.9 an entry point does not know its own."""
    from importlib import metadata

    seen: Set[str] = set()
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name:
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:  # the same one further down the path
            continue
        seen.add(key)
        for entry_point in distribution.entry_points:
            if entry_point.group == group:
                yield Registration(entry_point.name, entry_point.value, name, distribution.version)


def duplicate(name: str, claims: List[Registration], what: str = "worker") -> DuplicateWorker:
    """The error for a name that several distributions claim."""
    listed = " and ".join(sorted(f"{claim.distribution} {claim.version} ({claim.value})" for claim in claims))
    return DuplicateWorker(f"the {what} {name!r} is registered by {listed}; uninstall or rename one of them")


def _load(registration: Registration) -> DiscoveredWorker:
    from mosaic_cluster.worker._locate import call_entry

    owner = f"{registration.distribution} {registration.version}"
    try:
        metadata, capabilities = call_entry(registration.value)
    except (Exception, SystemExit) as error:
        raise BrokenWorker(
            f"{registration.value} of {owner} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return DiscoveredWorker(
        worker_id=registration.name,
        metadata=metadata,
        capabilities=capabilities,
        entry_point_name=registration.name,
        module_path=registration.value,
        distribution=registration.distribution,
        distribution_version=registration.version,
    )


__all__ = [
    "WORKER_ENTRY_POINT_GROUP",
    "DiscoveredWorker",
    "Registration",
    "WorkerDiscovery",
    "discover_workers",
    "duplicate",
    "registrations",
]
