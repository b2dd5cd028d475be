"""Whether a worker's library is Ray itself, and joins the cluster that the run is on.

Such a package has a file ``cluster.toml`` beside its code, with the one line ``joins = true``. It is data: to know of
it, the package is not imported.
"""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path

from mosaic_cluster.worker.errors import BrokenWorker

FILE = "cluster.toml"


def joins_cluster(package: str) -> bool:
    """Whether a worker declares that it joins.

    Args:
        package: its top package.

    Raises:
        BrokenWorker: what it declares cannot be read.
    """
    for folder in _folders(package):
        try:
            text = Path(folder, FILE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise BrokenWorker(f"{Path(folder, FILE)} cannot be read: {error}") from error
        return _parsed(Path(folder, FILE), text)
    return False


def _folders(package: str) -> list[str]:
    try:
        found = find_spec(package)  # of a top package: nothing is imported for that
    except (ImportError, ValueError):
        return []
    return list(found.submodule_search_locations or ()) if found is not None else []


def _parsed(path: Path, text: str) -> bool:
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BrokenWorker(f"{path} is not TOML: {error}") from error
    joins = said.get("joins", False)
    unknown = sorted(set(said) - {"joins"})
    if unknown or not isinstance(joins, bool):
        what = f"has {', '.join(unknown)}" if unknown else f"has joins = {joins!r}"
        raise BrokenWorker(f"{path} {what}; all it may hold is `joins = true`, or `joins = false`")
    return joins
