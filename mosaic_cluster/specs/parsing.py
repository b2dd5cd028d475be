"""From a document to a spec, or to every problem it has."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from mosaic_cluster.specs.documents import read_document
from mosaic_cluster.specs.kinds import KINDS, Spec
from mosaic_cluster.specs.problems import problems_of, shown
from mosaic_cluster.specs.trainer import TrainerConfig, is_trainer_config
from mosaic_cluster.worker.errors import Problem, SpecError

Model = TypeVar("Model", bound=BaseModel)


def parse(document: object, *, base_dir: str | os.PathLike[str] | None = None) -> tuple[Spec | None, list[Problem]]:
    """Check a document and turn it into a spec.

    Args:
        document: what :func:`read_document` returns: a spec, or the guide's trainer config.
        base_dir: folder that a relative ``storage`` starts from. Default: the current directory, as in a
            shell, wherever the spec's own file lies.

    Returns:
        The spec and no problems; or ``None`` and all problems, with dotted paths into ``document``.
    """
    if not isinstance(document, Mapping):
        message = f"{shown(document)} is not a spec; give keys and values, beginning with kind: run"
        return None, [Problem("", message)]
    context = {"base_dir": base_dir}
    if is_trainer_config(document):
        trainer, problems = _validated(TrainerConfig, document, context)
        return (trainer.to_spec(context) if trainer is not None else None), problems
    problems = _kind_problems(document)
    # What is meant is guessed only to tell what else is wrong.
    kind = document.get("kind", "sweep" if "space" in document else "run")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return None, problems
    spec, more = _validated(model, {**document, "kind": kind}, context)
    return (cast(Spec, spec) if spec is not None and not problems else None), problems + more


def _kind_problems(document: Mapping[Any, Any]) -> list[Problem]:
    names = ", ".join(KINDS)
    if "kind" not in document:
        return [Problem("kind", f"missing; give one of: {names}; for example kind: {next(iter(KINDS))}")]
    kind = document["kind"]
    if isinstance(kind, str) and kind in KINDS:
        return []
    return [Problem("kind", f"{shown(kind)} is no kind of spec; give one of: {names}")]


def _validated(
    model: type[Model], document: Mapping[Any, Any], context: Mapping[str, Any]
) -> tuple[Model | None, list[Problem]]:
    try:
        return model.model_validate(dict(document), context=dict(context)), []
    except ValidationError as error:
        found = problems_of(error, model)
    wrong = {problem.path.partition(".")[0] for problem in found}
    return None, found + [each for each in _about_the_rest(model, document, context, wrong) if each not in found]


# What conditions and constraints are about: with these wrong, nothing can be said about the whole.
_CENTRE = frozenset({"worker", "config", "space", "constraints"})


def _about_the_rest(
    model: type[Model], document: Mapping[Any, Any], context: Mapping[str, Any], wrong: set[str]
) -> list[Problem]:
    """What does not go together in a document with some wrong keys, which are replaced by those of an example."""
    extra: Any = model.model_config.get("json_schema_extra")
    if wrong & _CENTRE or not isinstance(extra, dict):
        return []
    (example,) = extra["examples"]
    right = {name: value for name, value in document.items() if name in model.model_fields and name not in wrong}
    fallback = {name: example[name] for name in wrong if name in example and model.model_fields[name].is_required()}
    try:
        model.model_validate({**fallback, **right}, context=dict(context))
    except ValidationError as error:
        return [each for each in problems_of(error, model) if each.path.partition(".")[0] not in wrong]
    return []


def load(path: str | Path, *, base_dir: str | os.PathLike[str] | None = None) -> Spec:
    """Read and check a spec.

    Args:
        path: YAML or JSON file, or its text: see :func:`read_document`.
        base_dir: see :func:`parse`.

    Raises:
        SpecError: with every problem.
    """
    spec, problems = parse(read_document(path), base_dir=base_dir)
    if spec is None:
        raise SpecError(problems, None if "\n" in str(path) else str(path))
    return spec


def digest(spec: Spec) -> str:
    """SHA-256 of the canonical form, in hex: equal specs have equal digests, however they were written."""
    canonical = json.dumps(spec.to_document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
