"""Folders a worker may write to: below the folder of its own run, where there is one.

Any ``VAR_*`` name is a folder here, ``VAR_TENSORBOARD_DIR`` for example is ``<run dir>/tensorboard``.
"""

import os
from pathlib import Path


def run_dir() -> Path:
    """The folder of this process's run; the working directory outside of one."""
    return Path(os.environ.get("MOSAIC_RUN_DIR") or os.getcwd())


def ensure_var_directories() -> None:
    """Make the run's folder."""
    run_dir().mkdir(parents=True, exist_ok=True)


def __getattr__(name: str) -> Path:
    if not name.startswith("VAR_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    rest = name[4:].lower()
    for ending in ("_dir", "_root", "_path"):
        if rest.endswith(ending):
            rest = rest[: -len(ending)]
    return run_dir() if rest in ("", "root", "trainer") else run_dir() / rest
