"""Every error of mosaic_cluster, one tree.

::

    MosaicError                    exit code 1
    ├── InvalidInput               exit code 2; carries every Problem found, not the first
    │   ├── SpecError              what a person wrote in a spec
    │   ├── ConfigError            what a worker's config says (also a ValueError)
    │   └── PlacementError         a request that no node can ever satisfy
    ├── WorkerError
    │   ├── WorkerNotFound         exit code 2
    │   ├── DuplicateWorker        two distributions register one name; exit code 2
    │   ├── BrokenWorker           its entry point cannot be loaded; exit code 2
    │   └── EnvironmentFailed      what it runs in cannot be built or used; exit code 1
    ├── StorageError
    │   ├── AlreadyExists          create-if-absent lost the race
    │   ├── NotFound
    │   ├── NoSuchBucket           the bucket of an object store does not exist
    │   ├── StorageDenied          a credential is missing, wrong, expired, or not enough
    │   ├── StorageUnavailable     no answer for as long as was tried; trying later may do
    │   └── Fenced                 somebody else has taken over: stop writing
    ├── PolicyError                a policy failed, or its process cannot be reached
    ├── SupervisionError           a worker process cannot be started or controlled
    └── BackendError               the cluster cannot be reached or used

Standard library only, Python 3.8 source: worker packages import this module.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional


class Problem:
    """One thing that is wrong, and where.

    Args:
        path: dotted place in what the person wrote (``config.learning_rate``); ``""`` for the whole.
        message: what was given, what is valid, what to do.
    """

    __slots__ = ("message", "path")

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def __repr__(self) -> str:
        return f"Problem({self.path!r}, {self.message!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and (self.path, self.message) == (other.path, other.message)

    def __hash__(self) -> int:
        return hash((self.path, self.message))

    def to_dict(self) -> Dict[str, str]:
        """``{"path": ..., "message": ...}``."""
        return {"path": self.path, "message": self.message}


class MosaicError(Exception):
    """Base of every error that mosaic_cluster raises on purpose."""

    exit_code = 1


class InvalidInput(MosaicError, ValueError):
    """Something a person wrote is wrong. Carries all problems at once.

    Args:
        problems: at least one :class:`Problem`.
        heading: what was being read, for the first line of the message.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[Problem], heading: Optional[str] = None) -> None:
        self.problems: List[Problem] = list(problems)
        self.heading = heading
        lines = [str(problem) for problem in self.problems]
        if heading:
            lines = [heading] + ["  " + line for line in lines]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> Any:
        return (type(self), (self.problems, self.heading))


class SpecError(InvalidInput):
    """A spec cannot be used as written."""


class ConfigError(InvalidInput):
    """A worker's config cannot be used as written."""


class PlacementError(InvalidInput):
    """No node of the cluster can ever satisfy a request."""


class WorkerError(MosaicError):
    """Something about a worker package."""

    exit_code = 2


class WorkerNotFound(WorkerError, LookupError):
    """No worker of that name is installed."""


class DuplicateWorker(WorkerError):
    """Two distributions register a worker under one name."""


class BrokenWorker(WorkerError):
    """A worker's entry point is registered but cannot be loaded."""


class EnvironmentFailed(WorkerError):
    """The environment that a worker runs in cannot be built or used.

    Args:
        message: what failed, and how.
        summary: the same in a sentence or two; by default, the message.
        network: whether it looks as if the network was to blame, so that it may go well another time.
        cancelled: whether it was asked to stop.
    """

    exit_code = 1

    def __init__(self, message: str, *, summary: str = "", network: bool = False, cancelled: bool = False) -> None:
        super().__init__(message)
        self.summary = summary or message
        self.network = network
        self.cancelled = cancelled


class StorageError(MosaicError):
    """Storage refused or failed."""


class AlreadyExists(StorageError, FileExistsError):
    """Create-if-absent found the object there."""


class NotFound(StorageError, FileNotFoundError):
    """No such object."""


class NoSuchBucket(StorageError):
    """The bucket does not exist; unlike a missing object, no writing brings it about."""


class StorageDenied(StorageError):
    """A credential is missing, wrong, expired, or does not allow this; trying again does not help."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or only with transient faults, for as long as it was asked."""


class Fenced(StorageError):
    """Another writer has taken over; whoever sees this must stop writing."""


class PolicyError(MosaicError):
    """A policy failed, or its process cannot be started or reached."""


class SupervisionError(MosaicError):
    """A worker process cannot be started or controlled."""


class BackendError(MosaicError):
    """The cluster cannot be reached or used."""


__all__ = [
    "AlreadyExists",
    "BackendError",
    "BrokenWorker",
    "ConfigError",
    "DuplicateWorker",
    "EnvironmentFailed",
    "Fenced",
    "InvalidInput",
    "MosaicError",
    "NoSuchBucket",
    "NotFound",
    "PlacementError",
    "PolicyError",
    "Problem",
    "SpecError",
    "StorageDenied",
    "StorageError",
    "StorageUnavailable",
    "SupervisionError",
    "WorkerError",
    "WorkerNotFound",
]
