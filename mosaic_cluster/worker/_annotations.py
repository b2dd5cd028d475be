"""Coarse type checks of plain values against annotations.

Coarse on purpose: what an annotation says in words that are not understood here is not checked.
"""

from __future__ import annotations

import collections.abc
import contextlib
import os
import sys
import typing
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

DataclassField = Any
"""A ``dataclasses.Field``, which is generic for type checkers but not on Python 3.8."""

UNKNOWN: Any = Any
"""Stands for an annotation that cannot be understood: any value fits."""

_NONE = type(None)
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    _NONE: "null",
    dict: "an object",
    list: "a list",
    tuple: "a list",
    set: "a list",
    frozenset: "a list",
}
# Written as text, `list[int]` is fine on every Python, but only newer ones can evaluate it.
_GENERIC = {"list": List, "dict": Dict, "tuple": Tuple, "set": typing.Set, "type": typing.Type}


class Mismatch(Exception):
    """A value does not fit.

    Args:
        path: place below the value that was checked (``[2]``, ``.name``), or ``""``.
        message: what was given and what is valid.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def field_type(cls: type, field: DataclassField) -> Any:
    """The type of a dataclass field; :data:`UNKNOWN` where its annotation cannot be evaluated here."""
    if not isinstance(field.type, str):
        return field.type
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        found = _evaluate(field.type, vars(module) if module else {})
        if found is not UNKNOWN:
            return found
    return UNKNOWN


def type_text(field: DataclassField) -> str:
    """A field's annotation as a person would write it."""
    if isinstance(field.type, str):
        return str(field.type)
    if isinstance(field.type, type) and not typing.get_args(field.type):
        return str(field.type.__name__)
    return str(field.type).replace("typing.", "").replace("NoneType", "None")


def allowed_values(annotation: Any) -> Optional[List[Any]]:
    """The values that a ``Literal`` or an enum allows, ``None`` for any other annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if _is_union(annotation):
        inner = [arm for arm in typing.get_args(annotation) if arm is not _NONE]
        return allowed_values(inner[0]) if len(inner) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    return None


def fit(value: Any, annotation: Any) -> Any:
    """The value, converted where that loses nothing (``2.0`` for an int, ``2`` for a float).

    Raises:
        Mismatch: it does not fit the annotation.
    """
    origin = typing.get_origin(annotation) or annotation
    if _is_union(annotation):
        return _fit_union(value, typing.get_args(annotation))
    if origin is typing.Literal:
        return _fit_literal(value, typing.get_args(annotation))
    if not isinstance(origin, type) or origin is object:
        return value
    if origin in (bool, int, float, str, _NONE):
        return _fit_scalar(value, origin)
    if issubclass(origin, Enum):
        return _fit_enum(value, origin)
    if issubclass(origin, (str, int, float, complex)):
        return value
    if origin is os.PathLike or issubclass(origin, Path):
        if isinstance(value, (str, os.PathLike)):
            return Path(value)
        raise Mismatch("", f"must be a path, not {shown(value)}")
    if issubclass(origin, collections.abc.Mapping):
        return _fit_mapping(value, typing.get_args(annotation))
    if issubclass(origin, (bytes, bytearray)):
        return value
    if issubclass(origin, (collections.abc.Sequence, collections.abc.Set)):
        return _fit_items(value, origin, typing.get_args(annotation))
    return value


def is_nested(annotation: Any) -> Optional[type]:
    """The dataclass in the annotation ``Inner`` or ``Optional[Inner]``, if it is one."""
    if _is_union(annotation):
        inner = [arm for arm in typing.get_args(annotation) if arm is not _NONE]
        return is_nested(inner[0]) if len(inner) == 1 else None
    return annotation if isinstance(annotation, type) and is_dataclass(annotation) else None


def shown(value: Any) -> str:
    """A value for a message, as JSON would write the common ones."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a repr may do anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _evaluate(text: str, names: Dict[str, Any]) -> Any:
    # In this order: as it stands, then the ways round what an old Python cannot evaluate.
    for scope in (dict(names), {**names, **_GENERIC}):
        with contextlib.suppress(Exception):
            return eval(text, scope)
    arms = _split_union(text)
    found = [_evaluate(arm, names) for arm in arms] if len(arms) > 1 else [UNKNOWN]
    return UNKNOWN if UNKNOWN in found else Union[tuple(found)]


