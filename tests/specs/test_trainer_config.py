"""The guide's trainer config dict: what it becomes, and what is said where it is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mosaic_cluster.specs import RunSpec, digest, is_trainer_config, parse

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
GUIDE: dict[str, Any] = {
    "run_name": "my run #3",
    "entry_point": "/usr/bin/python3",
    "arguments": ["-m", "my_worker.cli"],
    "environment": {"MY_WORKER_RUN_ID": "my run #3"},
    "resources": {"cpus": 4, "memory_mb": 4096, "gpus": {"requested": 1, "mandatory": False}},
    "metadata": {
        "ui": {"worker_id": "my_worker", "anything": [1, 2]},
        "worker": {
            "worker_id": "my_worker",
            "module": "my_worker.cli",
            "config": {"run_id": "my run #3", "seed": 7, "env_id": "CartPole-v1"},
            "grpc_target": "localhost:1",
        },
    },
    "artifacts": {"output_prefix": "runs/my run #3", "persist_logs": True, "keep_checkpoints": True},
    "schedule": {"max_duration_seconds": 60, "max_steps": 1000},
}


def spec_of(document: dict[str, Any]) -> RunSpec:
    spec, problems = parse(document)
    assert problems == []
    assert spec is not None
    return spec


def test_the_guides_dict_becomes_a_run_spec() -> None:
    spec = spec_of(GUIDE)
    assert (spec.kind, spec.name, spec.label) == ("run", "my-run-3", "my run #3")
    assert (spec.worker, spec.worker_module) == ("my_worker", "my_worker.cli")
    assert spec.command == ["/usr/bin/python3", "-m", "my_worker.cli"]
    assert (spec.config, spec.seed, spec.run_id) == ({"env_id": "CartPole-v1"}, 7, None)
    assert spec.environment == {"MY_WORKER_RUN_ID": "my run #3"}
    assert (spec.limits.max_duration, spec.limits.max_steps) == (60.0, 1000)
    resources = spec.resources
    assert (resources.cpus, resources.memory, resources.gpus, resources.gpus_mandatory) == (
        4.0,
        2**32,
        1,
        False,
    )
    assert spec.notes == {
        "artifacts": {"output_prefix": "runs/my run #3", "persist_logs": True, "keep_checkpoints": True},
        "ui": {"worker_id": "my_worker", "anything": [1, 2]},
    }


def test_its_canonical_form_is_a_run_spec_that_reads_back_equal() -> None:
    spec = spec_of(GUIDE)
    assert spec_of(spec.to_document()) == spec
    assert digest(spec_of(spec.to_document())) == digest(spec)


def test_what_is_left_out_is_as_the_worker_declares() -> None:
    worker = {"worker_id": "w", "config": {}}
    spec = spec_of({"run_name": "ok", "entry_point": "python", "metadata": {"worker": worker}})
    assert spec.label is None
    assert spec.command == ["python"]
    assert (spec.resources.cpus, spec.resources.memory, spec.resources.gpus) == (None, None, None)
    assert spec.notes == {}


def test_a_run_id_that_is_a_ulid_is_kept() -> None:
    document = copy.deepcopy(GUIDE)
    document["metadata"]["worker"]["config"]["run_id"] = ULID
    spec = spec_of(document)
    assert spec.run_id == ULID
    assert "run_id" not in spec.config


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("a b", "a-b"),
        ("../x", "x"),
        ("实验", "run"),
        ("x" * 120, "x" * 120),
        ("a!!", "a"),
        ("ok_1.2", "ok_1.2"),
    ],
)
def test_any_run_name_becomes_a_name(name: str, slug: str) -> None:
    assert spec_of({**GUIDE, "run_name": name}).name == slug


def test_it_is_told_from_a_run_spec_by_its_keys() -> None:
    assert is_trainer_config(GUIDE)
    assert is_trainer_config({"run_name": "x"})
    assert not is_trainer_config({"kind": "run", "run_name": "x", "entry_point": "y"})
    assert not is_trainer_config({"name": "x", "worker": "w", "resources": {}, "environment": {}})
    assert not is_trainer_config({})


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"run_name": ""}, ["run_name: '' is empty; give text of 1 to 120 characters, e.g. my-run"]),
    (
        {"run_name": "x" * 121},
        [f"run_name: '{'x' * 57}...' has 121 characters; give text of 1 to 120 characters, e.g. my-run"],
    ),
    (
        {"entry_point": ["python"]},
        ["entry_point: a list is not text; give text of 1 to 4096 characters, e.g. /usr/bin/python3"],
    ),
    ({"arguments": ["-n", 3]}, ["arguments.1: 3 is not text; put it in quotes"]),
    ({"arguments": "-m x"}, [
        "arguments: '-m x' is not a list; give a list of text, e.g. [-m, my_worker.cli]"
    ]),
    (
        {"environment": {"API_TOKEN": 123456}},
        ["environment.API_TOKEN: must be text, this is a number; put the value in quotes"],
    ),
    ({"resources": {"cpus": 0}}, ["resources.cpus: 0 is out of range; give a number, 1 or more, e.g. 2"]),
    (
        {"resources": {"memory_mb": 128}},
        ["resources.memory_mb: 128 is out of range; give a whole number, 256 or more, e.g. 4096"],
    ),
    (
        {"resources": {"gpus": {"requsted": 1, "mandatory": "no"}}},
        [
            "resources.gpus.mandatory: 'no' is neither true nor false; give true or false, e.g. true",
            "resources.gpus.requsted: unknown key; did you mean requested?",
        ],
    ),
    (
        {"resources": {"gpus": 1}},
        ["resources.gpus: 1 is not a mapping; give keys and values, of these keys: requested, mandatory"],
    ),
    (
        {"schedule": {"max_duration_seconds": 0.5, "max_steps": 0}},
        [
            "schedule.max_duration_seconds: 0.5 is out of range; give a number, 1 or more, e.g. 3600",
            "schedule.max_steps: 0 is out of range; give a whole number, 1 or more, e.g. 1000000",
        ],
    ),
    (
        {"artifacts": {"keep": True}},
        ["artifacts.keep: unknown key; valid keys: output_prefix, persist_logs, keep_checkpoints"],
    ),
    (
        {"metadata": None},
        [
            "metadata.worker: missing; give the worker and its config; "
            'for example worker: {"worker_id": "my_worker", "config": {"env_id": "CartPole-v1"}}'
        ],
    ),
    (
        {"metadata": {"worker": {"worker_id": "w"}}},
        [
            "metadata.worker.config: missing; give the worker's own config; "
            'for example config: {"env_id": "CartPole-v1", "seed": 1}'
        ],
    ),
    (
        {"metadata": {"worker": {"worker_id": "w", "config": None}}},
        [
            "metadata.worker.config: null is not a mapping; give keys and values, "
            "e.g. {env_id: CartPole-v1}"
        ],
    ),
    (
        {"metadata": {"worker": {"worker_id": 3, "config": {"a": {"b": float("inf")}}}}},
        [
            "metadata.worker.worker_id: 3 is not text; put it in quotes; "
            "give text of 1 to 120 characters, e.g. my_worker",
            "metadata.worker.config.a.b: inf cannot be kept in JSON; give a finite number, or null",
        ],
    ),
    (
        {"metadata": {"worker": {"worker_id": "w", "config": {"seed": "x"}}}},
        [
            "metadata.worker.config.seed: 'x' is not a seed; "
            "give a whole number from 0 to 4294967295, e.g. 1, or null"
        ],
    ),
    ({"seeds": 3}, [
        "seeds: unknown key; valid keys: run_name, entry_point, arguments, environment, resources, "
        "artifacts, metadata, schedule"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), BAD, ids=[str(change)[:50] for change, _ in BAD])
def test_a_bad_value_gets_exactly_these_messages(change: dict[str, Any], expected: list[str]) -> None:
    spec, problems = parse({**GUIDE, **change})
    assert spec is None
    assert [str(problem) for problem in problems] == expected


def test_all_problems_come_at_once() -> None:
    _, problems = parse({"run_name": "", "arguments": [1], "metadata": {}, "x": 1})
    assert [problem.path for problem in problems] == [
        "run_name",
        "entry_point",
        "arguments.0",
        "metadata.worker",
        "x",
    ]
