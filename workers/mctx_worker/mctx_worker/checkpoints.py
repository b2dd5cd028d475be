"""Checkpoints: one ``.npz`` file each, complete or not there. Nothing in it is ever unpickled.

An array per leaf of the training state, named by its place (``params/stem/w``), and ``header``: UTF-8 JSON with
``format``, ``step``, ``iteration``, ``seed``, the config and what the last evaluation said.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mosaic_cluster.worker.errors import MosaicError

FORMAT = 1
"""Raised when the content changes so that older files cannot be read."""


class CheckpointError(MosaicError):
    """A checkpoint cannot be used."""


def flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Every leaf of a tree, by name: ``prefix/part/part``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(prefix, path): np.asarray(leaf) for path, leaf in leaves}


def restore(template: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """The tree of a template's structure, from named arrays.

    Raises:
        CheckpointError: an array is missing, or of another shape or dtype.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    found = []
    for path, leaf in leaves:
        name = _name(prefix, path)
        array = arrays.get(name)
        if array is None:
            raise CheckpointError(f"the checkpoint holds no {name}: it was made by another version or config")
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            given, wanted = f"{array.dtype}{list(array.shape)}", f"{leaf.dtype}{list(leaf.shape)}"
            raise CheckpointError(f"{name} of the checkpoint is {given}; this config needs {wanted}")
        found.append(jax.numpy.asarray(array))
    return jax.tree_util.tree_unflatten(structure, found)


def save(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write a checkpoint. Under its name it is complete, or not there, also after a power cut.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}.{os.getpid()}.tmp"
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True).encode()
    try:
        with unfinished.open("wb") as file:
            # As numpy.savez_compressed does, but at the fastest level: boards of zeros and ones shrink with any.
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for name, array in {"header": np.frombuffer(text, np.uint8), **arrays}.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def load(path: Path, prefixes: tuple[str, ...] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint's header and arrays.

    Args:
        prefixes: read only arrays of these (``("params",)``); ``None``: all.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            names = [name for name in archive.files if name != "header"]
            wanted = [name for name in names if prefixes is None or name.split("/")[0] in prefixes]
            arrays = {name: archive[name] for name in wanted}
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}: {error}); take an older one"
        ) from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"the checkpoint {path} has format {found!r}; this version reads format {FORMAT}")
    return header, arrays


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for leftover in folder.glob(".checkpoint_*.tmp"):
        leftover.unlink(missing_ok=True)


def _name(prefix: str, path: tuple[Any, ...]) -> str:
    parts = [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path]
    return "/".join([prefix, *parts])


__all__ = ["FORMAT", "CheckpointError", "flatten", "load", "remove_unfinished", "restore", "save"]
