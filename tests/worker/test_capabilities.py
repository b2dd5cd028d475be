"""What a worker says about itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mosaic_cluster.worker import ConfigError, WorkerCapabilities, WorkerMetadata


def test_eight_given_fields_suffice() -> None:
    capabilities = WorkerCapabilities(
        worker_type="myworker",
        supported_paradigms=("sequential",),
        env_families=("gymnasium",),
        action_spaces=("discrete", "continuous"),
        observation_spaces=("vector", "image"),
        max_agents=1,
        supports_checkpointing=True,
        requires_gpu=False,
    )
    assert not capabilities.supports_self_play
    assert not capabilities.supports_population
    assert not capabilities.supports_pause_resume
    assert capabilities.gpu_memory_mb is None
    assert capabilities.cpu_cores == 1
    assert capabilities.estimated_memory_mb == 512
    assert capabilities.supports_paradigm("sequential")
    assert not capabilities.supports_paradigm("parallel")
    assert capabilities.supports_env_family("gymnasium")
    assert not capabilities.is_multi_agent()
    assert dataclasses.replace(capabilities, max_agents=2).is_multi_agent()


def test_all_names_are_there_in_order() -> None:
    assert [field.name for field in dataclasses.fields(WorkerCapabilities)] == [
        "worker_type",
        "supported_paradigms",
        "env_families",
        "action_spaces",
        "observation_spaces",
        "max_agents",
        "supports_self_play",
        "supports_population",
        "supports_checkpointing",
        "supports_pause_resume",
        "requires_gpu",
        "gpu_memory_mb",
        "cpu_cores",
        "estimated_memory_mb",
    ]
    assert [field.name for field in dataclasses.fields(WorkerMetadata)] == [
        "name",
        "version",
        "description",
        "author",
        "homepage",
        "upstream_library",
        "upstream_version",
        "license",
    ]


def test_lists_strings_and_whole_floats_are_normalised() -> None:
    given: Any = {"env_families": ["a", "b"], "action_spaces": "discrete", "observation_spaces": {"y", "x"}}
    capabilities = WorkerCapabilities(worker_type="w", cpu_cores=2.0, supported_paradigms=None, **given)  # type: ignore[arg-type]
    assert capabilities.env_families == ("a", "b")
    assert capabilities.action_spaces == ("discrete",)
    assert capabilities.observation_spaces == ("x", "y")
    assert capabilities.supported_paradigms == ()
    assert capabilities.cpu_cores == 2
    assert isinstance(hash(capabilities), int)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WorkerCapabilities("w").max_agents = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("worker_type", ""),
        ("worker_type", None),
        ("max_agents", 0),
        ("max_agents", True),
        ("cpu_cores", -1),
        ("cpu_cores", 0.5),
        ("estimated_memory_mb", "much"),
        ("estimated_memory_mb", None),
        ("gpu_memory_mb", -5),
        ("requires_gpu", "yes"),
        ("supports_self_play", None),
        ("env_families", 5),
        ("env_families", ("a", 5)),
        ("action_spaces", {"a": 1}),
    ],
)
def test_impossible_capabilities_say_what_and_why(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        WorkerCapabilities(**{"worker_type": "w", field: value})
    assert [problem.path for problem in caught.value.problems] == [field]
    assert "must" in str(caught.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        WorkerCapabilities("w", cpu_cores=-1, max_agents=0, gpu_memory_mb=-1)
    assert all(name in str(caught.value) for name in ("cpu_cores", "max_agents", "gpu_memory_mb"))


def test_round_trip_and_keys_of_newer_versions() -> None:
    capabilities = WorkerCapabilities("w", env_families=("a",), gpu_memory_mb=100)
    data = capabilities.to_dict()
    assert data["env_families"] == ["a"]
    assert WorkerCapabilities.from_dict({**data, "supports_telepathy": True}) == capabilities
    metadata = WorkerMetadata(name="W", version="1", upstream_library=None)
    assert WorkerMetadata.from_dict({**metadata.to_dict(), "mascot": "owl"}) == metadata


@pytest.mark.parametrize("kind", [WorkerCapabilities, WorkerMetadata])
@pytest.mark.parametrize("data", [{}, [], None])
def test_from_dict_refuses_what_is_none(kind: Any, data: Any) -> None:
    with pytest.raises(ConfigError):
        kind.from_dict(data)


def test_metadata_is_checked() -> None:
    assert WorkerMetadata(name="W", author=None).author == ""  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        WorkerMetadata(name=" ", version=1.0)  # type: ignore[arg-type]
    assert [problem.path for problem in caught.value.problems] == ["version", "name"]
