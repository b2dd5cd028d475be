"""Reading a spec's file: YAML or JSON, with an answer for everything a file can be."""

from __future__ import annotations

import json
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mosaic_cluster.specs.problems import shown
from mosaic_cluster.specs.yaml_text import load_yaml
from mosaic_cluster.units import format_bytes
from mosaic_cluster.worker.errors import Problem, SpecError

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST_FILE = 10 * 1024**2
EXAMPLE = "begin with kind: run"


def read_document(source: str | Path) -> dict[str, Any]:
    """Read a document, without checking what it says.

    Args:
        source: path of a YAML or JSON file (``.json`` is read as strict JSON); or, as ``str``, the text
            itself: it is text if it holds a line break or ``": "``, or starts with ``{``.

    Returns:
        Its keys and values.

    Raises:
        SpecError: it cannot be read, is neither YAML nor JSON, has a key twice, or is no mapping.
    """
    if isinstance(source, str) and _is_text(source):
        return _mapping(source, strict_json=False, heading=None)
    path = Path(source).expanduser()
    return _mapping(_read(path), strict_json=path.suffix.lower() == ".json", heading=str(source))


def _is_text(source: str) -> bool:
    return "\n" in source or ": " in source or source.lstrip().startswith("{")


def _read(path: Path) -> str:
    heading = str(path)
    try:
        if path.is_dir():
            raise _error(heading, f"is a folder; give a file in it{_such_as(_specs_in(path))}")
        if not path.exists():
            raise _error(heading, _missing(path))
        if not path.is_file():
            raise _error(heading, "is not a file; give a YAML or JSON file")
        if path.stat().st_size > LARGEST_FILE:
            size = format_bytes(path.stat().st_size)
            raise _error(heading, f"has {size}; a spec has at most {format_bytes(LARGEST_FILE)}: keep data elsewhere")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise _error(heading, f"is not text in UTF-8 ({where}); a spec is YAML or JSON text") from None
    except OSError as error:
        raise _error(heading, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise _error(heading, f"cannot be read: {error}") from None


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no such file; there is no folder {path.parent}"
    names = _specs_in(path.parent)
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return f"no such file; did you mean {' or '.join(near)}?"
    folder = "this folder" if path.parent == Path() else str(path.parent)
    if not names:
        return f"no such file; there is no YAML or JSON file in {folder}"
    return f"no such file; in {folder} there is: {', '.join(names[:5])}"


def _specs_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)


def _such_as(names: list[str]) -> str:
    return f", such as {' or '.join(names[:3])}" if names else "; it holds no YAML or JSON file"


def _mapping(text: str, *, strict_json: bool, heading: str | None) -> dict[str, Any]:
    if not text.strip():
        raise _error(heading, f"is empty; {EXAMPLE}")
    try:
        value, repeated = _load_json(text) if strict_json else load_yaml(text)
    except RecursionError:
        raise _error(heading, "is nested too deeply; write it flatter") from None
    except ValueError as error:
        raise _error(heading, str(error)) from None
    if repeated:
        raise SpecError([Problem("", message) for message in repeated], heading)
    if value is None:
        raise _error(heading, f"holds nothing but comments; {EXAMPLE}")
    if not isinstance(value, dict):
        raise _error(heading, f"holds {shown(value)} where keys and values should be; {EXAMPLE}")
    return value


def _load_json(text: str) -> tuple[Any, list[str]]:
    repeated: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        times = Counter(name for name, _ in found)
        repeated.extend(f"the key {name!r} is there twice; keep one" for name in times if times[name] > 1)
        return dict(found)

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}: {error.msg[:1].lower()}{error.msg[1:]}; a .json file is strict JSON") from None
    return value, _with_lines(text, repeated) if repeated else []


def _with_lines(text: str, repeated: list[str]) -> list[str]:
    """The same messages with lines, which the YAML reader knows: nearly all JSON is YAML."""
    try:
        return load_yaml(text.replace("\t", " "))[1] or repeated
    except ValueError:
        return repeated


def _error(heading: str | None, message: str) -> SpecError:
    return SpecError([Problem("", message)], heading)
