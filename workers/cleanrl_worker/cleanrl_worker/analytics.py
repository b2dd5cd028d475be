"""The analytics manifest: what a run left behind, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleanrl_worker.config import CleanRLConfig
from mosaic_cluster.worker import ArtifactsMetadata, CheckpointMetadata, TensorBoardMetadata, WorkerAnalyticsManifest


def manifest_path(run_id: str, environ: Mapping[str, str] = os.environ) -> Path:
    """``analytics.json`` of the run's folder; without such a folder, ``<run_id>_analytics.json`` here."""
    run_dir = environ.get("MOSAIC_RUN_DIR")
    return Path(run_dir, "analytics.json") if run_dir else Path.cwd() / f"{run_id}_analytics.json"


def write_analytics_manifest(
    config: CleanRLConfig,
    *,
    checkpoints: list[Path],
    results: Mapping[str, Any],
    best: Path | None = None,
    notes: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """Write the manifest of a run.

    Args:
        config: of the run.
        checkpoints: its checkpoint files, oldest first.
        results: the numbers it ended with.
        best: the best of the checkpoints, where that is known.
        notes: anything to say.
        environ: where ``MOSAIC_RUN_DIR`` is looked up.

    Returns:
        where it is.

    Raises:
        OSError: it cannot be written.
    """
    path = manifest_path(config.run_id, environ)
    metadata: dict[str, Any] = {"config": config.to_dict(), "results": dict(results)}
    if notes:
        metadata["notes"] = notes
    saved = None
    if checkpoints:
        names = [_relative(file, path.parent) for file in checkpoints]
        saved = CheckpointMetadata(
            directory=_relative(checkpoints[-1].parent, path.parent),
            format="pytorch",
            files=names,
            best_checkpoint=_relative(best, path.parent) if best in checkpoints and best is not None else None,
            final_checkpoint=names[-1],
        )
    manifest = WorkerAnalyticsManifest(
        run_id=config.run_id,
        worker_type="cleanrl",
        artifacts=ArtifactsMetadata(checkpoints=saved),
        metadata=metadata,
    )
    return manifest.save(path)


def add_tensorboard(run_dir: Path, folders: list[Path]) -> None:
    """Add to a run's manifest where its event files are.

    Args:
        run_dir: the manifest's folder; without a manifest in it nothing is done.
        folders: of the event files; the last one is the newest.
    """
    path = run_dir / "analytics.json"
    if not folders or not path.exists():
        return
    manifest = WorkerAnalyticsManifest.load(path)
    manifest.artifacts.tensorboard = TensorBoardMetadata(log_dir=_relative(folders[-1], run_dir), enabled=True)
    manifest.save(path)


def _relative(path: Path, folder: Path) -> str:
    """Relative to the manifest's folder where it lies below: the folder may be moved as a whole."""
    absolute, base = path.resolve(), folder.resolve()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


__all__ = ["add_tensorboard", "manifest_path", "write_analytics_manifest"]
