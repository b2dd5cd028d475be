"""The exported JSON Schema: valid itself, complete, and of one mind with parse()."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mosaic_cluster.specs import KINDS, json_schema, parse, read_document
from mosaic_cluster.worker.errors import SpecError

RUN = {"kind": "run", "name": "x", "worker": "w"}
TRAINER = {
    "run_name": "x",
    "entry_point": "python",
    "metadata": {"worker": {"worker_id": "w", "config": {"seed": 1}}},
}
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples").glob("*.yaml"))
WHOLE = jsonschema.Draft202012Validator(json_schema())


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for model, definition in schema["$defs"].items():
        for name, field in definition["properties"].items():
            yield f"{model}.{name}", field


def test_it_is_a_valid_schema_and_plain_json() -> None:
    for kind in (None, *KINDS):
        schema = json_schema(kind)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert json.loads(json.dumps(schema)) == schema


def test_every_field_has_a_description_and_its_examples_are_valid() -> None:
    schema = json_schema()
    for name, field in properties(schema):
        assert field.get("description"), f"{name} has no description"
        for example in field.get("examples", ()):
            jsonschema.Draft202012Validator({**field, "$defs": schema["$defs"]}).validate(example)


def test_the_examples_of_the_schema_and_of_the_docs_are_valid() -> None:
    for definition in json_schema()["$defs"].values():
        for example in definition.get("examples", ()):
            WHOLE.validate(example)
            assert parse(example)[1] == []
    for path in EXAMPLES:
        WHOLE.validate(read_document(path))


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {"memory": "8000MB", "gpu_memory": "1.5 GiB", "cpus": 0.5}},
        {"resources": {"memory": "10Gi", "gpus": None}},
        {"limits": {"max_duration": "1h 30m", "no_heartbeat": 90, "grace": ".5s", "max_log": "4096"}},
        {"limits": {"max_steps": 1e6, "max_duration": "2 days", "on_excess": "warn"}},
        {"resources": {"agents": 3, "per_agent": {"memory": "1GiB"}, "accelerator": "A100", "labels": {"a": "in(b,c)"}}},
        {"resources": {"accelerator": ["A100"], "labels": {"ray.io/region": "!us-1"}, "per_agent": None}},
        {"population": {"agents": 64, "strategy": "spread"}, "priority": -3, "weight": 0.5, "on_oom": {"grow": 2}},
        {"environment": {"A": "b"}, "command": ["python"], "seed": None, "config": {"a": [None, {"b": 1}]}},
    ],
)
def test_what_is_accepted_is_valid(change: dict[str, Any]) -> None:
    assert parse({**RUN, **change})[1] == []
    WHOLE.validate({**RUN, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"seed": -1},
        {"resources": {"memory": "lots"}},
        {"resources": {"memory": "10 parsecs"}},
        {"resources": {"cpus": 0}},
        {"limits": {"max_duration": "soon"}},
        {"limits": {"max_steps": 0}},
        {"environment": {"RAY_X": "y"}},
        {"environment": {"X": 1}},
        {"command": "python"},
        {"run_id": "x"},
        {"foo": 1},
        {"resources": {"labels": {"a": "in(b"}}},
        {"resources": {"labels": {"a b": "c"}}},
        {"resources": {"accelerator": []}},
        {"resources": {"agents": 0}},
        {"resources": {"per_agent": {"cpus": -1}}},
        {"population": {}},
        {"priority": "high"},
        {"weight": 0},
        {"on_oom": {"grow": 1}},
        {"limits": {"on_excess": "kill"}},
        {"kind": "rnu"},
    ],
)
def test_what_is_refused_is_invalid(change: dict[str, Any]) -> None:
    assert parse({**RUN, **change})[1]
    assert not WHOLE.is_valid({**RUN, **change})


def test_trainer_configs_are_covered() -> None:
    assert WHOLE.is_valid(TRAINER)
    assert parse(TRAINER)[1] == []
    for path in (("run_name",), ("metadata", "worker", "config")):
        broken = copy.deepcopy(TRAINER)
        inner: Any = broken
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        assert not WHOLE.is_valid(broken)


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(SpecError, match="kind: 'league' is no kind of spec; give one of: run"):
        json_schema("league")
