"""The JSON Schema of specs, for editors and other programs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mosaic_cluster.specs.kinds import KINDS
from mosaic_cluster.specs.problems import shown
from mosaic_cluster.specs.trainer import TrainerConfig
from mosaic_cluster.worker.errors import Problem, SpecError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{model}"


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """The schema, draft 2020-12. :func:`parse` has the last word: some rules are beyond a schema.

    Args:
        kind: only this kind; by default all, and the guide's trainer config for what has no ``kind``.

    Raises:
        SpecError: no such kind.
    """
    if kind is not None and kind not in KINDS:
        message = f"{shown(kind)} is no kind of spec; give one of: {', '.join(KINDS)}"
        raise SpecError([Problem("kind", message)])
    models: list[type[BaseModel]] = [KINDS[kind]] if kind is not None else [*KINDS.values(), TrainerConfig]
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    definitions: dict[str, Any] = document["$defs"]
    for model in KINDS.values():
        if model.__name__ in definitions:
            required = definitions[model.__name__].setdefault("required", [])
            definitions[model.__name__]["required"] = ["kind", *required]
    head: dict[str, Any] = {
        "$schema": DIALECT,
        "title": f"mosaic spec of kind {kind}" if kind else "mosaic spec",
    }
    if kind is not None:
        return {**head, "$ref": _REF.format(model=KINDS[kind].__name__), "$defs": definitions}
    kinds = [{"$ref": _REF.format(model=model.__name__)} for model in KINDS.values()]
    trainer = {"$ref": _REF.format(model=TrainerConfig.__name__)}
    return {
        **head,
        "type": "object",
        "if": {"required": ["kind"]},
        "then": {"oneOf": kinds},
        "else": trainer,
        "$defs": definitions,
    }
