"""The analytics manifest: what a run left behind, and where. One JSON file, ``analytics.json``, per run.

Paths in it are relative to the run's folder, or absolute.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar, Union

from mosaic_cluster.worker._plain import to_plain
from mosaic_cluster.worker.errors import ConfigError, Problem

_T = TypeVar("_T")
MANIFEST = "analytics.json"
"""Name of a run's manifest, in the run's folder."""

_PathLike = Union[str, "os.PathLike[str]"]


@dataclass
class TensorBoardMetadata:
    """TensorBoard event files.

    Attributes:
        log_dir: folder with them.
        enabled: whether any were written.
        port, url: of a server that shows them, if one runs.
        extra: what else a manifest file said about them.
    """

    log_dir: str
    enabled: bool = True
    port: Optional[int] = None
    url: Optional[str] = None
    extra: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log_dir = _path_text(self.log_dir)

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values; what is ``None`` is left out."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> TensorBoardMetadata:
        """From an object, or from the folder alone."""
        return _from_dict(cls, data, text_is="log_dir")


@dataclass
class WandBMetadata:
    """A Weights & Biases run.

    Attributes:
        project, entity, run_id, run_name: where it is.
        url: of its page.
        enabled: whether it was used.
        extra: what else a manifest file said about it.
    """

    project: str = ""
    entity: Optional[str] = None
    run_id: Optional[str] = None
    run_name: Optional[str] = None
    url: Optional[str] = None
    enabled: bool = True
    extra: Dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values; what is ``None`` is left out."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> WandBMetadata:
        """From an object, or from its URL or its project's name alone."""
        is_url = isinstance(data, str) and data.startswith(("http://", "https://"))
        return _from_dict(cls, data, text_is="url" if is_url else "project")


@dataclass
class CheckpointMetadata:
    """Checkpoints.

    Attributes:
        directory: folder with them.
        format: ``"pytorch"``, ``"jax"``, ...
        files: the files, oldest first.
        best_checkpoint: file of the best one.
        final_checkpoint: file of the last one.
        extra: what else a manifest file said about them.
    """

    directory: str
    format: str = "unknown"
    files: List[str] = field(default_factory=list)
    best_checkpoint: Optional[str] = None
    final_checkpoint: Optional[str] = None
    extra: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = _path_text(self.directory)

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values; what is ``None`` is left out."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> CheckpointMetadata:
        """From an object, or from the folder alone."""
        return _from_dict(cls, data, text_is="directory")


@dataclass
class ArtifactsMetadata:
    """What a run left behind. ``tensorboard``, ``wandb`` and ``checkpoints`` may be given as plain text or
    objects, and are normalised.

    Attributes:
        tensorboard: event files; text: their folder.
        wandb: a Weights & Biases run; text: its URL or its project.
        checkpoints: text: their folder.
        logs_dir: folder with logs.
        videos_dir: folder with videos.
        extra: what else a manifest file listed.
    """

    tensorboard: Optional[TensorBoardMetadata] = None
    wandb: Optional[WandBMetadata] = None
    checkpoints: Optional[CheckpointMetadata] = None
    logs_dir: Optional[str] = None
    videos_dir: Optional[str] = None
    extra: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._normalise()

    def _normalise(self) -> None:
        self.tensorboard = _part(TensorBoardMetadata, self.tensorboard)
        self.wandb = _part(WandBMetadata, self.wandb)
        self.checkpoints = _part(CheckpointMetadata, self.checkpoints)
        self.logs_dir = None if self.logs_dir is None else _path_text(self.logs_dir)
        self.videos_dir = None if self.videos_dir is None else _path_text(self.videos_dir)

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values; what was not left behind is left out."""
        self._normalise()
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> ArtifactsMetadata:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: not an object, or a part of it is not.
        """
        return _from_dict(cls, data)


