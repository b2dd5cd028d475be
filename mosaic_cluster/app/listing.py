"""Which experiments there are, and how each stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosaic_cluster.experiments.home import ExperimentHome, experiments_in
from mosaic_cluster.experiments.states import COMPLETED, FAILED, STARTING
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.storage import Storage, default_location
from mosaic_cluster.worker.errors import StorageError


def list_experiments(storage: str | None) -> tuple[str, list[dict[str, Any]]]:
    """The storage looked into, and one entry an experiment, oldest first. A damaged one is listed as such."""
    place = Storage.open(storage or default_location())
    return place.location, [_entry(home) for home in experiments_in(place)]


def _starting(status: Mapping[str, Any]) -> str:
    """Why an experiment has not begun, if none of its runs has."""
    reasons = (str(run.get("reason") or "") for run in status["runs"] if run["state"] == STARTING)
    return next(reasons, "") if status["state"] == STARTING else ""


def _entry(home: ExperimentHome) -> dict[str, Any]:
    try:
        status = read_status(home)
        runs = [run["state"] for run in status["runs"]]
        return {
            "experiment_id": home.experiment_id,
            "kind": str(status.get("kind") or ""),
            "name": str(status.get("name") or ""),
            "state": status["state"],
            "reason": str(status.get("reason") or _starting(status)),
            "runs": len(runs),
            # Stopped early by a scheduler is as meant.
            "completed": sum(run["state"] == COMPLETED or run.get("code") == "stopped_early" for run in status["runs"]),
            "failed": runs.count(FAILED),
            "created_at": float(status.get("created_at") or 0.0),
            "path": home.location,
        }
    except (StorageError, KeyError, TypeError, ValueError) as error:
        return {
            "experiment_id": home.experiment_id,
            "kind": "",
            "name": "",
            "state": "UNREADABLE",
            "reason": str(error),
            "runs": 0,
            "completed": 0,
            "failed": 0,
            "created_at": 0.0,
            "path": home.location,
        }
