"""The folder through which worker processes see the contract, and nothing else of ours.

It holds ``mosaic_cluster/{__init__,worker}`` and the package ``gym_gui``, the name under which other frameworks'
workers import the same contract; and a ``sitecustomize`` that keeps torch within a share of a GPU. It is made once
per content, under the user's cache folder.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import mosaic_cluster
from mosaic_cluster.catalog.folders import digest_of, kept_folder
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
    return digest_of(_sources())


def contract_folder(cache_dir: Path | None = None) -> Path:
    """The folder, made if it is not there yet.

    Args:
        cache_dir: where folders are kept; the user's cache by default.
    """
    return kept_folder((cache_dir or cache_folder()) / "contract" / contract_digest(), _sources())
