"""An environment as a worker's package declares it: plain data that travels to the node that needs it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

DEFAULT = "default"


@dataclass(frozen=True)
class Step:
    """One step of building an environment: packages to install, or a command to run.

    Attributes:
        pip: requirements, installed together; empty for a command.
        options: more arguments for ``pip install``; no_deps: install nothing that they depend on.
        run: a command; ``python`` is the environment's, and it runs in the environment's folder.
        may_fail: whether building goes on if it fails.
        name: what is shown while it runs.
    """

    pip: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    no_deps: bool = False
    run: tuple[str, ...] = ()
    may_fail: bool = False
    name: str = ""

    @property
    def title(self) -> str:
        """What it does, short."""
        if self.name:
            return self.name
        words = " ".join(self.pip or self.run)
        return words if len(words) <= 60 else words[:57] + "..."


@dataclass(frozen=True)
class Environment:
    """What a worker's process runs in.

    Attributes:
        name: unique in its worker.
        when: by dotted field of the run's config, shell-style patterns of which one must match; empty: always.
        python: minor versions, ``3.11``, that will do, the best first; empty: the one of the node itself.
        system: programs that must be on ``PATH``.
        smoke: a command that must succeed in the finished environment.
        variables: environment variables of the worker's process and the smoke command.
        steps: how it is built.
        interpreter: an existing Python to use instead, by its path.
        image_uri: a container image to use instead.
        on_demand: whether it is only built where a run needs it, or when it is asked for by name.
    """

    name: str = DEFAULT
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    python: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    smoke: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    interpreter: str | None = None
    image_uri: str | None = None
    on_demand: bool = False

    @property
    def is_built(self) -> bool:
        """Whether it is one that we build."""
        return self.interpreter is None and self.image_uri is None

    def matches(self, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> bool:
        """Whether runs with this config use it.

        Args:
            defaults: of the config's fields, as far as they are known.
        """
        return all(
            any(
                fnmatch.fnmatchcase(value, pattern)
                for value in _values(config, defaults or {}, path)
                for pattern in one
            )
            for path, one in self.when.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = asdict(self)
        data["when"] = {path: list(patterns) for path, patterns in self.when.items()}
        return data


def choose(
    environments: Sequence[Environment], config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Environment | None:
    """The first that matches a run's config; ``None``: the node's own interpreter."""
    return next((each for each in environments if each.matches(config, defaults)), None)


def label(worker: str, environment: Environment) -> str:
    """A worker's environment, for people and file names: ``xuance``, or ``marllib.benchmarl``."""
    text = worker if environment.name in (DEFAULT, worker) else f"{worker}.{environment.name}"
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)


def _values(config: Mapping[str, Any], defaults: Mapping[str, Any], path: str) -> list[str]:
    """The value at a dotted path, as text; none if it is not known."""
    for source in (config, defaults):
        found: Any = source
        for part in path.split("."):
            if not isinstance(found, Mapping) or part not in found:
                break
            found = found[part]
        else:
            return [str(each).lower() if isinstance(each, bool) else str(each) for each in _several(found)]
    return []


def _several(value: Any) -> list[Any]:
    """One value, or each of a list: a config that names several environments needs what matches any."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
