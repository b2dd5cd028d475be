"""What a run of this worker leaves beside its checkpoints, for the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def leavings(run_dir: Path) -> dict[str, Any]:
    """Paths, relative to the run's folder, of the exported policy and of a recorded dataset, where they are."""
    places = {"policy": run_dir / "policy", "dataset": run_dir / "dataset"}
    return {name: str(place.relative_to(run_dir)) for name, place in places.items() if place.is_dir()}


__all__ = ["leavings"]
