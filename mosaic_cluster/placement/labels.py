"""What a node's labels must be, in Ray's words: ``v``, ``!v``, ``in(a,b)``, ``!in(a,b)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_LIST = re.compile(r"(!?)\s*in\s*\((.*)\)\s*")


@lru_cache(maxsize=4096)
def _parsed(condition: str) -> tuple[bool, frozenset[str]]:
    """Whether it is negated, and the values it names."""
    listed = _LIST.fullmatch(condition.strip())
    if listed is not None:
        return bool(listed[1]), frozenset(value.strip() for value in listed[2].split(","))
    text = condition.strip()
    return text.startswith("!"), frozenset({text.removeprefix("!").strip()})


def holds(condition: str, value: str | None) -> bool:
    """Whether a label has a value that is asked for. A label that is missing meets only what begins with ``!``."""
    negated, values = _parsed(condition)
    return (value in values) != negated


def match(conditions: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all conditions hold."""
    return all(holds(condition, labels.get(name)) for name, condition in conditions.items())


def unmet(conditions: Mapping[str, str], labels: Mapping[str, str]) -> list[str]:
    """Names of the labels whose condition does not hold."""
    return [name for name, condition in conditions.items() if not holds(condition, labels.get(name))]
