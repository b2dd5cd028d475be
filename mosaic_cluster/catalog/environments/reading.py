"""Reading ``environment.toml``, strictly: all problems at once, each with its place."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.environments.declared import Environment, Step
from mosaic_cluster.worker.errors import InvalidInput, Problem

FILE = "environment.toml"
_PYTHON = re.compile(r"3\.\d+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OLDEST = (3, 8)
_NOT_THEIRS = ("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "VIRTUAL_ENV", "PATH", "CUDA_VISIBLE_DEVICES")


def read_environments(path: Path) -> tuple[Environment, ...]:
    """The environments that a worker's package declares.

    Raises:
        InvalidInput: with every problem.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput([Problem("", f"cannot be read: {error}")], str(path)) from None
    reader = _Reader()
    found = reader.document(document)
    if reader.problems:
        raise InvalidInput(reader.problems, str(path))
    return found


class _Reader:
    """Turns a document into environments, and keeps what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def document(self, document: Mapping[str, Any]) -> tuple[Environment, ...]:
        self._known(document, "", ["environment"])
        tables = document.get("environment")
        if not isinstance(tables, list) or not tables or not all(isinstance(each, dict) for each in tables):
            self._say("environment", "there must be at least one [[environment]] table")
            return ()
        found = tuple(self._environment(table, f"environment[{index}]") for index, table in enumerate(tables))
        seen: set[str] = set()
        for index, each in enumerate(found):
            if each.name in seen:
                self._say(f"environment[{index}].name", f"{each.name!r} is the name of an earlier one: give it another")
            seen.add(each.name)
        for index, each in enumerate(found[:-1]):
            if not each.when:
                after = ", ".join(repr(other.name) for other in found[index + 1 :])
                self._say(f"environment[{index}].when", f"without it this one is always used, and never {after}")
                break
        return found

    def _environment(self, table: Mapping[str, Any], path: str) -> Environment:
        self._known(table, path, [each.name for each in fields(Environment)])
        instead = [name for name in ("interpreter", "image_uri") if name in table]
        if len(instead) == 2:
            self._say(path, "interpreter and image_uri exclude each other: keep one")
        for name in ("python", "steps") if instead == ["interpreter"] else ("steps",) if instead else ():
            if name in table:
                self._say(
                    f"{path}.{name}", f"has no meaning beside {instead[0]}, which is used as it is: leave one out"
                )
        name = self._text(table, path, "name", "default")
        if not _NAME.fullmatch(name):
            self._say(
                f"{path}.name", f"{name!r} must be letters, digits, '-', '_' and '.', and begin with one of the first"
            )
        return Environment(
            name=name,
            when=self._when(table.get("when", {}), f"{path}.when"),
            python=self._python(table, path),
            system=self._words(table, path, "system"),
            smoke=self._words(table, path, "smoke"),
            variables=self._variables(table.get("variables", {}), f"{path}.variables"),
            steps=self._steps(table.get("steps", []), f"{path}.steps"),
            interpreter=self._text(table, path, "interpreter", "") or None,
            image_uri=self._text(table, path, "image_uri", "") or None,
            on_demand=self._flag(table, path, "on_demand"),
        )

    def _when(self, value: Any, path: str) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            self._say(path, f"must be a table of config fields and patterns, not {value!r}")
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for key, patterns in value.items():
            if isinstance(patterns, dict):  # a dotted key is a table in TOML
                inner = self._when(patterns, f"{path}.{key}")
                found.update({f"{key}.{name}": each for name, each in inner.items()})
                continue
            given = patterns if isinstance(patterns, list) else [patterns]
            if not given or not all(isinstance(each, (str, int, float, bool)) for each in given):
                self._say(f"{path}.{key}", f"must be a pattern or a list of patterns, not {patterns!r}")
                continue
            found[key] = tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in given)
        return found

    def _python(self, table: Mapping[str, Any], path: str) -> tuple[str, ...]:
        value = table.get("python", [])
        given = value if isinstance(value, list) else [value]
        good = []
        for each in given:
            if not isinstance(each, str) or not _PYTHON.fullmatch(each):
                self._say(f"{path}.python", f'{each!r} must be a minor version in quotes, like "3.11"')
            elif tuple(map(int, each.split("."))) < _OLDEST:
                self._say(f"{path}.python", f"{each} is older than 3.8, the oldest that the worker contract runs on")
            else:
                good.append(each)
        return tuple(good)

    def _variables(self, value: Any, path: str) -> dict[str, str]:
        if not isinstance(value, dict):
            self._say(path, f"must be a table of names and texts, not {value!r}")
            return {}
        for name, text in value.items():
            if not isinstance(text, str):
                self._say(f"{path}.{name}", f"must be text, not {text!r}: put it in quotes")
            if name in _NOT_THEIRS or name.startswith(("MOSAIC_", "RAY_")):
                self._say(f"{path}.{name}", "is set by whoever starts the worker: leave it out")
        return {name: str(text) for name, text in value.items()}

    def _steps(self, value: Any, path: str) -> tuple[Step, ...]:
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self._say(path, "each step is a table of its own: [[environment.steps]]")
            return ()
        return tuple(self._step(each, f"{path}[{index}]") for index, each in enumerate(value))

    def _step(self, table: Mapping[str, Any], path: str) -> Step:
        self._known(table, path, [each.name for each in fields(Step)])
        pip, run = self._words(table, path, "pip"), self._words(table, path, "run")
        if bool(pip) == bool(run) and ("pip" in table) == ("run" in table):
            self._say(path, "must have either `pip`, a list of requirements, or `run`, a command as a list of words")
        for name in ("options", "no_deps"):
            if name in table and "run" in table:
                self._say(f"{path}.{name}", "is for a `pip` step only")
        for index, each in enumerate(pip):
            if each.startswith("-"):
                self._say(f"{path}.pip[{index}]", f"{each!r} is an option of pip: write it under `options`")
        return Step(
            pip=pip,
            options=self._words(table, path, "options"),
            no_deps=self._flag(table, path, "no_deps"),
            run=run,
            may_fail=self._flag(table, path, "may_fail"),
            name=self._text(table, path, "name", ""),
        )

    def _words(self, table: Mapping[str, Any], path: str, name: str) -> tuple[str, ...]:
        value = table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
            self._say(f"{path}.{name}", f"must be a list of texts, not {value!r}")
            return ()
        if name in table and not value:
            self._say(f"{path}.{name}", "is empty: fill it, or leave it out")
        return tuple(value)

    def _text(self, table: Mapping[str, Any], path: str, name: str, default: str) -> str:
        value = table.get(name, default)
        if not isinstance(value, str) or (name in table and not value.strip()):
            self._say(f"{path}.{name}", f"must be text, not {value!r}")
            return default
        return value

    def _flag(self, table: Mapping[str, Any], path: str, name: str) -> bool:
        value = table.get(name, False)
        if not isinstance(value, bool):
            self._say(f"{path}.{name}", f"must be true or false, not {value!r}")
            return False
        return value

    def _known(self, table: Mapping[str, Any], path: str, names: Iterable[str]) -> None:
        known = sorted(names)
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                self._say(f"{path}.{key}" if path else key, f"is not known; {hint}")

    def _say(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))
