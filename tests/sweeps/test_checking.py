"""What workers say to a space, before anything starts: the real catalog, the real cleanrl worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.launching import prepare
from mosaic_cluster.experiments.sweeps.describing import describe_sweep
from mosaic_cluster.placement import ClusterView, NodeView
from mosaic_cluster.worker.errors import SpecError


def spec(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "sweep",
        "name": "x",
        "worker": "cleanrl",
        "config": {"algo": "ppo", "total_steps": 50_000},
        "space": {"learning_rate": {"loguniform": [0.0001, 0.01]}},
        "samples": 4,
        "metric": {"name": "episodic_return"},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def problems(**changes: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        prepare(spec(**changes), Catalog())
    return [str(problem) for problem in caught.value.problems]


def test_a_setting_that_the_worker_does_not_have() -> None:
    assert problems(space={"learning_rat": {"uniform": [0.001, 0.01]}}) == [
        "space.learning_rat: the worker 'cleanrl' has no such setting; did you mean learning_rate?"
    ]


def test_settings_of_a_spec_that_is_broken_elsewhere() -> None:
    found = problems(samples="many", config={"algo": "ppo", "totl_steps": 5}, space={"gama": {"choice": [0.9]}})
    assert [message.partition(":")[0] for message in found] == ["samples", "config.totl_steps", "space.gama"]
    choice = [{"name": "cleanrl", "config": {"alg": "ppo"}}, {"name": "randm"}]
    found = problems(samples="many", worker={"choice": choice}, config=None, space=None)
    assert [message.partition(":")[0] for message in found] == [
        "samples", "worker.choice.0.config.alg", "worker.choice.1"
    ]  # fmt: skip
    assert found[1].endswith("did you mean algo?")


def test_ends_and_choices_that_the_worker_refuses() -> None:
    found = problems(space={"gamma": {"uniform": [0.9, 1.5]}, "device": {"choice": ["cpu", "tpu"]}})
    assert "space.gamma: must be at least 0 and at most 1, but is 1.5" in found
    assert any(message.startswith("space.device: must be one of 'auto', 'cpu', 'cuda', not 'tpu'") for message in found)


def test_combinations_that_the_worker_refuses_are_shown_with_their_values() -> None:
    found = problems(
        config={"algo": "ppo", "num_minibatches": 4, "num_envs": 1},
        space={"num_steps": {"choice": [64, 30]}}, search="grid", samples=None,
    )  # fmt: skip
    (message,) = found
    assert message.startswith("config.num_minibatches: 4 equal parts cannot be made of a rollout")
    assert message.endswith("has num_steps: 30)")


def test_settings_of_another_algorithm_need_a_condition() -> None:
    space = {"algo": {"choice": ["ppo", "dqn"]}, "buffer_size": {"choice": [1000, 5000]}}
    found = problems(space=space, config={"total_steps": 50_000}, search="grid", samples=None)
    assert any("is not a setting of ppo" in message for message in found)
    space["buffer_size"]["when"] = {"algo": "dqn"}
    prepared = prepare(spec(space=space, config={"total_steps": 50_000}, search="grid", samples=None), Catalog())
    assert len(prepared.parts) == 1


def test_seed_and_run_id_are_given_elsewhere() -> None:
    found = problems(space={"seed": {"choice": [1, 2]}}, config={"run_id": "x"})
    assert "config.run_id: is not given here: each run gets its own" in found
    assert "space.seed: is not given here: write `seeds:`, which every configuration gets" in found


def test_an_unknown_worker_and_what_else_is_wrong_at_once() -> None:
    found = problems(worker={"choice": ["cleanrl", "cleanlr"]}, space={"gamma": {"uniform": [0, 2]}})
    assert any(message.startswith("worker.choice.1: there is no worker 'cleanlr'") for message in found)
    assert "space.gamma: must be at least 0 and at most 1, but is 2.0" in found


@pytest.mark.parametrize(
    ("space", "constraints", "expected"),
    [
        ({"num_steps": {"int": [0, 8]}}, ["1024 / num_steps > 2"],
         "constraints: '1024 / num_steps > 2' cannot be worked out: division by zero (for num_steps: 0)"),
        ({"num_steps": {"choice": [32, 64]}}, ["num_steps > 'a'"],
         "constraints: \"num_steps > 'a'\" cannot be worked out: '>' not supported between"),
        ({"num_steps": {"choice": [32], "when": "gamma > algo"}, "gamma": {"choice": [0.9]}}, [],
         "space.num_steps.when: 'gamma > algo' cannot be worked out: '>' not supported between instances of"),
    ],
)  # fmt: skip
def test_conditions_without_a_value(space: dict[str, Any], constraints: list[str], expected: str) -> None:
    found = problems(space=space, constraints=constraints)
    assert any(message.startswith(expected) for message in found), found


def test_a_constraint_that_next_to_nothing_meets() -> None:
    found = problems(space={"gamma": {"uniform": [0, 1]}}, constraints=["gamma > 2"])
    assert found == ["constraints: no configuration met the constraints in 10,000 draws: gamma > 2"]


def test_what_pauses_needs_checkpoints(tmp_path: Path) -> None:
    del tmp_path
    from .conftest import FakeCatalog

    with pytest.raises(SpecError) as caught:
        prepare(
            spec(worker="curves", scheduler="pbt", metric={"name": "m", "at": [1, 2]}),
            FakeCatalog(supports_checkpointing=False),
        )
    assert str(caught.value.problems[0]) == (
        "scheduler: pbt pauses runs and goes on with them from a checkpoint, but the worker 'curves' keeps none; "
        "take scheduler: asha, or none"
    )


def test_the_plan_says_what_runs_and_what_waits() -> None:
    changes = {"seeds": 3, "scheduler": "asha", "metric": {"name": "episodic_return", "at": [10_000, 50_000]}}
    prepared = prepare(spec(limits={"max_concurrent_trials": 2}, **changes), Catalog())
    node = NodeView("n", "node-n", True, False, 2.0, 2.0, 1 << 34, 1 << 34)
    lines, answers = describe_sweep(prepared, ClusterView((node,), 0.0))
    text = "\n".join(lines)
    for expected in (
        "4 trials by random search, each with 3 seeds: 12 runs",
        "judged by the mean of episodic_return over seeds, max, at 10,000, 50,000 steps",
        "asha stops a trial at a rung unless it is among the best 1/3",
        "varies learning_rate: 0.0001 to 0.01, logarithmic",
        "2 runs at once on what is free now, each with 1 CPU, 512MiB of memory",
        "the 3 seeds of a trial do not all fit: they run in 2 waves, rung by rung",
        "at most 2 trials at once (limits.max_concurrent_trials)",
        "t0001  learning_rate: ",
    ):
        assert expected in text, text
    assert [answer["answer"] for answer in answers] == ["placed", "placed", "waiting"]


def test_mistakes_of_all_sorts_come_at_once_and_once_each() -> None:
    found = problems(
        config={"algo": "ppo", "total_step": 50_000, "tau": 0.1},
        space={
            "learning_rate": {"uniform": [0.1, 0.2]}, "gama": {"choice": [0.9, 0.99]}, "ent_coef": {"uniform": [-1, 0]},
        },
        seeds=2,
    )  # fmt: skip
    starts = sorted(message.partition(":")[0] for message in found)
    assert starts == ["config.tau", "config.total_step", "space.ent_coef", "space.gama"]
    assert not any("configuration" in message for message in found)


def test_a_rung_that_no_run_reaches() -> None:
    found = problems(metric={"name": "episodic_return", "at": [5_000, 60_000]}, scheduler="asha")
    assert found == [
        "metric.at: rung 60,000 is never reached: config.total_steps is 50,000; lower the one or raise the other"
    ]


def test_an_unknown_worker_is_told_beside_what_is_wrong_by_itself() -> None:
    found = problems(worker="cleanrk", samples=0)
    assert [message.partition(":")[0] for message in found] == ["samples", "worker"]