@dataclass
class WorkerAnalyticsManifest:
    """What a run left behind, and what its worker wants to say about it.

    Attributes:
        run_id: of the run.
        worker_type: of its worker.
        artifacts: what is where.
        metadata: the worker's own facts; any values.
        extra: what else a manifest file said at its top, kept as it came.
    """

    run_id: str
    worker_type: str
    artifacts: ArtifactsMetadata = field(default_factory=ArtifactsMetadata)
    metadata: Dict[str, Any] = field(default_factory=dict)
    extra: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.artifacts is None or isinstance(self.artifacts, Mapping):
            self.artifacts = ArtifactsMetadata.from_dict(self.artifacts or {})
        if not isinstance(self.artifacts, ArtifactsMetadata):
            raise ConfigError([Problem("artifacts", f"must be an object, not {self.artifacts!r}")])
        if self.metadata is None:
            self.metadata = {}

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values; empty artifacts are left out."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> WorkerAnalyticsManifest:
        """The inverse of :meth:`to_dict`; a missing ``worker_type`` is taken as ``""``.

        Raises:
            ConfigError: not an object, or without a ``run_id``, or a part is of another kind than it must be.
        """
        if isinstance(data, Mapping):
            data = {"worker_type": "", **data}
            if not isinstance(data.get("metadata") or {}, Mapping):
                raise ConfigError([Problem("metadata", f"must be an object, not {data['metadata']!r}")])
        return _from_dict(cls, data)

    def save(self, path: _PathLike) -> Path:
        """Write the manifest as a whole: a reader sees the old file or the new one. Parent folders are made.

        Returns:
            the path.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
        try:
            with open(unfinished, "w", encoding="utf-8") as file:
                json.dump(self.to_dict(), file, indent=2, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
        return target

    @classmethod
    def load(cls, path: _PathLike) -> WorkerAnalyticsManifest:
        """Read a manifest file.

        Raises:
            OSError: it cannot be read.
            ConfigError: it is not JSON, or not a manifest.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8-sig")))
        except ConfigError as error:
            raise ConfigError(error.problems, heading=f"the analytics manifest {path}") from None
        except (ValueError, RecursionError) as error:
            problem = Problem("", f"not JSON: {error}")
            raise ConfigError([problem], heading=f"the analytics manifest {path}") from error


def _path_text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _part(cls: Type[_T], value: Any) -> Optional[_T]:
    """``value`` as an instance of ``cls``; ``None`` for ``None`` and for empty text."""
    if value is None or value == "" or isinstance(value, cls):
        return value or None
    made: _T = cls.from_dict(value)  # type: ignore[attr-defined]
    return made


def _to_dict(value: Any) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for spec in fields(value):
        item = getattr(value, spec.name)
        if spec.name != "extra" and item is not None:
            found[spec.name] = item.to_dict() if hasattr(item, "to_dict") else to_plain(item)
    extra: Dict[str, Any] = to_plain(value.extra)
    return {**extra, **found}


def _from_dict(cls: Type[_T], data: Any, *, text_is: Optional[str] = None) -> _T:
    if text_is and isinstance(data, (str, os.PathLike)):
        data = {text_is: data}
    if not isinstance(data, Mapping):
        raise ConfigError([Problem("", f"{cls.__name__} is read from an object, not from {data!r}")])
    specs = {spec.name: spec for spec in fields(cls)}  # type: ignore[arg-type]
    known = {key: item for key, item in data.items() if key in specs and key != "extra" and item is not None}
    extra = {key: item for key, item in data.items() if key not in specs or key == "extra"}
    make: Any = cls
    try:
        made: _T = make(**known, extra=extra)
        return made
    except TypeError as error:
        raise ConfigError([Problem("", f"{cls.__name__}: {error}")]) from None


__all__ = [
    "ArtifactsMetadata",
    "CheckpointMetadata",
    "TensorBoardMetadata",
    "WandBMetadata",
    "WorkerAnalyticsManifest",
]
