"""``mosaic workers new``: a package that keeps the contract, to be filled with a library."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from string import Template

from mosaic_cluster.worker.discovery import registrations
from mosaic_cluster.worker.errors import ConfigError, Problem

_NAME = re.compile(r"[a-z][a-z0-9_]{0,48}[a-z0-9]")
_SUFFIX = ".tmpl"


def new_worker(name: str, path: Path) -> Path:
    """Write the package of a new worker.

    Args:
        name: of the worker, and of its package: lower case, as ``my_worker``.
        path: the folder in which a folder of that name is made.

    Returns:
        the folder made.

    Raises:
        ConfigError: the name cannot be used, there is something of that name, or the folder cannot be written to.
    """
    folder = path / name
    try:
        _make(name, path, folder)
    except OSError as error:
        raise ConfigError([Problem("path", f"{folder} cannot be made: {error}")]) from error
    return folder


def _make(name: str, path: Path, folder: Path) -> None:
    problems = [*_name_problems(name), *([Problem("path", f"{folder} is there already")] if folder.exists() else [])]
    if path.exists() and not path.is_dir():
        problems.append(Problem("path", f"{path} is no folder"))
    if problems:
        raise ConfigError(problems)
    path.mkdir(parents=True, exist_ok=True)
    # Whole, or not at all.
    staged = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=path))
    try:
        with resources.as_file(resources.files(__name__) / "template") as template:
            _write(template, staged, _words(name))
        staged.chmod(0o755)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _words(name: str) -> dict[str, str]:
    parts = [part for part in name.split("_") if part]
    return {
        "name": name,
        "package": name,
        "slug": "-".join(parts),
        "distribution": "-".join(parts),
        "title": " ".join(parts).capitalize(),
        "class_": "".join(part.capitalize() for part in parts),
    }


def _write(template: Path, folder: Path, words: dict[str, str]) -> None:
    for source in sorted(template.rglob(f"*{_SUFFIX}")):
        place = source.relative_to(template).as_posix().removesuffix(_SUFFIX)
        place = re.sub(r"^package/", f"{words['package']}/", place)
        place = place.replace("test_standardization", f"test_{words['name']}_standardization")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")


def _name_problems(name: str) -> list[Problem]:
    if not _NAME.fullmatch(name) or "__" in name:
        words = "must be 2 to 50 lower-case letters, digits and single underscores, beginning with a letter"
        return [Problem("name", f"{name!r} {words}, as 'my_worker'")]
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return [Problem("name", f"{name!r} is a word of Python's own")]
    owners = [claim.distribution for claim in registrations() if claim.name == name]
    if owners:
        return [Problem("name", f"the worker {name!r} is there already, in {owners[0]}")]
    try:
        there = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        there = True
    return [Problem("name", f"there is a module {name!r} already, which it would hide")] if there else []


__all__ = ["new_worker"]
