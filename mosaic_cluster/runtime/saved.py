"""Checkpoints in an object store: whole ones only, as an index beside each attempt's records says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import NotFound, StorageError

INDEX = "checkpoints.json"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is whole in storage.

    Attributes:
        path: where it lies in the run's folder on a node.
        step: environment steps trained when it was written.
        attempt: which one wrote it; offset: where in that attempt's log it was announced, in bytes.
        stored: name of its object, or of the folder of its objects, in the run's folder in storage.
        files: bytes of each of its files, by their names below ``stored``; that of a single file is ``""``.
    """

    path: str
    step: int
    attempt: int
    offset: int
    stored: str
    files: Mapping[str, int]

    def names(self) -> list[str]:
        """Names of its objects."""
        return [f"{self.stored}/{name}" if name else self.stored for name in self.files]


def saved_checkpoints(run: Storage, attempt: int) -> list[Saved]:
    """Those of an attempt that are whole in storage, in the order they were announced.

    Args:
        run: the run's folder in storage.
    """
    try:
        document = run.get_json(f"attempts/{attempt}/{INDEX}")
    except NotFound:
        return []
    return sorted((Saved(**each) for each in document["checkpoints"]), key=lambda each: each.offset)


def fetch(run: Storage, saved: Saved, run_dir: Path) -> Path:
    """Bring a checkpoint to a run's folder on this node, whole or not at all; returns its path there.

    Raises:
        StorageError: it cannot be read, or is not what its index says.
        OSError: it cannot be written.
    """
    target = run_dir / saved.path
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    _remove(staged)
    try:
        for name, size in saved.files.items():
            path = staged / name if name else staged
            run.download(f"{saved.stored}/{name}" if name else saved.stored, path)
            if path.stat().st_size != size:
                raise StorageError(f"{run.describe(saved.stored)} is not whole: {name or 'it'} has not {size} bytes")
        _remove(target)
        os.replace(staged, target)
    finally:
        _remove(staged)
    return target


def copy_saved(source: Storage, saved: Saved, target: Storage, label: str) -> str:
    """Copy a checkpoint to another run's folder in storage; returns the copy's path in that.

    Args:
        source: the folder of the run that has it.
        label: name of the folder for it, below ``checkpoints``.
    """
    copied = f"checkpoints/{label}/{os.path.basename(saved.path)}"
    for name, stored in zip(saved.files, saved.names(), strict=True):
        with tempfile.TemporaryDirectory(prefix="mosaic-copy-") as there:
            path = Path(there) / "part"
            source.download(stored, path)
            target.upload(f"{copied}/{name}" if name else copied, path)
    return copied


def stored_at(run: Storage, path: str, step: int, attempt: int) -> Saved:
    """The copy that :func:`copy_saved` made at ``path``.

    Raises:
        NotFound: there is none.
    """
    if run.exists(path):
        files = {"": run.size(path)}
    else:
        files = {name.removeprefix(f"{path}/"): run.size(name) for name in run.list(path)}
    if not files:
        raise NotFound(f"{run.describe(path)}: there is no such checkpoint")
    return Saved(path, step, attempt, 0, path, files)


class Uploads:
    """Puts the checkpoints of one attempt into storage. Each is whole there before the index names it.

    Args:
        run: the run's folder in storage.
        run_dir: the same on this node.
    """

    def __init__(self, run: Storage, run_dir: Path, attempt: int) -> None:
        self._run, self._run_dir, self._attempt = run, run_dir, attempt
        self._mine: list[Saved] | None = None
        self._others: list[Saved] = []

    def there(self) -> set[int]:
        """Offsets of those that are in storage."""
        return {each.offset for each in self._entries()}

    def put(self, path: Path, step: int, offset: int) -> bool:
        """Upload one that was announced.

        Returns:
            Whether it is in storage now. One that was changed or removed since it was announced is not: whatever
            changed it announces it again.
        """
        before = _files(path)
        if not before:
            return False
        name = self._name(path, offset)
        if any(each.path == name and each.offset >= offset for each in self._entries()):
            return False  # written over since, and what is there now was announced later
        saved = Saved(
            path=name,
            step=step,
            attempt=self._attempt,
            offset=offset,
            stored=self._free(name, offset),
            files={each: seen[0] for each, seen in before.items()},
        )
        for each, object_name in zip(before, saved.names(), strict=True):
            self._run.upload(object_name, path / each if each else path)
        if _files(path) != before:
            self._delete([saved])
            return False
        entries = self._entries()
        gone = [each for each in entries if each.path == name or not _files(self._run_dir / each.path)]
        self._write([*(each for each in entries if each not in gone), saved])
        self._delete(gone)
        return True

    def _entries(self) -> list[Saved]:
        if self._mine is None:
            for attempt in range(1, self._attempt):
                self._others += saved_checkpoints(self._run, attempt)
            self._mine = saved_checkpoints(self._run, self._attempt)
        return self._mine

    def _name(self, path: Path, offset: int) -> str:
        plain = Path(os.path.normpath(path))
        if plain.is_relative_to(self._run_dir):
            return str(plain.relative_to(self._run_dir))
        return f"checkpoints/elsewhere/{self._attempt}-{offset}/{path.name}"

    def _free(self, name: str, offset: int) -> str:
        """A name in storage that no index knows: what is replaced stays whole until its successor is."""
        taken = {each.stored for each in [*self._entries(), *self._others]}
        return name if name not in taken else f"{name}@{self._attempt}-{offset}"

    def _write(self, entries: Sequence[Saved]) -> None:
        self._run.put_json(
            f"attempts/{self._attempt}/{INDEX}",
            {"checkpoints": [{**asdict(each), "files": dict(each.files)} for each in entries]},
        )
        self._mine = list(entries)

    def _delete(self, entries: Sequence[Saved]) -> None:
        for each in entries:
            for name in each.names():
                self._run.delete(name)


def _files(path: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time of change and inode of a checkpoint's files; empty if it is not usable."""
    try:
        if path.is_dir():
            return {str(each.relative_to(path)): _seen(each) for each in sorted(path.rglob("*")) if each.is_file()}
        return {"": _seen(path)} if path.stat().st_size else {}
    except OSError:
        return {}


def _seen(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
