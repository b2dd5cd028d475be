"""Folders of the cache that hold some files and never change: each is named by what it holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def digest_of(files: Mapping[str, bytes]) -> str:
    """Short digest of files: their content, by their place in a folder."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:16]


def kept_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make a folder of these files, if it is not there yet; it appears whole or not at all.

    Args:
        folder: its name must follow from the files, so that who finds it there need not compare them.
    """
    if _whole(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        for name, content in files.items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        os.chmod(staged, 0o755)
        if folder.exists():  # somebody removed files from it
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(staged, folder)
        except OSError:
            if not _whole(folder, files):  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _whole(folder: Path, files: Mapping[str, bytes]) -> bool:
    return folder.is_dir() and all((folder / name).is_file() for name in files)
