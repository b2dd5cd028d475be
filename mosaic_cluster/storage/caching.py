"""Where this user's machine keeps what can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """``$MOSAIC_CACHE``, else ``$XDG_CACHE_HOME/mosaic_cluster``, else ``~/.cache/mosaic_cluster``.

    Where that cannot be written (a home that is not there on a compute node), a folder of this user's in the
    temporary directory.
    """
    given = os.environ.get("MOSAIC_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path("~/.cache").expanduser()
    folder = folder / "mosaic_cluster"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _temporary()


def work_folder() -> Path:
    """Where this node keeps what runs on it work with, if their storage is no file system: ``$MOSAIC_SCRATCH``, else
    ``work`` in :func:`cache_folder`."""
    given = os.environ.get("MOSAIC_SCRATCH")
    return Path(os.path.abspath(os.path.expanduser(given))) if given else cache_folder() / "work"


def _temporary() -> Path:
    folder = Path(tempfile.gettempdir()) / f"mosaic_cluster-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # code is run from here: nobody else may own it
        return Path(tempfile.mkdtemp(prefix="mosaic_cluster-"))
    return folder
