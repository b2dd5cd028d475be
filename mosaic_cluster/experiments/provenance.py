"""What an experiment was made from: code, packages, machine."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mosaic-cluster", "ray", "torch", "gymnasium", "pettingzoo", "numpy", "pyarrow")


def provenance(folder: Path, distributions: Iterable[str]) -> dict[str, Any]:
    """Git state of ``folder``, versions of ``distributions`` and of what we stand on, and this machine."""
    return {
        "git": _git(folder),
        "packages": _versions((*PACKAGES, *distributions)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "user": os.environ.get("USER") or os.environ.get("LOGNAME"),
        "directory": str(folder),
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether the work tree differs from it; ``None`` outside a repository."""
    sha = _ask_git(folder, "rev-parse", "HEAD")
    if sha is None:
        return None
    changes = _ask_git(folder, "status", "--porcelain")
    return {"sha": sha, "dirty": bool(changes), "branch": _ask_git(folder, "rev-parse", "--abbrev-ref", "HEAD")}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