def _split_union(text: str) -> List[str]:
    """``Dict[str, int] | None`` to its arms, without cutting inside brackets."""
    arms = [""]
    depth = 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "|" and depth == 0:
            arms.append("")
        else:
            arms[-1] += letter
    return [arm.strip() for arm in arms]


def _is_union(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"


def _words(annotation: Any) -> str:
    origin = typing.get_origin(annotation) or annotation
    if origin is typing.Literal:
        return " or ".join(shown(item) for item in typing.get_args(annotation))
    try:
        return _WORDS.get(origin) or str(getattr(origin, "__name__", origin))
    except TypeError:
        return str(origin)


def _fit_scalar(value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("", "is too large for a number") from None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    hint = ""
    if kind in (int, float) and isinstance(value, str) and _is_number(value):
        hint = f"; write it without quotes, in YAML with a point before the exponent: {_with_point(value)}"
    raise Mismatch("", f"must be {_WORDS[kind]}, not {shown(value)}{hint}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_point(text: str) -> str:
    mantissa, letter, exponent = text.lower().partition("e")
    if not letter or "." in mantissa:
        return text
    return f"{mantissa}.0e{exponent if exponent[:1] in '+-' else '+' + exponent}"


def _fit_union(value: Any, arms: Tuple[Any, ...]) -> Any:
    if value is None and _NONE in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not _NONE) or arms
    converted: List[Any] = []
    failures: List[Mismatch] = []
    for arm in arms:
        try:
            result = fit(value, arm)
        except Mismatch as mismatch:
            failures.append(mismatch)
            continue
        if type(result) is type(value):
            return result
        converted.append(result)
    if converted:
        return converted[0]
    if len(failures) == 1:
        raise failures[0]
    raise Mismatch("", f"must be {' or '.join(_words(arm) for arm in arms)}, not {shown(value)}")


def _fit_literal(value: Any, choices: Tuple[Any, ...]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    raise Mismatch("", f"must be one of {', '.join(shown(choice) for choice in choices)}, not {shown(value)}")


def _fit_enum(value: Any, kind: Any) -> Any:
    if isinstance(value, kind):
        return value
    for member in kind:
        if type(member.value) is type(value) and member.value == value:
            return member
    for member in kind:
        if member.name == value:
            return member
    choices = ", ".join(shown(member.value) for member in kind)
    raise Mismatch("", f"must be one of {choices}, not {shown(value)}")


def _fit_mapping(value: Any, arguments: Tuple[Any, ...]) -> Any:
    if not isinstance(value, collections.abc.Mapping):
        raise Mismatch("", f"must be an object, not {shown(value)}")
    if len(arguments) != 2:
        return value
    return {key: _fit_below(item, arguments[1], f".{key}") for key, item in value.items()}


def _fit_items(value: Any, origin: type, arguments: Tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise Mismatch("", f"must be a list, not {shown(value)}")
    items = list(value)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(items) != len(arguments):
            raise Mismatch("", f"must have {len(arguments)} items, not {len(items)}")
        items = [_fit_below(item, arguments[i], f"[{i}]") for i, item in enumerate(items)]
    elif arguments:
        items = [_fit_below(item, arguments[0], f"[{i}]") for i, item in enumerate(items)]
    make: Any = origin if origin in (list, tuple, set, frozenset) else type(value)
    return make(items)


def _fit_below(value: Any, annotation: Any, place: str) -> Any:
    try:
        return fit(value, annotation)
    except Mismatch as mismatch:
        raise Mismatch(place + mismatch.path, mismatch.message) from None


__all__ = [
    "UNKNOWN",
    "DataclassField",
    "Mismatch",
    "allowed_values",
    "field_type",
    "fit",
    "is_nested",
    "shown",
    "type_text",
]
