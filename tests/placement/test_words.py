"""Names of GPUs, conditions on labels, and populations that are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_cluster.placement import accelerators, labels, split_agents

GIB = 1024**3


@pytest.mark.parametrize(
    ("wanted", "model", "expected"),
    [
        ("A100", "A100-40GB", True),
        ("a100", "NVIDIA A100-SXM4-40GB", True),
        ("A100-40GB", "NVIDIA A100-SXM4-40GB", True),
        ("A100-40GB", "A100-40G", True),
        ("A100-80GB", "NVIDIA A100-SXM4-40GB", False),
        ("RTX4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx_4090", "RTX4090", True),
        ("NVIDIA H100", "NVIDIA H100 80GB HBM3", True),
        ("A10", "A100-40GB", False),
        ("A10", "A10G", False),
        ("L4", "L40S", False),
        ("100", "A100", False),
        ("A100-40GB", "A100", False),
        ("A100", None, False),
        ("", "A100", False),
    ],
)
def test_a_model_is_known_by_its_parts(wanted: str, model: str | None, expected: bool) -> None:
    assert accelerators.matches(wanted, model) == expected


def test_every_known_model_is_itself_and_no_other_of_another_size() -> None:
    for name in accelerators.SUGGESTED:
        assert accelerators.known_accelerator(name) is not None
        assert [other for other in accelerators.SUGGESTED if accelerators.matches(name, other)] == [name]


@pytest.mark.parametrize(
    ("wanted", "model", "memory", "will_do"),
    [
        ("A100-80GB", "A100", 80 * GIB, True),
        ("A100-80GB", "A100", 40 * GIB, False),
        ("A100-80GB", "A100", None, False),
        ("H100-80GB", "H100", 79 * GIB, True),
        ("A100-80GB", "A100-80GB", None, True),
        ("A100", "NVIDIA A100-SXM4-40GB", None, True),
        ("A10", "A100", 40 * GIB, False),
        ("rtx4090", "RTX 4090", 24 * GIB, True),
    ],
)
def test_a_size_in_a_name_is_the_gpus(wanted: str, model: str, memory: int | None, will_do: bool) -> None:
    assert accelerators.matches(wanted, model, memory) is will_do


def test_the_smallest_known_model_that_is_large_enough_is_named() -> None:
    assert accelerators.large_enough(40 * GIB) == "A100-40GB"
    assert accelerators.large_enough(1) == "T4"
    assert accelerators.large_enough(1024 * GIB) is None


@pytest.mark.parametrize(
    ("condition", "meets", "fails"),
    [
        ("v", ["v"], ["w", None]),
        ("!v", ["w", None], ["v"]),
        ("in(a,b)", ["a", "b"], ["c", None]),
        ("in( a , b )", ["a", "b"], ["c"]),
        ("!in(a,b)", ["c", None], ["a", "b"]),
        ("interval", ["interval"], ["a", None]),
    ],
)
def test_conditions_on_labels_are_rays(condition: str, meets: list[str | None], fails: list[str | None]) -> None:
    assert all(labels.holds(condition, value) for value in meets)
    assert not any(labels.holds(condition, value) for value in fails)


def test_all_conditions_have_to_hold() -> None:
    assert labels.match({"zone": "a", "spot": "!yes"}, {"zone": "a"})
    assert labels.unmet({"zone": "a", "spot": "!yes"}, {"zone": "b", "spot": "yes"}) == ["zone", "spot"]


@given(st.integers(1, 10_000), st.integers(1, 500))
def test_a_population_is_split_evenly_over_as_few_workers_as_serve_it(total: int, most: int) -> None:
    parts = split_agents(total, most)
    assert sum(parts) == total
    assert max(parts) <= most
    assert max(parts) - min(parts) <= 1
    assert (len(parts) - 1) * most < total
    assert list(parts) == sorted(parts, reverse=True)


def test_nobody_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="cannot split 0 agents by 4: give 1 or more of each"):
        split_agents(0, 4)
