"""Problems in plain words: how a value is shown, and how Pydantic's errors are told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from mosaic_cluster.worker.errors import Problem

SHOWN = 60
_MANY = "mosaic_problems"


def shown(value: Any) -> str:
    """What was given, for a message: short, and never the inside of a collection, which may hold secrets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a huge number"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return "binary data" if isinstance(value, bytes) else f"a {type(value).__name__}"
    return repr(value if len(value) <= SHOWN else value[: SHOWN - 3] + "...")


def type_of(value: Any) -> str:
    """The kind of ``value``, where the value itself must not be shown."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return shown(value)


def suggestion(wrong: str, valid: Iterable[str]) -> str:
    """``did you mean X?`` if one is near; else all that is valid."""
    names = list(valid)
    near = get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(names)}"


def several(problems: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """An error that a validator raises for more than one problem, or for one below its own field.

    Args:
        problems: dotted path below the field, and message.
    """
    return PydanticCustomError(_MANY, "{count} problems", {"count": len(problems), "problems": list(problems)})


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Pydantic's errors as problems, in the order of the document's fields."""
    found: dict[Problem, None] = {}
    for detail in error.errors(include_url=False):
        place = [str(part) for part in detail["loc"]]
        context = detail.get("ctx", {})
        if detail["type"] == _MANY:
            for below, message in context["problems"]:
                found[Problem(".".join([*place, *([below] if below else [])]), message)] = None
        else:
            found[Problem(".".join(place), _message(detail["type"], place, detail, model))] = None
    return list(found)


def _message(kind: str, place: Sequence[str], detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    owner = _model_at(model, place[:-1])
    if kind == "extra_forbidden":
        return f"unknown key; {suggestion(place[-1], owner.model_fields)}"
    if kind == "missing":
        field = owner.model_fields[place[-1]]
        example = f"; for example {place[-1]}: {_example(field.examples[0])}" if field.examples else ""
        return f"missing; give {_lower(field.description or 'a value')}{example}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(_model_at(model, place).model_fields)
        return f"{shown(detail['input'])} is not a mapping; give keys and values, of these keys: {keys}"
    if kind == "invalid_key":
        return f"the key {place[-1]} is not text; valid keys: {', '.join(owner.model_fields)}"
    return f"{shown(detail['input'])} is not valid: {_lower(str(detail['msg']))}"


def _model_at(model: type[BaseModel], place: Sequence[str]) -> type[BaseModel]:
    for name in place:
        field = model.model_fields.get(name)
        annotation = field.annotation if field is not None else None
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return model


def _example(value: Any) -> str:
    """Text as it is, anything else as JSON, which is good YAML too."""
    return value if isinstance(value, str) else json.dumps(value)


def _lower(text: str) -> str:
    """A description as it continues a sentence: its first sentence, without a capital or a full stop."""
    first = text.split(". ")[0].rstrip(".")
    return first if first[1:2].isupper() else first[:1].lower() + first[1:]
