"""Where an installed package's own files lie, without importing it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path


def distribution_of(name: str) -> metadata.Distribution | None:
    """The installed distribution of that name; ``None`` if there is none."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def package_places(distribution: metadata.Distribution, package: str) -> Iterator[Path]:
    """Places where a top package's source may be: beside the distribution, where an editable install points to, or
    where Python would import it from. They need not exist.

    Args:
        package: name of a top package, or of a module of one file (then ``.py`` is to be added).
    """
    yield Path(str(distribution.locate_file(package)))
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        origin = {}
    url = origin.get("url", "")
    if origin.get("dir_info", {}).get("editable") and url.startswith("file://"):
        yield Path(url.removeprefix("file://")) / package
        yield Path(url.removeprefix("file://")) / "src" / package
    try:
        # Of a top name this looks only, and imports nothing.
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return
    if spec is not None and spec.submodule_search_locations:
        yield from map(Path, spec.submodule_search_locations)
    elif spec is not None and spec.origin:
        yield Path(spec.origin).with_suffix("")


def package_file(distribution: metadata.Distribution, package: str, name: str) -> Path | None:
    """A file beside a package's code; ``None`` if it has none of that name."""
    for place in package_places(distribution, package):
        if place.is_dir():
            found = place / name
            return found if found.is_file() else None
    return None
