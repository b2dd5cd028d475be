"""Whole objects on a path that every node reaches, through ``obstore``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError

DEFAULT_LOCATION = "./mosaic-results"
Names = list[str]


def default_location() -> str:
    """Where experiments go when nobody says: ``$MOSAIC_STORAGE``, else ``./mosaic-results``."""
    return os.environ.get("MOSAIC_STORAGE") or DEFAULT_LOCATION


class Storage:
    """A folder of whole objects, named by relative POSIX paths.

    Opening never creates anything; the first write does.

    Args:
        location: folder on a local or shared file system; ``~`` is expanded.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location)
        if "://" in text:
            raise StorageError(
                f"storage {text!r} is a URI; this version keeps experiments on a local or shared file "
                "system: give a path that every node reaches, such as /nfs/team/mosaic-results"
            )
        self.local_path = Path(os.path.abspath(os.path.expanduser(text)))
        if self.local_path.exists() and not self.local_path.is_dir():
            raise StorageError(f"storage {str(self.local_path)!r} is a file; give a folder")
        self._opened: LocalStore | None = None

    @classmethod
    def open(cls, location: str | Path) -> Storage:
        """The storage at ``location``."""
        return cls(location)

    @property
    def location(self) -> str:
        """The absolute location, as it can be given to :meth:`open` on any node."""
        return str(self.local_path)

    def __repr__(self) -> str:
        return f"Storage({self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.local_path == other.local_path

    def __hash__(self) -> int:
        return hash(self.local_path)

    def __reduce__(self) -> Any:
        return (Storage, (self.location,))

    def at(self, prefix: str) -> Storage:
        """The storage below ``prefix``."""
        return Storage(self.local_path / prefix)

    def path(self, name: str) -> Path:
        """The absolute file path of an object."""
        return self.local_path / name

    def put(self, name: str, data: bytes) -> None:
        """Write ``data``, replacing what was there in one step."""
        with self._errors(f"write {name}"):
            obstore.put(self._writable(), name, data, mode="overwrite", use_multipart=False)

    def create(self, name: str, data: bytes) -> None:
        """Write ``data`` only if no object of that name exists.

        Raises:
            AlreadyExists: somebody was first; nothing was changed.
        """
        with self._errors(f"create {name}"):
            obstore.put(self._writable(), name, data, mode="create", use_multipart=False)

    def get(self, name: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: there is no such object.
        """
        if not self.local_path.is_dir():
            raise NotFound(f"{self.location}: no such folder")
        with self._errors(f"read {name}"):
            try:
                return bytes(obstore.get(self._store(), name).bytes())
            except FileNotFoundError as error:
                raise NotFound(f"{self.location}: no object {name}") from error

    def exists(self, name: str) -> bool:
        """Whether an object of that name is there."""
        return self.path(name).is_file()

    def delete(self, name: str) -> None:
        """Remove an object; it is no error if it is gone already."""
        if self.exists(name):
            with self._errors(f"delete {name}"):
                obstore.delete(self._store(), name)

    def list(self, prefix: str = "") -> Names:
        """Names of all objects below ``prefix``, recursively, sorted."""
        folder = self.local_path / prefix
        if not folder.is_dir():
            return []
        with self._errors(f"list {prefix or self.location}"):
            found = obstore.list(LocalStore(prefix=folder)).collect()
        base = PurePosixPath(prefix)
        return sorted(str(base / item["path"]) for item in found)

    def folders(self, prefix: str = "") -> Names:
        """Names of the folders directly below ``prefix``, sorted."""
        folder = self.local_path / prefix
        if not folder.is_dir():
            return []
        with self._errors(f"list {prefix or self.location}"):
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())

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
            raise StorageError(f"{self.path(name)} is not JSON: {error}") from error

    def _writable(self) -> LocalStore:
        # A folder removed while we run is made again rather than failing each write.
        if not self.local_path.is_dir():
            with self._errors("make the folder"):
                self.local_path.mkdir(parents=True, exist_ok=True)
        return self._store()

    def _store(self) -> LocalStore:
        if self._opened is None:
            self._opened = LocalStore(prefix=self.local_path)
        return self._opened

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError as error:
            raise AlreadyExists(f"{self.location}: cannot {action}: it exists already") from error
        except StorageError:
            raise
        except (BaseError, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(f"{self.location}: cannot {action}: {first}") from error


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"
