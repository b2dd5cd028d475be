"""Environment variables of what is built and of what runs in it: nothing of our own Python's gets in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_OURS = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "RAY_", "__RAY", "MOSAIC_", "__PYVENV", "PYENV_VERSION", "UV_")
"""What steers this process's own Python, or belongs to it."""


def plain_variables(base: Mapping[str, str]) -> dict[str, str]:
    """Those of the user's that are not about this process's Python."""
    return {name: value for name, value in base.items() if not name.startswith(_OURS)}


def with_python(variables: Mapping[str, str], python: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Variables with which ``python`` on ``PATH`` is the given one.

    Args:
        python: its executable; that of a virtual environment makes it the active one.
        more: variables that the interpreter itself needs; search paths go before what is there.
    """
    found = dict(variables)
    for name, value in {**more, "PATH": str(python.parent)}.items():
        joined = name == "PATH" or name.endswith("_PATH")
        found[name] = os.pathsep.join([value, found[name]]) if joined and found.get(name) else value
    if (python.parent.parent / "pyvenv.cfg").is_file():
        found["VIRTUAL_ENV"] = str(python.parent.parent)
    found["PYTHONNOUSERSITE"] = "1"
    return found


def building_variables(base: Mapping[str, str], python: Path, more: Mapping[str, str]) -> dict[str, str]:
    """For the steps that build an environment. What the user tells pip holds, unless it is where to install."""
    found = with_python(plain_variables(base), python, more)
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON"):
        found.pop(name, None)
    found.update(
        PIP_USER="0",
        PIP_NO_INPUT="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PYTHONUNBUFFERED="1",
        PYTHONIOENCODING="utf-8",
    )
    return found
