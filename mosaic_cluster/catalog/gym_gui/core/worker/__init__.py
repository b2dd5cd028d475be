"""The names of :mod:`mosaic_cluster.worker`."""

from typing import Any, List

import mosaic_cluster.worker as _contract

__all__ = list(_contract.__all__)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(_contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted(__all__)
