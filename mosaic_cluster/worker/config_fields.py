"""From a dict that a person wrote to a worker's config dataclass; all that is wrong with it is said at once.

A worker's config may use it like this::

    @dataclass
    class MyConfig:
        run_id: str
        seed: Optional[int] = None
        learning_rate: float = config_field(3e-4, help="Adam's step size", exclusive_min=0, max=1)
        horizon: int = config_field(2048, help="steps of a rollout", unit="steps", min=1)

        @classmethod
        def from_dict(cls, data):
            return build_config(cls, data)
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from mosaic_cluster.worker._annotations import (
    DataclassField,
    Mismatch,
    allowed_values,
    field_type,
    fit,
    is_nested,
    shown,
    type_text,
)
from mosaic_cluster.worker._plain import to_plain
from mosaic_cluster.worker.errors import ConfigError, Problem

_T = TypeVar("_T")
_MISSING: Any = dataclasses.MISSING


def config_field(
    default: Any = _MISSING,
    *,
    help: str,
    unit: Optional[str] = None,
    min: Optional[float] = None,
    max: Optional[float] = None,
    exclusive_min: Optional[float] = None,
    choices: Optional[Sequence[Any]] = None,
) -> Any:
    """A dataclass field that says what it means and which values are possible.

    Args:
        default: value when nothing is given; left out: the field is required. Lists, dicts, sets are copied.
        help: what it means, in a few words.
        unit: ``"steps"``, ``"seconds"``, ...
        min, max: smallest and largest possible value; of every item, in a list.
        exclusive_min: the value must be greater than this.
        choices: all possible values.
    """
    given = {"unit": unit, "min": min, "max": max, "exclusive_min": exclusive_min}
    metadata: Dict[str, Any] = {"help": help}
    metadata.update((name, value) for name, value in given.items() if value is not None)
    if choices is not None:
        metadata["choices"] = tuple(choices)
    if default is _MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def config_problems(cls: type, data: Any) -> List[Problem]:
    """Everything that is wrong with ``data`` as a config of the dataclass ``cls``; empty if it can be built.

    What ``__post_init__`` refuses is among it, once the fields themselves are fine.
    """
    try:
        build_config(cls, data)
    except ConfigError as error:
        return error.problems
    return []


def build_config(cls: Type[_T], data: Any) -> _T:
    """Build the dataclass ``cls`` from an object.

    Unknown keys are refused: a misspelt one must not train for a day with the default. A value is converted
    where nothing is lost: ``2`` for a float, ``150_000.0`` for an int, an object for a nested dataclass, a
    list for a tuple, a value for an enum, text for a path.

    Raises:
        ConfigError: with every problem found.
    """
    values, problems = _values(cls, data, "")
    if problems:
        raise ConfigError(problems)
    try:
        return cls(**values)
    except ConfigError:
        raise
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError([Problem("", str(error) or type(error).__name__)]) from error


def describe_config(cls: type) -> List[Dict[str, Any]]:
    """What can be set, one dict per field, in order.

    Each has ``name``, ``type`` (text), ``required``, ``default``, ``help``, ``unit``, ``min``, ``max``,
    ``exclusive_min`` and ``choices``, all plain JSON values; ``None`` where nothing is known. Help is taken
    from the class's docstring (``Attributes:`` or ``Args:``) where the field has none.

    Raises:
        TypeError: ``cls`` is not a dataclass.
    """
    documented = _documented(cls)
    return [_description(cls, spec, documented) for spec in dataclasses.fields(cls) if spec.init]


def _values(cls: type, data: Any, prefix: str) -> Tuple[Dict[str, Any], List[Problem]]:
    """Values for the constructor of ``cls``, and what is wrong with those that are not among them."""
    if not isinstance(data, Mapping):
        return {}, [Problem(prefix.rstrip("."), f"must be an object, not {shown(data)}")]
    known = {spec.name: spec for spec in dataclasses.fields(cls) if spec.init}
    passed_on = _init_only(cls)
    values: Dict[str, Any] = {}
    problems: List[Problem] = []
    for key, value in data.items():
        if key in known:
            try:
                values[key] = _value(cls, known[key], value, prefix)
            except ConfigError as error:
                problems.extend(error.problems)
        elif key in passed_on:
            values[key] = value
        else:
            problems.append(Problem(f"{prefix}{key}", _unknown_key(key, list(known))))
    for name, spec in known.items():
        if name not in data and _is_required(spec):
            problems.append(Problem(prefix + name, f"is required ({type_text(spec)})"))
    return values, problems


def _value(cls: type, spec: DataclassField, value: Any, prefix: str) -> Any:
    path = prefix + spec.name
    annotation = field_type(cls, spec)
    nested = is_nested(annotation)
    if nested is not None and isinstance(value, Mapping):
        values, problems = _values(nested, value, path + ".")
        if problems:
            raise ConfigError(problems)
        try:
            return nested(**values)
        except ConfigError as error:
            below = [Problem(_join(path, item.path), item.message) for item in error.problems]
            raise ConfigError(below) from error
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError([Problem(path, str(error) or type(error).__name__)]) from error
    if value is None and spec.default is None:  # `seed: int = None` is what many write for Optional[int]
        return None
    optional = annotation is not nested
    if nested is not None and not isinstance(value, nested) and not (optional and value is None):
        raise ConfigError([Problem(path, f"must be an object, not {shown(value)}")])
    try:
        value = fit(value, annotation)
    except Mismatch as mismatch:
        raise ConfigError([Problem(path + mismatch.path, mismatch.message)]) from None
    problems = _range_problems(path, value, spec.metadata)
    if problems:
        raise ConfigError(problems)
    return value


def _join(path: str, below: str) -> str:
    return f"{path}.{below}" if below else path


def _range_problems(path: str, value: Any, metadata: Mapping[str, Any]) -> List[Problem]:
    if isinstance(value, (list, tuple)):
        places = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
        return [found for place, item in places for found in _range_problems(place, item, metadata)]
    if value is None:
        return []
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        return [Problem(path, f"must be one of {', '.join(map(shown, choices))}, not {shown(value)}")]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    limits = {name: metadata.get(name) for name in ("min", "exclusive_min", "max")}
    low, above, high = (limit if isinstance(limit, (int, float)) else None for limit in limits.values())
    bounds = []
    if low is not None:
        bounds.append((value >= low, f"at least {low}"))
    if above is not None:
        bounds.append((value > above, f"greater than {above}"))
    if high is not None:
        bounds.append((value <= high, f"at most {high}"))
    if all(kept for kept, _ in bounds):
        return []
    unit = f" {metadata['unit']}" if metadata.get("unit") else ""
    given = "not a number (NaN)" if math.isnan(value) else shown(value)
    return [Problem(path, f"must be {' and '.join(words for _, words in bounds)}{unit}, but is {given}")]


def _unknown_key(key: Any, known: List[str]) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    if near:
        return f"there is no such setting; did you mean {near[0]!r}?"
    return f"there is no such setting; there are {', '.join(sorted(known))}"


def _is_required(spec: DataclassField) -> bool:
    return spec.default is _MISSING and spec.default_factory is _MISSING


def _init_only(cls: type) -> List[str]:
    """Names of ``InitVar`` pseudo-fields: arguments of the constructor that are no fields."""
    found = getattr(cls, "__dataclass_fields__", {})
    return [name for name, spec in found.items() if "InitVar" in str(spec.type)]


def _description(cls: type, spec: DataclassField, documented: Mapping[str, str]) -> Dict[str, Any]:
    metadata = spec.metadata
    choices = metadata.get("choices")
    if choices is None:
        choices = allowed_values(field_type(cls, spec))
    text = metadata.get("help")
    return {
        "name": spec.name,
        "type": type_text(spec),
        "required": _is_required(spec),
        "default": _default(spec),
        "help": str(text) if text else documented.get(spec.name),
        "unit": to_plain(metadata.get("unit")),
        "min": to_plain(metadata.get("min")),
        "max": to_plain(metadata.get("max")),
        "exclusive_min": to_plain(metadata.get("exclusive_min")),
        "choices": None if choices is None else [to_plain(choice) for choice in choices],
    }


def _default(spec: DataclassField) -> Any:
    if spec.default is not _MISSING:
        return to_plain(spec.default)
    if spec.default_factory is _MISSING:
        return None
    try:
        return to_plain(spec.default_factory())
    except Exception:  # noqa: BLE001 - a worker's own code; its default is then not known
        return None


_SECTION = re.compile(r"^(\s*)(Attributes|Args|Arguments|Parameters):\s*$")
_ENTRY = re.compile(r"^(\s+)(\w+)(?:\s*\([^)]*\))?:\s+(.*)$")


def _documented(cls: type) -> Dict[str, str]:
    """Field help from a Google-style docstring."""
    found: Dict[str, str] = {}
    section: Optional[int] = None
    entry: Optional[str] = None
    indent = 0
    for line in (cls.__doc__ or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            section, entry = len(heading.group(1)), None
            continue
        if section is None or not line.strip():
            entry = None
            continue
        depth = len(line) - len(line.lstrip())
        match = _ENTRY.match(line)
        if depth <= section:
            section = entry = None
        elif match and (entry is None or depth <= indent):
            entry, indent = match.group(2), depth
            found[entry] = match.group(3).strip()
        elif entry is not None and depth > indent:
            found[entry] += " " + line.strip()
    return found


__all__ = ["build_config", "config_field", "config_problems", "describe_config"]
