"""The interface: whole objects in a folder, wherever that is."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from mosaic_cluster.worker.errors import StorageError

DEFAULT_LOCATION = "./mosaic-results"
RETRY_SECONDS = 60.0
Names = list[str]


def default_location() -> str:
    """Where experiments go when nobody says: ``$MOSAIC_STORAGE``, else ``./mosaic-results``."""
    return os.environ.get("MOSAIC_STORAGE") or DEFAULT_LOCATION


class Storage(ABC):
    """A folder of whole objects, named by relative POSIX paths.

    Opening never creates anything, and asks no server; the first write does.

    Raises (every method):
        StorageUnavailable: transient faults for longer than ``retry_seconds``.
        StorageDenied: a credential is missing, wrong, expired, or does not allow this.
        NoSuchBucket: the bucket does not exist.
        StorageError: anything else, and all of the above.
    """

    @staticmethod
    def open(location: str | Path | Storage, retry_seconds: float = RETRY_SECONDS) -> Storage:
        """The storage at ``location``.

        Args:
            location: folder on a local or shared file system (``~`` is expanded), or ``s3://bucket/prefix``.
            retry_seconds: for how long an operation on an object store is tried again after transient faults.
        """
        from mosaic_cluster.storage.local import LocalStorage
        from mosaic_cluster.storage.s3 import S3Storage

        if isinstance(location, Storage):
            return location
        text = str(location)
        return S3Storage(text, retry_seconds) if "://" in text else LocalStorage(text)

    @property
    @abstractmethod
    def location(self) -> str:
        """The absolute location, as it can be given to :meth:`open` on any node."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether it is a path, so that :attr:`local_path` and :meth:`path` are there."""

    @property
    def local_path(self) -> Path:
        """The folder, as a path.

        Raises:
            StorageError: it is not on a file system.
        """
        raise StorageError(
            f"{self.location} has no path: it is an object store; what needs files on disk needs a storage on a "
            "local or shared file system, such as /nfs/team/mosaic-results"
        )

    def path(self, name: str) -> Path:
        """The absolute file path of an object.

        Raises:
            StorageError: it is not on a file system.
        """
        return self.local_path / name

    def __repr__(self) -> str:
        return f"Storage({self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.location == other.location

    def __hash__(self) -> int:
        return hash(self.location)

    @abstractmethod
    def at(self, prefix: str) -> Storage:
        """The storage below ``prefix``."""

    def put(self, name: str, data: bytes) -> None:
        """Write ``data``, replacing what was there in one step."""
        self._put(checked(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Write ``data`` only if no object of that name exists.

        Raises:
            AlreadyExists: somebody was first; nothing was changed.
        """
        self._create(checked(name), data)

    def get(self, name: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: there is no such object.
        """
        return self._get(checked(name))

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether an object of that name is there."""

    @abstractmethod
    def size(self, name: str) -> int:
        """The object's size in bytes.

        Raises:
            NotFound: there is no such object.
        """

    @abstractmethod
    def modified(self, name: str) -> float:
        """When the object was written, in seconds since 1970, by the clock of whoever keeps it.

        Raises:
            NotFound: there is no such object.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; it is no error if it is gone already."""

    @abstractmethod
    def list(self, prefix: str = "", after: str | None = None) -> Names:
        """Names of all objects below the folder ``prefix``, recursively, sorted.

        Args:
            after: only names that come after this one.
        """

    @abstractmethod
    def folders(self, prefix: str = "") -> Names:
        """Names of the folders directly below ``prefix``, sorted."""

    def upload(self, name: str, path: Path) -> None:
        """Write a local file's bytes as an object, replacing what was there in one step. Of any size."""
        self._upload(checked(name), path)

    @abstractmethod
    def download(self, name: str, path: Path) -> None:
        """Write an object's bytes to a local file, replacing it in one step. Of any size.

        Raises:
            NotFound: there is no such object; ``path`` is as it was.
        """

    @abstractmethod
    def open_input(self, name: str) -> Any:
        """The object as a ``pyarrow.NativeFile`` to read and seek in; only what is read is fetched.

        Raises:
            NotFound: there is no such object.
        """

    @abstractmethod
    def _put(self, name: str, data: bytes) -> None:
        """:meth:`put`, of a name that is one."""

    @abstractmethod
    def _create(self, name: str, data: bytes) -> None:
        """:meth:`create`, of a name that is one."""

    @abstractmethod
    def _get(self, name: str) -> bytes:
        """:meth:`get`, of a name that is one."""

    @abstractmethod
    def _upload(self, name: str, path: Path) -> None:
        """:meth:`upload`, of a name that is one."""

    def describe(self, name: str) -> str:
        """Where an object is, for messages."""
        return f"{self.location}/{name}"

    def put_json(self, name: str, value: Any) -> None:
        """:meth:`put` a JSON document (indent 2, strict JSON)."""
        self.put(name, _dump(value))

    def create_json(self, name: str, value: Any) -> None:
        """:meth:`create` a JSON document (indent 2, strict JSON)."""
        self.create(name, _dump(value))

    def get_json(self, name: str) -> Any:
        """The object as JSON.

        Raises:
            NotFound: there is no such object.
            StorageError: it is not JSON.
        """
        try:
            return json.loads(self.get(name))
        except ValueError as error:
            raise StorageError(f"{self.describe(name)} is not JSON: {error}") from error


def checked(name: str) -> str:
    """``name``, if it is the name of an object.

    Raises:
        StorageError: it is empty, absolute, or has parts such as ``..``.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageError(f"{name!r} is no name of an object; give a relative path without '.' and '..'")
    return name


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"
