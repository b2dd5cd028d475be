"""Good specs: what they become, their canonical form, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mosaic_cluster.specs import KINDS, Limits, Resources, RunSpec, digest, load, parse

GIB = 1024**3
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples").glob("*.yaml"))


def spec_of(document: dict[str, Any]) -> RunSpec:
    spec, problems = parse(document)
    assert problems == []
    assert spec is not None
    return spec


def test_a_small_spec_has_the_documented_defaults() -> None:
    spec = spec_of({"kind": "run", "name": "x", "worker": "w"})
    assert spec.resources == Resources(
        cpus=None, memory=None, gpus=None, gpu_memory=None, gpus_mandatory=True
    )
    assert spec.limits == Limits(
        max_duration=None, max_steps=None, no_heartbeat=None, max_log=None, max_failures=2, grace=30.0,
        on_excess="stop",
    )  # fmt: skip
    assert (spec.priority, spec.weight, spec.on_oom, spec.population) == (0, 1.0, None, None)
    assert (spec.config, spec.seed, spec.environment, spec.command, spec.run_id) == ({}, None, {}, None, None)
    assert spec.storage == str(Path.cwd() / "mosaic-results")


def test_units_become_plain_numbers() -> None:
    spec = spec_of(
        {
            "kind": "run",
            "name": "x",
            "worker": "w",
            "seed": 1e3,
            "resources": {"cpus": 2, "memory": "8GiB", "gpu_memory": "10GiB", "gpus": 1},
            "limits": {"max_duration": "1h30m", "max_steps": 1e6, "grace": 0, "max_log": "1MB"},
        }
    )
    assert spec.resources.model_dump(exclude_none=True) == {
        "cpus": 2.0,
        "memory": 8 * GIB,
        "gpus": 1,
        "gpu_memory": 10 * GIB,
        "gpus_mandatory": True,
    }
    assert (spec.limits.max_duration, spec.limits.max_steps, spec.limits.grace) == (5400.0, 1_000_000, 0.0)
    assert spec.limits.max_log == 1_000_000
    assert (spec.seed, type(spec.seed)) == (1000, int)


def test_what_a_run_asks_of_its_place() -> None:
    spec = spec_of(
        {
            "kind": "run",
            "name": "x",
            "worker": "w",
            "resources": {
                "agents": 4,
                "per_agent": {"cpus": 0.1, "memory": "1GiB", "gpu_memory": "2GiB"},
                "accelerator": "A100",
                "labels": {"team": "in(vision, robots)", "ray.io/market-type": "!spot"},
            },
            "priority": 7,
            "weight": 2,
            "on_oom": {"grow": 2},
        }
    )
    assert spec.resources.model_dump(exclude_none=True) == {
        "gpus_mandatory": True,
        "agents": 4,
        "per_agent": {"cpus": 0.1, "memory": GIB, "gpu_memory": 2 * GIB},
        "accelerator": ["A100"],
        "labels": {"team": "in(vision,robots)", "ray.io/market-type": "!spot"},
    }
    assert (spec.priority, spec.weight) == (7, 2.0)
    assert spec.on_oom is not None
    assert (spec.on_oom.grow, spec.on_oom.max) == (2.0, 2)
    split = spec_of({"kind": "run", "name": "x", "worker": "w", "population": {"agents": 64}})
    assert split.population is not None
    assert (split.population.agents, split.population.strategy) == (64, "pack")


def test_an_empty_section_is_as_good_as_none() -> None:
    sections = ("config", "resources", "limits", "environment", "notes")
    plain = {"kind": "run", "name": "x", "worker": "w"}
    assert spec_of({**plain, **dict.fromkeys(sections)}) == spec_of(plain)


def test_a_relative_storage_starts_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"kind": "run", "name": "x", "worker": "w", "storage": "./out"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert spec_of(document).storage == str(tmp_path / "out")
    spec, _ = parse(document, base_dir="/data")
    assert spec is not None
    assert spec.storage == "/data/out"
    assert spec_of({**document, "storage": "~/out"}).storage == "/home/me/out"
    assert spec_of({**document, "storage": "/nfs/a/../b"}).storage == "/nfs/b"
    assert spec_of({**document, "storage": "s3://bucket/a/b/"}).storage == "s3://bucket/a/b"


def test_a_spec_does_not_change() -> None:
    spec = spec_of({"kind": "run", "name": "x", "worker": "w"})
    with pytest.raises(ValidationError):
        spec.name = "y"  # type: ignore[misc]
    assert spec.model_copy(update={"seed": 7}).seed == 7


def test_equal_specs_have_equal_digests_however_they_are_written(tmp_path: Path) -> None:
    yaml, strict = tmp_path / "a.yaml", tmp_path / "a.json"
    yaml.write_text("worker: w\nname: x\nkind: run\nlimits: {max_duration: 30m}\nresources: {memory: 1GiB}\n")
    document = {
        "kind": "run", "name": "x", "worker": "w",
        "limits": {"max_duration": 1800}, "resources": {"memory": GIB},
    }  # fmt: skip
    strict.write_text(json.dumps(document))
    assert load(yaml) == load(strict)
    assert digest(load(yaml)) == digest(load(strict))
    assert len(digest(load(yaml))) == 64
    assert digest(load(yaml)) != digest(load(yaml).model_copy(update={"seed": 1}))


def test_a_run_id_is_kept_in_capitals() -> None:
    document = {"kind": "run", "name": "x", "worker": "w", "run_id": "01arz3ndektsv4rrffq69g5fav"}
    assert spec_of(document).run_id == "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_the_examples_load(path: Path) -> None:
    assert load(path).kind in KINDS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text("abcé\n \"'", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
documents = st.fixed_dictionaries(
    {"kind": st.just("run"), "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)}
    | {"worker": st.text("abc.", min_size=1, max_size=9)},
    optional={
        "config": st.dictionaries(st.text("abc", max_size=3), json_values, max_size=3),
        "seed": st.none() | st.integers(0, 2**32 - 1),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "cpus": st.floats(0.001, 1000),
                "memory": st.integers(10**6, 2**50) | st.sampled_from(["1GiB", "8000MB"]),
                "gpus": st.integers(1, 8),
                "gpu_memory": st.sampled_from(["10GiB", None]),
                "gpus_mandatory": st.booleans(),
                "agents": st.integers(1, 99),
                "per_agent": st.sampled_from([None, {}, {"cpus": 0.5, "memory": "1MB"}]),
                "accelerator": st.sampled_from([None, "A100", ["T4", "RTX 4090"]]),
                "labels": st.sampled_from([None, {}, {"a": "!in(b, c)"}]),
            },
        ),
        "priority": st.integers(-5, 5),
        "weight": st.floats(0.01, 100),
        "on_oom": st.sampled_from([None, {}, {"grow": 1.25, "max": 9}]),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "max_duration": st.sampled_from(["30m", 1, 0.5, None]),
                "max_steps": st.integers(1, 10**12),
                "max_failures": st.integers(0, 99),
                "grace": st.floats(0, 1e6),
                "on_excess": st.sampled_from(["stop", "warn"]),
            },
        ),
        "environment": st.dictionaries(
            st.from_regex(r"[A-LN-QS-Z_]{1,5}", fullmatch=True), st.text("ab=é"), max_size=2
        ),
        "command": st.lists(st.text("ab-", min_size=1), min_size=1, max_size=3),
        "notes": st.dictionaries(st.text("abc", max_size=3), json_values, max_size=2),
    },
)


@given(documents)
def test_the_canonical_form_reads_back_equal(document: dict[str, Any]) -> None:
    spec = spec_of(document)
    again = spec_of(json.loads(json.dumps(spec.to_document(), allow_nan=False)))
    assert again == spec
    assert digest(again) == digest(spec)
    assert again.to_document() == spec.to_document()


@given(st.dictionaries(st.sampled_from([*RunSpec.model_fields, "x"]), json_values, max_size=6))
def test_whatever_is_written_is_answered(document: dict[str, Any]) -> None:
    spec, problems = parse(document)
    assert (spec is None) == bool(problems)
    assert all(problem.message for problem in problems)


def test_one_variable_of_ours_is_for_the_user_to_set() -> None:
    given = {"MOSAIC_TELEMETRY_LINGER": "0.1"}
    assert spec_of({"kind": "run", "name": "x", "worker": "w", "environment": given}).environment == given
