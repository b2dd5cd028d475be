"""Analytics manifests: each run's, completed or written, and the experiment's index of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.runtime.checkpoints import last_checkpoint
from mosaic_cluster.runtime.saved import saved_checkpoints
from mosaic_cluster.telemetry.bridges import BRIDGES, FOLDER
from mosaic_cluster.worker import (
    ArtifactsMetadata,
    CheckpointMetadata,
    WorkerAnalyticsManifest,
)
from mosaic_cluster.worker.analytics import MANIFEST
from mosaic_cluster.worker.errors import MosaicError, NotFound

TABLES = ("lifecycle", "steps", "episodes", "metrics")
OURS = {"attempts", "checkpoints"}


def write_run_manifest(home: ExperimentHome, life: RunLife) -> None:
    """Find the manifest a worker wrote (or start one), complete it, and put it at ``runs/<id>/analytics.json``."""
    with _run_files(home, life) as files:
        manifest = _worker_manifest(files.folder, life)
        manifest.metadata["mosaic"] = _facts(home, life)
        manifest.artifacts.checkpoints = _checkpoints(files, manifest.artifacts.checkpoints)
    home.storage.put_json(f"runs/{life.run_id}/{MANIFEST}", manifest.to_dict())


def write_experiment_manifest(
    home: ExperimentHome,
    record: Mapping[str, Any],
    lives: Sequence[RunLife],
    state: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the experiment's ``analytics.json``: where every run's manifest and every table is.

    Args:
        more: what its kind adds.
    """
    places = _places(home)
    home.storage.put_json(
        MANIFEST,
        {
            "experiment_id": home.experiment_id,
            "kind": record.get("kind"),
            "name": record.get("name"),
            "state": state,
            "spec_digest": record.get("digest"),
            "runs": [{**_index_entry(life), **places.get(life.run_id, {})} for life in lives],
            "telemetry": {table: f"telemetry/{table}/**/*.parquet" for table in TABLES},
            **(more or {}),
        },
    )


def _index_entry(life: RunLife) -> dict[str, Any]:
    entry = life.to_dict()
    return {
        "run_id": life.run_id,
        "worker": life.plan.worker.name,
        "seed": life.plan.seed,
        **({} if life.plan.trial is None else {"trial": life.plan.trial}),
        "state": life.state,
        "reason": life.reason,
        "attempts": life.attempt,
        "last_step": entry["step"],
        "manifest": f"runs/{life.run_id}/{MANIFEST}" if life.ended else None,
    }


def _places(home: ExperimentHome) -> dict[str, dict[str, Any]]:
    """Where bridges have written each run: ``bridges``, by the bridge's name."""
    found: dict[str, dict[str, Any]] = {}
    for name in BRIDGES:
        try:
            runs = home.storage.get_json(f"{FOLDER}/{name}.json")["runs"]
        except NotFound:
            continue
        for run_id, mark in runs.items():
            if mark["where"] is not None:
                found.setdefault(run_id, {"bridges": {}})["bridges"][name] = mark["where"]
    return found


def _facts(home: ExperimentHome, life: RunLife) -> dict[str, Any]:
    return {
        "experiment_id": home.experiment_id,
        "worker": life.plan.worker.name,
        "seed": life.plan.seed,
        "state": life.state,
        "reason": life.reason,
        "failures": life.failures,
        "elapsed_seconds": life.elapsed,
        "attempts": life.attempts,
        "declared": life.plan.request.to_dict(),
        "memory": life.memory(),
        **({"growths": life.growths} if life.growths else {}),
        **({} if life.plan.trial is None else {"trial": life.plan.trial}),
        **({"lineage": life.lineage} if life.lineage else {}),
    }


def _worker_manifest(folder: Path, life: RunLife) -> WorkerAnalyticsManifest:
    """The worker's own manifest, wherever under its run folder it put it; an empty one if there is none."""
    unreadable: dict[str, str] = {}
    for path in _candidates(folder, life.run_id):
        try:
            found = WorkerAnalyticsManifest.load(path)
        except (OSError, ValueError, TypeError, KeyError, MosaicError) as error:
            unreadable[str(path.relative_to(folder))] = f"{type(error).__name__}: {error}"
            continue
        found.run_id = life.run_id
        if unreadable:
            found.metadata["unreadable_manifests"] = unreadable
        return found
    metadata: dict[str, Any] = {"unreadable_manifests": unreadable} if unreadable else {}
    return WorkerAnalyticsManifest(
        run_id=life.run_id, worker_type=life.plan.worker.name, artifacts=ArtifactsMetadata(), metadata=metadata
    )


def _candidates(folder: Path, run_id: str) -> list[Path]:
    named = f"{run_id}_{MANIFEST}"
    near = [path for path in (folder / named, folder / MANIFEST) if path.is_file()]
    deeper = [
        path
        for path in sorted(folder.rglob(f"*{MANIFEST}"))
        if path.relative_to(folder).parts[0] not in OURS and path not in near
    ]
    return near + deeper


def _checkpoints(files: RunFiles, known: CheckpointMetadata | None) -> CheckpointMetadata | None:
    """Checkpoints in the manifest, with the files that are really there and the last one announced."""
    if known is None:
        if not files.checkpoints:
            return None
        known = CheckpointMetadata(directory="checkpoints")
    known.files = known.files or files.checkpoints
    # A manifest may be of an earlier attempt: one that is killed writes none, and has saved later ones.
    announced = files.last_checkpoint()
    if announced is not None:
        if announced != known.final_checkpoint and not _listed(announced, known.files):
            known.files = [*known.files, announced]
        known.final_checkpoint = announced
    return known


def _listed(name: str, files: Sequence[str]) -> bool:
    return any(each == name or each.startswith(f"{name}/") for each in files)


@dataclass(frozen=True)
class RunFiles:
    """What a run left.

    Attributes:
        folder: its folder, or one with what its manifest may be made of.
        checkpoints: names of the checkpoints' files, relative to its folder.
        last_checkpoint: finds the name of the last one announced.
    """

    folder: Path
    checkpoints: list[str]
    last_checkpoint: Callable[[], str | None]


@contextmanager
def _run_files(home: ExperimentHome, life: RunLife) -> Iterator[RunFiles]:
    if home.storage.is_local:
        folder = home.run_dir(life.run_id)
        checkpoints = folder / "checkpoints"
        files = (
            sorted(str(path.relative_to(folder)) for path in checkpoints.rglob("*") if _finished(path, folder))
            if checkpoints.is_dir()
            else []
        )
        yield RunFiles(folder, files, lambda: _last_announced(folder, life.attempt))
        return
    run = home.storage.at(f"runs/{life.run_id}")
    saved = [each for attempt in range(1, life.attempt + 1) for each in saved_checkpoints(run, attempt)]
    with tempfile.TemporaryDirectory(prefix="mosaic-manifest-") as there:
        for name in run.list():
            if name.endswith(MANIFEST) and name.split("/")[0] not in OURS:
                run.download(name, Path(there) / name)
        names = sorted({name for each in saved for name in each.names()})
        yield RunFiles(Path(there), names, lambda: saved[-1].stored if saved else None)


def _finished(path: Path, folder: Path) -> bool:
    """Whether it is of a checkpoint: hidden is what is being written, and the list that sessions keep of them."""
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _last_announced(folder: Path, attempts: int) -> str | None:
    found = last_checkpoint(folder, attempts + 1)
    if found is None:
        return None
    path = Path(found.path)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else found.path
