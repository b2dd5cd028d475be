"""What a worker is checked with: a small config, and what it can do."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mosaic_cluster.specs import read_document
from mosaic_cluster.worker.errors import ConfigError, Problem

FILE = "conformance.json"
"""Beside a worker's code: what it is checked with where nobody says."""


@dataclass(frozen=True)
class ContractCase:
    """What a worker is checked with.

    Attributes:
        worker: its registered name.
        config: a run of seconds that trains and saves at least once; without ``run_id`` and ``seed``.
        long_config: a run of minutes that heartbeats and saves soon, to be stopped and resumed; ``None``: ``config``.
        library: whether its library is there; if not, only what must work without it is checked.
        policy_game: what its policies are tried in; ``None``: what their checkpoint says.
        deterministic: whether the same seed gives the same run.
        seconds: longest time for each of its processes.
        grace: seconds between SIGTERM and SIGKILL.
        strict: whether what it only should do counts as failed, too.
    """

    worker: str
    config: Mapping[str, Any] = field(default_factory=dict)
    long_config: Mapping[str, Any] | None = None
    library: bool = True
    policy_game: str | None = None
    deterministic: bool = True
    seconds: float = 120.0
    grace: float = 30.0
    strict: bool = True

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {
            "worker": str, "config": Mapping, "long_config": (Mapping, type(None)), "library": bool,
            "policy_game": (str, type(None)), "deterministic": bool, "seconds": (int, float), "grace": (int, float),
            "strict": bool,
        }  # fmt: skip
        problems = [
            Problem(name, f"must not be {getattr(self, name)!r}")
            for name, kind in kinds.items()
            if not isinstance(getattr(self, name), kind)
        ]
        if problems:
            raise ConfigError(problems, heading="what the worker is to be checked with")

    @property
    def stopped_config(self) -> Mapping[str, Any]:
        """Config of the run that is stopped."""
        return self.config if self.long_config is None else self.long_config


def case_of(worker: str, package: str, path: Path | None = None, **more: Any) -> ContractCase:
    """A worker's case: from a file, else from the ``conformance.json`` beside its code, else with its own defaults.

    Args:
        path: JSON or YAML: either ``config`` and whatever else :class:`ContractCase` has, or just the config.
        more: what wins over that.

    Raises:
        ConfigError: the file is no case.
    """
    file = path or _beside(package)
    if file is None:
        return ContractCase(worker, **more)
    found = read_document(file) if path else _own(file)
    known = {each.name for each in fields(ContractCase)}
    if "config" not in found and not set(found) & known:
        found = {"config": found}
    unknown = sorted(set(found) - known)
    if unknown:
        words = f"there is no such thing; there are {', '.join(sorted(known - {'worker'}))}"
        raise ConfigError([Problem(name, words) for name in unknown], heading=str(file))
    return ContractCase(**{**found, "worker": worker, **more})


def _own(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Problem("", f"cannot be read: {error}")], heading=str(file)) from error
    if not isinstance(found, dict):
        raise ConfigError([Problem("", "must be an object")], heading=str(file))
    return found


def _beside(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in spec.submodule_search_locations or () if spec else ():
        if Path(place, FILE).is_file():
            return Path(place, FILE)
    return None


__all__ = ["FILE", "ContractCase", "case_of"]
