"""Checkpoints: one file each, complete or not there, loadable without running anything that is in it."""

from __future__ import annotations

import contextlib
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleanrl_worker.envs import pack, unpack
from mosaic_cluster.worker.errors import MosaicError

FORMAT = 1
"""Raised when the content changes so that older files cannot be read."""

_NAME = re.compile(r"checkpoint_(\d+)\.pt")


class CheckpointError(MosaicError):
    """A checkpoint cannot be used."""


class CheckpointStore:
    """The checkpoint folder of one run.

    Args:
        directory: made when the first file is written.
        keep: how many of the newest files stay, beside the best one.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory.absolute()
        self._keep = keep
        # What a killed process left half written.
        for leftover in self.directory.glob(".checkpoint_*.tmp"):
            leftover.unlink(missing_ok=True)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.directory / f"checkpoint_{step}.pt"

    def holds(self, path: Path) -> bool:
        """Whether a file lies in this folder, whatever links lead to it."""
        return path.resolve().parent == self.directory.resolve()

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint. Under its name it is complete, or not there, also after a power cut.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        unfinished = self.directory / f".{path.name}.{os.getpid()}.tmp"
        try:
            with unfinished.open("wb") as file:
                torch.save({"format": FORMAT, "step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path

    def prune(self, best: Path | None = None) -> None:
        """Remove all but the newest files: by time, since a resume may have gone back to an earlier step.

        Args:
            best: stays, too.
        """
        for path in self.files()[: -self._keep]:
            if path != best:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def files(self) -> list[Path]:
        """All checkpoints, in the order they were written."""
        found = [path for path in self.directory.glob("checkpoint_*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Only tensors and plain values are accepted: nothing in the file is executed.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except Exception as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({type(error).__name__}: {error})") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"the checkpoint {path} has format {found!r}; this version reads format {FORMAT}")
    return state


def random_states(device: torch.device) -> dict[str, Any]:
    """The process-wide random states: the algorithms use none of them, but an environment may."""
    return {
        "python": random.getstate(),
        "numpy": pack(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put the process-wide random states back."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(unpack(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


__all__ = [
    "FORMAT",
    "CheckpointError",
    "CheckpointStore",
    "load_checkpoint",
    "random_states",
    "restore_random_states",
]
