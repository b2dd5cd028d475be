"""For a worker's package: names that are loaded when they are first asked for, so that discovery imports no library."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Callable, List, Mapping, Optional, Tuple


def lazy_names(package: str, homes: Mapping[str, str]) -> Tuple[Callable[[str], Any], Callable[[], List[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562)::

        __getattr__, __dir__ = lazy_names(__name__, {"MyRuntime": "my_worker.runtime"})

    Args:
        package: its name, ``__name__``.
        homes: of each name the module that it is loaded from.
    """

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> List[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names


def installed_version(distribution: str) -> Optional[str]:
    """The version of a library as pip knows it, None where it is not installed. Does not import it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
