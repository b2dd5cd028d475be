"""Types of spec fields: what each accepts, what it says when it does not, and its JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from mosaic_cluster.specs.problems import several, shown, suggestion, type_of
from mosaic_cluster.units import format_bytes, parse_bytes, parse_duration

LARGEST_SEED = 2**32 - 1
MANY_VALUES = 100_000
DEEPEST = 100
LEAST_MEMORY = 10**6
SIZE_PATTERN = r"^\s*([0-9][0-9_]*(\.[0-9]+)?|\.[0-9]+)\s*([kKmMgGtTpPeE][iI]?)?[bB]?\s*$"
DURATION_PATTERN = r"^\s*([0-9][0-9_]*(\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]+\s*(([0-9]|\.[0-9]).*)?)?$"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
OURS = ("MOSAIC_", "RAY_")
SETTABLE = ("MOSAIC_TELEMETRY_LINGER",)
"""Of ours, those that are for the user to set."""


def whole_number(low: int, high: int | None = None, *, example: int) -> BeforeValidator:
    """Accepts integers, and floats without a fraction (``1e6``), within bounds."""
    valid = f"give a whole number from {low} to {high}" if high is not None else f"give a whole number, {low} or more"

    def check(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} is not a whole number; {valid}, e.g. {example}")
        if value < low or (high is not None and value > high):
            raise ValueError(f"{shown(value)} is out of range; {valid}, e.g. {example}")
        return value

    return BeforeValidator(check)


def number(low: float, *, exclusive: bool = False, example: str) -> BeforeValidator:
    """Accepts finite numbers from ``low`` on."""
    valid = f"give a number above {low:g}" if exclusive else f"give a number, {low:g} or more"

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{shown(value)} is not a number; {valid}, e.g. {example}")
        # A bound on both sides also refuses NaN, infinity, and integers that no float can hold.
        if not low <= value <= 1e15 or (exclusive and value == low):
            raise ValueError(f"{shown(value)} is out of range; {valid}, e.g. {example}")
        return float(value)

    return BeforeValidator(check)


def one_of(names: tuple[str, ...]) -> BeforeValidator:
    """Accepts one of ``names``."""

    def check(value: Any) -> Any:
        if value is None and "none" in names:
            return "none"
        if value not in names:
            near = suggestion(value, names) if isinstance(value, str) else ""
            hint = f"; {near}" if near.startswith("did you mean") else ""
            raise ValueError(f"{shown(value)} is none of {', '.join(names)}{hint}")
        return value

    return BeforeValidator(check)


def text(low: int, high: int, *, example: str) -> BeforeValidator:
    """Accepts text of ``low`` to ``high`` characters."""

    def check(value: Any) -> Any:
        valid = f"give text of {low} to {high} characters, e.g. {example}"
        if not isinstance(value, str):
            hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
            raise ValueError(f"{shown(value)} is not text{hint}; {valid}")
        if not value.strip():
            raise ValueError(f"{shown(value)} is empty; {valid}")
        if not low <= len(value) <= high:
            raise ValueError(f"{shown(value)} has {len(value)} characters; {valid}")
        if flaw := flaw_of(value):
            raise ValueError(f"{flaw}; {valid}")
        return value

    return BeforeValidator(check)


def flaw_of(value: str) -> str | None:
    """What makes text useless as an argument, a variable or a path; ``None`` if nothing does."""
    if "\0" in value:
        return "holds a NUL character"
    return None if is_unicode(value) else "holds half of a character (a lone surrogate)"


def is_unicode(value: str) -> bool:
    """Whether ``value`` can be written as UTF-8."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def flag(example: str = "true") -> BeforeValidator:
    """Accepts true and false."""

    def check(value: Any) -> Any:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is neither true nor false; give true or false, e.g. {example}")
        return value

    return BeforeValidator(check)


def _with_units(parse: Callable[[Any], float], what: str, example: str, zero: bool) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{shown(value)} is not a {what}; give one such as {example}")
        parsed = parse(value)
        if parsed == 0 and not zero:
            raise ValueError(f"{shown(value)} is not above zero; give a {what} such as {example}")
        return parsed

    return check


def optional(validator: BeforeValidator) -> BeforeValidator:
    """The same, and null, which means "not set"."""
    inner: Any = validator.func
    return BeforeValidator(lambda value: None if value is None else inner(value))


def size(example: str) -> BeforeValidator:
    """Accepts sizes above zero, with or without a unit."""
    return BeforeValidator(_with_units(parse_bytes, "size", example, zero=False))


def size_from(low: int, example: str) -> BeforeValidator:
    """Accepts sizes of at least ``low`` bytes."""

    def check(value: Any) -> Any:
        parsed: int = inner(value)
        if parsed < low:
            raise ValueError(f"{shown(value)} is too little; give at least {format_bytes(low)}, e.g. {example}")
        return parsed

    inner: Any = _with_units(parse_bytes, "size", example, zero=low == 0)
    return BeforeValidator(check)


def memory(example: str) -> BeforeValidator:
    """Accepts sizes from 1 MB on: a smaller number is one whose unit was forgotten."""
    inner: Any = _with_units(parse_bytes, "size", example, zero=False)

    def check(value: Any) -> Any:
        parsed: int = inner(value)
        if parsed < LEAST_MEMORY:
            bare = not isinstance(value, str) or value.strip().isdecimal()
            what = f"would be {parsed:,} bytes; give a unit" if bare else "is too little; give at least 1MB"
            raise ValueError(f"{shown(value)} {what}, e.g. {f'{value}GiB'.replace(' ', '') if bare else example}")
        return parsed

    return BeforeValidator(check)


def duration(example: str, *, zero: bool = False) -> BeforeValidator:
    """Accepts durations, with or without a unit."""
    return BeforeValidator(_with_units(parse_duration, "duration", example, zero))


