"""The folder through which worker processes see the contract, and nothing else of ours.

It holds ``mosaic_cluster/{__init__,worker}`` and the package ``gym_gui``, the name under which other frameworks'
workers import the same contract; and a ``sitecustomize`` that keeps torch within a share of a GPU. It is made once
per content, under the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import mosaic_cluster
from mosaic_cluster.storage import cache_folder

ROOT = Path(mosaic_cluster.__file__).parent
GYM_GUI = Path(__file__).parent / "gym_gui"


@lru_cache(maxsize=1)
def _sources() -> dict[str, bytes]:
    """Content of every file, by its place in the folder."""
    found = {"mosaic_cluster/__init__.py": (ROOT / "__init__.py").read_bytes()}
    found["sitecustomize.py"] = (Path(__file__).parent / "site_hook.py").read_bytes()
    for base, prefix in ((ROOT / "worker", "mosaic_cluster/worker"), (GYM_GUI, "gym_gui")):
        for path in sorted(base.rglob("*.py")):
            found[f"{prefix}/{path.relative_to(base).as_posix()}"] = path.read_bytes()
    return found


@lru_cache(maxsize=1)
def contract_digest() -> str:
    """Short digest of what the folder holds."""
    total = hashlib.sha256()
    for name, content in sorted(_sources().items()):
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:16]


def contract_folder(cache_dir: Path | None = None) -> Path:
    """The folder, made if it is not there yet.

    Args:
        cache_dir: where folders are kept; the user's cache by default.
    """
    parent = (cache_dir or cache_folder()) / "contract"
    folder = parent / contract_digest()
    if _whole(folder):
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        for name, content in _sources().items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        os.chmod(staged, 0o755)
        if folder.exists():  # somebody removed files from it
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(staged, folder)
        except OSError:
            if not _whole(folder):  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _whole(folder: Path) -> bool:
    return folder.is_dir() and all((folder / name).is_file() for name in _sources())
