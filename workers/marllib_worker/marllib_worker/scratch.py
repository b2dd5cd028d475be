"""Where Ray 1.8 keeps what it needs while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Optional

_PREFIX = "ml"


def make_scratch(parent: Optional[Path] = None) -> Path:
    """A new folder of this process. Those that killed ones left are removed first.

    Args:
        parent: where; default: ``/tmp``. Unix sockets have paths of at most 107 characters, and Ray's stand deep in it.
    """
    if parent is None:
        parent = Path("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    for folder in parent.glob(_PREFIX + "*-*"):
        pid = folder.name[len(_PREFIX) :].partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and not _is_named(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def _is_named(folder: Path) -> bool:
    """Whether a process has it in its command line: a child may outlive its worker until an iteration is over."""
    name = os.fsencode(str(folder))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if name in (entry / "cmdline").read_bytes():
                    return True
    return False


__all__ = ["make_scratch"]
