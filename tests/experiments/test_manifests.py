"""What a run's manifest says once its attempts are over."""

from __future__ import annotations

import json
from pathlib import Path

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.life import RunLife, RunPlan
from mosaic_cluster.experiments.manifests import write_run_manifest
from mosaic_cluster.placement import Request
from mosaic_cluster.runtime.backend import WorkerLaunch
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits
from mosaic_cluster.worker import ArtifactsMetadata, CheckpointMetadata, WorkerAnalyticsManifest

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def test_the_last_checkpoint_is_the_one_that_a_killed_attempt_announced_last(tmp_path: Path) -> None:
    home = ExperimentHome.create(Storage.open(tmp_path), "e1", {})
    folder = home.run_dir(RUN)
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("1.pt", "2.pt", ".announced.json", ".3.pt.tmp"):
        (folder / "checkpoints" / name).write_text("saved")
    saved = CheckpointMetadata("checkpoints", "pytorch", ["checkpoints/1.pt"], "checkpoints/1.pt", "checkpoints/1.pt")
    WorkerAnalyticsManifest(RUN, "w", ArtifactsMetadata(checkpoints=saved)).save(folder / "analytics.json")
    for attempt in (1, 2):
        log = folder / "attempts" / str(attempt) / "stdout.log"
        log.parent.mkdir(parents=True)
        payload = {"path": str(folder / "checkpoints" / f"{attempt}.pt"), "step": attempt}
        log.write_text(json.dumps({"event": "checkpoint_saved", "payload": payload}) + "\n")
    life = RunLife(
        RunPlan(RUN, WorkerLaunch("w", "w", True), {}, 1, Request(RUN), Limits(), 1.0, 0), since=0.0
    )  # fmt: skip
    life.attempt = 2

    write_run_manifest(home, life)
    found = WorkerAnalyticsManifest.load(folder / "analytics.json").artifacts.checkpoints
    assert found is not None
    assert (found.final_checkpoint, found.best_checkpoint) == ("checkpoints/2.pt", "checkpoints/1.pt")
    assert found.files == ["checkpoints/1.pt", "checkpoints/2.pt"]

    (folder / "analytics.json").unlink()
    write_run_manifest(home, life)
    found = WorkerAnalyticsManifest.load(folder / "analytics.json").artifacts.checkpoints
    assert found is not None
    assert found.files == ["checkpoints/1.pt", "checkpoints/2.pt"]
