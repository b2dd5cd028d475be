"""Whole objects on a path that every node reaches, through ``obstore``."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from mosaic_cluster.storage.objects import Names, Storage
from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError


class LocalStorage(Storage):
    """A folder on a local or shared file system.

    Args:
        location: the folder; ``~`` is expanded.
    """

    def __init__(self, location: str | Path) -> None:
        self._path = Path(os.path.abspath(os.path.expanduser(str(location))))
        if self._path.exists() and not self._path.is_dir():
            raise StorageError(f"storage {str(self._path)!r} is a file; give a folder")
        self._opened: LocalStore | None = None

    @property
    def location(self) -> str:
        return str(self._path)

    @property
    def is_local(self) -> bool:
        return True

    @property
    def local_path(self) -> Path:
        return self._path

    def __reduce__(self) -> Any:
        return (LocalStorage, (self.location,))

    def at(self, prefix: str) -> Storage:
        return LocalStorage(self._path / prefix)

    def _put(self, name: str, data: bytes) -> None:
        with self._errors(f"write {name}"):
            obstore.put(self._writable(), name, data, mode="overwrite", use_multipart=False)

    def _create(self, name: str, data: bytes) -> None:
        # A link to a file that is whole already. Over NFS, a link whose answer was lost is sent again and then
        # "exists already": the file's own count of links tells whose it is.
        with self._errors(f"create {name}"), self._staged(name) as staged:
            staged.write_bytes(data)
            try:
                os.link(staged, self.path(name))
            except FileExistsError as error:
                if staged.stat().st_nlink < 2:
                    raise AlreadyExists(f"{self.location}: cannot create {name}: it exists already") from error

    def _get(self, name: str) -> bytes:
        if not self._path.is_dir():
            raise NotFound(f"{self.location}: no such folder")
        with self._errors(f"read {name}", name):
            return bytes(obstore.get(self._store(), name).bytes())

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        with self._errors(f"look at {name}", name):
            return self.path(name).stat().st_size

    def modified(self, name: str) -> float:
        with self._errors(f"look at {name}", name):
            return self.path(name).stat().st_mtime

    def delete(self, name: str) -> None:
        if self.exists(name):
            with self._errors(f"delete {name}"):
                obstore.delete(self._store(), name)

    def list(self, prefix: str = "", after: str | None = None) -> Names:
        folder = self._path / prefix
        if not folder.is_dir():
            return []
        with self._errors(f"list {prefix or self.location}"):
            found = obstore.list(LocalStore(prefix=folder)).collect()
        base = PurePosixPath(prefix)
        names = sorted(str(base / item["path"]) for item in found)
        return names if after is None else [name for name in names if name > after]

    def folders(self, prefix: str = "") -> Names:
        folder = self._path / prefix
        if not folder.is_dir():
            return []
        with self._errors(f"list {prefix or self.location}"):
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())

    def _upload(self, name: str, path: Path) -> None:
        with self._errors(f"write {name} from {path}"), self._staged(name) as staged:
            shutil.copyfile(path, staged)
            os.replace(staged, self.path(name))

    def download(self, name: str, path: Path) -> None:
        with self._errors(f"copy {name} to {path}", name), partial(path) as staged:
            shutil.copyfile(self.path(name), staged)

    def open_input(self, name: str) -> Any:
        import pyarrow as pa

        with self._errors(f"read {name}", name):
            return pa.OSFile(str(self.path(name)))

    @contextmanager
    def _staged(self, name: str) -> Iterator[Path]:
        """A file beside the object's, of a name that is never listed; removed at the end."""
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f"{target.name[:200]}#{uuid.uuid4().int}")
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _writable(self) -> LocalStore:
        # A folder removed while we run is made again rather than failing each write.
        if not self._path.is_dir():
            with self._errors("make the folder"):
                self._path.mkdir(parents=True, exist_ok=True)
        return self._store()

    def _store(self) -> LocalStore:
        if self._opened is None:
            self._opened = LocalStore(prefix=self._path)
        return self._opened

    @contextmanager
    def _errors(self, action: str, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except (BaseError, OSError) as error:
            if name is not None and isinstance(error, FileNotFoundError) and not self.exists(name):
                raise NotFound(f"{self.location}: no object {name}") from error
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(f"{self.location}: cannot {action}: {first}") from error


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place at the end, if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name[:200]}#{uuid.uuid4().int}")
    try:
        yield staged
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
