"""What a checkpoint says of itself, besides what the library saved: one JSON file in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping

from mosaic_cluster.worker import MosaicError, Problem

from marllib_worker.config import MarllibConfig

FORMAT = 1
DESCRIPTION = "mosaic.json"
_MUST_AGREE = ("backend", "algo", "env_id", "core_arch", "hidden_sizes", "share_policy")


def description(config: Mapping[str, Any], step: int, **more: Any) -> Dict[str, Any]:
    """The content of :data:`DESCRIPTION`.

    Args:
        config: the run's, as plain values.
        step: environment steps taken.
        more: what the backend adds.
    """
    return {"format": FORMAT, "step": step, "config": dict(config), **more}


def describe_checkpoint(folder: Path) -> Dict[str, Any]:
    """Read what a checkpoint says of itself.

    Raises:
        MosaicError: there is none, or it cannot be read.
    """
    advice = "resume from another one, or unset MOSAIC_RESUME_FROM to start anew"
    try:
        found = json.loads((Path(folder) / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MosaicError(f"{folder} is no checkpoint of this worker ({error}); {advice}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise MosaicError(f"the checkpoint {folder} is not of format {FORMAT}; {advice}")
    return found


def remove_unfinished(folder: Path) -> None:
    """Remove checkpoints that a killed process left half written."""
    for leftover in folder.glob(".checkpoint_*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def checkpoint_problems(config: MarllibConfig, described: Mapping[str, Any]) -> List[Problem]:
    """Why a run cannot go on from a checkpoint: its networks would not fit."""
    saved, given = described["config"], config.to_dict()
    return [
        Problem(name, f"is {given[name]!r}, but the checkpoint to resume from was made with {saved.get(name)!r}")
        for name in _MUST_AGREE
        if given[name] != saved.get(name)
    ]


__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "checkpoint_problems",
    "describe_checkpoint",
    "description",
    "remove_unfinished",
]