def nothing_is_empty(value: Any) -> Any:
    """A key with nothing behind it, as YAML has it, is an empty mapping."""
    return {} if value is None else value


def check_json(value: Any) -> Any:
    """Accepts what JSON can hold.

    Returns:
        The same, with a YAML file's shared parts (aliases) still shared.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not a mapping; give keys and values, e.g. {{env_id: CartPole-v1}}")
    found: list[tuple[str, str]] = []
    count = _walk(value, (), set(), found, 0)
    if count > MANY_VALUES:
        found = [("", f"holds more than {MANY_VALUES:,} values; keep data in a file and give its path")]
    if found:
        raise several(found)
    return value


def _walk(value: Any, place: tuple[str, ...], above: set[int], found: list[tuple[str, str]], count: int) -> int:
    """Note what JSON cannot hold; return how many values were seen."""
    count += 1
    if count > MANY_VALUES:
        return count
    if isinstance(value, dict | list):
        if id(value) in above or len(place) > DEEPEST:
            what = "refers to itself" if id(value) in above else f"is nested more than {DEEPEST} deep"
            found.append((".".join(place[:5]), f"{what}; write it out flat"))
            return count
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            if isinstance(value, dict) and not isinstance(key, str):
                found.append((".".join((*place, str(key))), f"the key {shown(key)} is not text; put it in quotes"))
                continue
            count = _walk(item, (*place, str(key)), above | {id(value)}, found, count)
    elif isinstance(value, float) and not math.isfinite(value):
        found.append((".".join(place), f"{shown(value)} cannot be kept in JSON; give a finite number, or null"))
    elif isinstance(value, str) and not is_unicode(value):
        found.append((".".join(place), "holds half of a character (a lone surrogate), which no file can"))
    elif value is not None and not isinstance(value, str | bool | int | float):
        found.append((".".join(place), f"{shown(value)} cannot be kept in JSON; give text, a number, true or false"))
    return count


def check_environment(value: Any) -> Any:
    """Accepts variables of a worker's process. Values are never shown: they may be secrets."""
    if not isinstance(value, dict):
        raise ValueError(f"{type_of(value)} is not a mapping; give names and values, e.g. {{WANDB_MODE: offline}}")
    found = []
    for name, content in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            valid = "letters, digits and _, not starting with a digit"
            found.append((str(name), f"{shown(name)} is not a variable's name; it has {valid}, e.g. WANDB_MODE"))
        elif name.startswith(OURS) and name not in SETTABLE:
            whose = "is set by mosaic itself" if name.startswith("MOSAIC_") else "never reaches a worker"
            found.append((name, f"{whose}; names with MOSAIC_ or RAY_ in front cannot be set: remove it"))
        elif not isinstance(content, str):
            found.append((name, f"must be text, this is {type_of(content)}; put the value in quotes"))
        elif flaw := flaw_of(content):
            found.append((name, f"{flaw}, which no variable can"))
    if found:
        raise several(found)
    return value


def check_arguments(value: Any) -> Any:
    """Accepts a list of text."""
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list; give a list of text, e.g. [-m, my_worker.cli]")
    found = []
    for index, item in enumerate(value):
        if not isinstance(item, str):
            found.append((str(index), f"{shown(item)} is not text; put it in quotes"))
        elif flaw := flaw_of(item):
            found.append((str(index), f"{flaw}, which no argument can"))
    if found:
        raise several(found)
    return value


def _units_schema(kind: str, pattern: str, examples: list[Any]) -> WithJsonSchema:
    choices = [{"type": kind, "minimum": 0}, {"type": "string", "pattern": pattern}]
    return WithJsonSchema({"anyOf": choices, "examples": examples})


def _or_null(schema: WithJsonSchema) -> WithJsonSchema:
    inner = dict(schema.json_schema or {})
    return WithJsonSchema({**inner, "anyOf": [*inner["anyOf"], {"type": "null"}]})


_SIZE_SCHEMA = _units_schema("integer", SIZE_PATTERN, ["10GiB", "8000MB", 1073741824])
_DURATION_SCHEMA = _units_schema("number", DURATION_PATTERN, ["30m", "1h30m", "2d", 90])
_FREE: dict[str, Any] = {"type": "object", "additionalProperties": True}
_STRINGS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}

Size = Annotated[int, size("10GiB"), _SIZE_SCHEMA]
MaybeSize = Annotated[int | None, optional(size("10GiB")), _or_null(_SIZE_SCHEMA)]
_MEMORY_SCHEMA = WithJsonSchema(
    {
        "anyOf": [{"type": "integer", "minimum": LEAST_MEMORY}, {"type": "string", "pattern": SIZE_PATTERN}],
        "examples": ["10GiB", "8000MB"],
    }
)
MaybeMemory = Annotated[int | None, optional(memory("10GiB")), _or_null(_MEMORY_SCHEMA)]
MaybeDuration = Annotated[float | None, optional(duration("30m")), _or_null(_DURATION_SCHEMA)]
Grace = Annotated[float, duration("30s", zero=True), _DURATION_SCHEMA]
JsonMapping = Annotated[
    dict[str, Any], BeforeValidator(check_json), BeforeValidator(nothing_is_empty), WithJsonSchema(_FREE)
]
_SETTABLE_PATTERN = rf"^(?!(?!(?:{'|'.join(SETTABLE)})$)MOSAIC_|RAY_)[A-Za-z_][A-Za-z0-9_]*$"
Variables = Annotated[
    dict[str, str],
    BeforeValidator(check_environment),
    BeforeValidator(nothing_is_empty),
    WithJsonSchema({**_STRINGS, "propertyNames": {"pattern": _SETTABLE_PATTERN}}),
]
