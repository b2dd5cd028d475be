"""A worker's own code and its distribution's metadata, alone in a folder: what its environment gets of it.

Its distribution is installed beside mosaic_cluster, in a ``site-packages`` full of what an older Python must not see.
So the package is copied out; made once per content, under the user's cache folder.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from mosaic_cluster.catalog.folders import digest_of, kept_folder
from mosaic_cluster.catalog.sources import distribution_of, package_places
from mosaic_cluster.storage import cache_folder
from mosaic_cluster.worker.errors import EnvironmentFailed

_TEXTS = ("METADATA", "entry_points.txt", "top_level.txt")


def code_folder(distribution: str, package: str, cache_dir: Path | None = None) -> Path:
    """The folder, made if it is not there yet; to be put on ``PYTHONPATH``.

    Args:
        distribution: name of the installed distribution.
        package: top package of the worker; other top packages of the distribution come along.
        cache_dir: where folders are kept; the user's cache by default.

    Raises:
        EnvironmentFailed: the distribution or the package's code is not on this machine.
    """
    found = distribution_of(distribution)
    if found is None:
        raise EnvironmentFailed(
            f"the distribution {distribution} of this worker is not installed here: install it on each node, beside "
            "mosaic_cluster (its library is not needed there)"
        )
    files = _metadata(found, distribution)
    for name in _top_packages(found, package):
        files.update(_code(found, name))
    if not any(name.startswith((f"{package}/", f"{package}.py")) for name in files):
        raise EnvironmentFailed(f"the code of package {package} of {distribution} was not found on this machine")
    return kept_folder((cache_dir or cache_folder()) / "code" / f"{package}-{digest_of(files)}", files)


def _top_packages(distribution: metadata.Distribution, package: str) -> list[str]:
    listed = (distribution.read_text("top_level.txt") or "").split()
    return sorted({package, *(name for name in listed if not name.startswith("_"))})


def _code(distribution: metadata.Distribution, name: str) -> dict[str, bytes]:
    for place in package_places(distribution, name):
        if place.is_dir():
            return {
                f"{name}/{path.relative_to(place).as_posix()}": path.read_bytes()
                for path in sorted(place.rglob("*"))
                if path.is_file() and "__pycache__" not in path.parts
            }
        module = place.with_suffix(".py")
        if module.is_file():
            return {f"{name}.py": module.read_bytes()}
    return {}


def _metadata(distribution: metadata.Distribution, name: str) -> dict[str, bytes]:
    """What ``importlib.metadata`` needs to know of it, entry points included."""
    folder = f"{re.sub(r'[-_.]+', '_', name)}-{distribution.version}.dist-info"
    texts = {each: distribution.read_text(each) for each in _TEXTS}
    texts["METADATA"] = texts["METADATA"] or distribution.read_text("PKG-INFO")
    return {f"{folder}/{each}": text.encode() for each, text in texts.items() if text}
