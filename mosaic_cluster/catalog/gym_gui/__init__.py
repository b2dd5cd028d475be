"""The contract of :mod:`mosaic_cluster.worker` under the name ``gym_gui``, where no real ``gym_gui`` is installed.

Where one is, it wins: this package then turns into it on import.
"""

import os
import sys
from importlib import machinery
from typing import Any

_OWN = os.path.dirname(os.path.abspath(__file__))


def _real() -> Any:
    """The import spec of another package of this name, or ``None``."""
    root = os.path.dirname(_OWN)
    others = [place for place in sys.path if os.path.abspath(place or os.getcwd()) != root]
    for finder in sys.meta_path:
        path = others if finder is machinery.PathFinder else None
        try:
            spec = finder.find_spec("gym_gui", path)
        except Exception:  # noqa: BLE001, S112 - a finder of somebody else's; the next one may know
            continue
        # A folder without __init__ is found too (a namespace package): that is nobody's gym_gui.
        if spec is not None and spec.origin and os.path.dirname(os.path.abspath(spec.origin)) != _OWN:
            return spec
    return None


_spec = _real()
if _spec is not None:
    __file__ = _spec.origin
    __path__ = list(_spec.submodule_search_locations or [])
    if __spec__ is not None:
        __spec__.origin = _spec.origin
        __spec__.submodule_search_locations = __path__
    exec(_spec.loader.get_code("gym_gui"))
