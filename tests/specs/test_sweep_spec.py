"""Sweep specs: canonical form, short forms, and exact messages for what is wrong."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml

from mosaic_cluster.specs import SweepSpec, digest, json_schema, parse

GOOD: dict[str, Any] = {
    "kind": "sweep",
    "name": "x",
    "worker": "w",
    "config": {"env_id": "E", "batch": 4},
    "space": {"lr": {"loguniform": [0.0001, 0.01]}, "n": {"choice": [64, 128]}},
    "samples": 4,
    "seeds": [1, 2],
    "metric": {"name": "m", "at": [10, 20]},
}


def good(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document.update(changes)
    return {key: value for key, value in document.items() if value != "(none)"}


def messages(document: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in parse(document)[1]]


def test_the_canonical_form_reads_back_equal() -> None:
    spec, problems = parse(good(scheduler="asha", search="optuna", limits={"max_duration": "30m"}))
    assert problems == []
    assert isinstance(spec, SweepSpec)
    again, _ = parse(spec.to_document())
    assert again == spec
    assert digest(again) == digest(spec)


def test_short_forms() -> None:
    spec, problems = parse(good(seeds=3, scheduler=None, metric={"name": "m", "at": {"every": 10, "until": 35}}))
    assert problems == []
    assert isinstance(spec, SweepSpec)
    assert spec.seeds == [1, 2, 3]
    assert spec.scheduler.kind == "none"
    assert spec.metric.at == [10, 20, 30, 35]
    assert spec.search.kind == "random"


def test_the_schema_agrees() -> None:
    whole = jsonschema.Draft202012Validator(json_schema())
    for document in (
        good(), good(scheduler="asha", search={"kind": "grid"}, samples="(none)"),
        good(worker={"choice": ["a", {"name": "b", "space": {"z": {"choice": [1]}}}]}), good(seeds=5),
        good(metric={"name": "m", "at": {"every": 1, "until": 9}, "statistic": "median"}),
    ):  # fmt: skip
        whole.validate(document)
        if document.get("search") != {"kind": "grid"}:
            assert messages(document) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"samples": "(none)"}, ["samples: missing; give how many configurations random is to try, e.g. samples: 16"]),
        ({"space": {}}, ["space: is empty: nothing is varied; give e.g. {learning_rate: {loguniform: [0.0001, 0.01]}}"]),
        ({"seeds": [1, 1]}, ["seeds: a seed is there twice; give a list such as [1, 2, 3], or how many: 3 is short for [1, 2, 3]"]),
        ({"seeds": [-1]}, ["seeds: -1 is no seed; a seed is a whole number from 0 to 4294967295"]),
        ({"metric": {"name": "m", "mode": "maximum"}}, ["metric.mode: 'maximum' is none of max, min; did you mean max?"]),
        ({"metric": {"name": "m", "statistic": "mode"}}, ["metric.statistic: 'mode' is none of mean, median, min, max"]),
        ({"metric": {"nam": "m"}}, ["metric.name: missing; give a metric that the worker reports; for example name: episodic_return",
                                    "metric.nam: unknown key; did you mean name?"]),
        ({"scheduler": "ashaa"}, ["scheduler.kind: 'ashaa' is none of none, asha, hyperband, pbt; did you mean asha?"]),
        ({"scheduler": {"kind": "asha", "quantile_fraction": 0.2}}, ["scheduler.quantile_fraction: is a setting of pbt, not of asha; remove it"]),
        ({"scheduler": {"kind": "pbt", "quantile_fraction": 0.7}}, ["scheduler.quantile_fraction: 0.7 is more than half; give at most 0.5"]),
        ({"scheduler": "asha", "metric": {"name": "m"}}, ["metric.at: asha decides between rungs; give two or more steps, e.g. [30_000, 75_000, 150_000]"]),
        ({"scheduler": "pbt", "search": "optuna"}, ["search: optuna does not go with pbt: it starts all configurations before the first result, so optuna could not learn; take random, or scheduler: asha"]),
        ({"search": "grid"}, ["space.lr: has no end of values, which a grid cannot try all; give choice, or a step",
                              "samples: a grid tries every combination once; remove this, or take search: random"]),
        ({"space": {"batch": {"choice": [1, 2]}}}, ["space.batch: is in config, too: keep the fixed value or the distribution"]),
        ({"config": {"o": {"lr": 1}}, "space": {"o.lr": {"choice": [1, 2]}}}, ["space.o.lr: is in config, too: keep the fixed value or the distribution"]),
        ({"space": {"o.lr": {"choice": [1, 2]}, "o": {"lr": {"choice": [3, 4]}}}}, ["space.o.lr: is there twice, nested and with dots; keep one"]),
        ({"limits": {"max_concurrent_trials": 0}}, ["limits.max_concurrent_trials: 0 is out of range; give a whole number, 1 or more, e.g. 8"]),
        ({"worker": {"choice": ["a"]}}, ["worker.choice: give two or more workers, each once"]),
        ({"worker": {"choice": ["a", {"name": "b", "confg": {}}]}}, ["worker.choice.1.confg: unknown key; did you mean config?"]),
        ({"worker": 3}, ["worker: 3 is no worker; give a name, e.g. cleanrl, or {choice: [cleanrl, {name: other, config: {...}, space: {...}}]}"]),
        ({"worker": {"choice": ["a", {"name": "b", "space": {"z": {"uniform": [2, 1]}}}]}}, ["worker.choice.1.space.z: uniform goes from 2 to 1; the first must be lower"]),
        ({"scheduler": "pbt", "space": {"a": {"choice": [1, 2]}, "b": {"choice": [1], "when": {"a": 1}}}}, ["space.b.when: pbt changes every setting of the space as it goes, so none can come and go; remove `when`"]),
        ({"constraints": ["lr +"]}, ["constraints.0: 'lr +' is not an expression (invalid syntax); write for example num_steps * num_envs >= 512"]),
        ({"constraints": ["lrr < 1"]}, ["constraints.0: 'lrr < 1' looks at lrr, which is neither in space nor in config; did you mean lr?"]),
    ],
)  # fmt: skip
def test_exact_messages(changes: dict[str, Any], expected: list[str]) -> None:
    assert messages(good(**changes)) == expected


def test_what_is_wrong_by_itself_and_what_does_not_go_together_come_at_once() -> None:
    found = messages(good(seeds=0, search="grid", scheduler="asha", metric={"name": "m"}, foo=1))
    paths = [message.partition(":")[0] for message in found]
    assert sorted(paths) == ["foo", "metric.at", "samples", "seeds", "space.lr"]


def test_a_whole_spec() -> None:
    text = """
kind: sweep
name: cartpole-lr
worker: cleanrl
config: {env_id: CartPole-v1, algo: ppo, total_steps: 150000}
space:
  learning_rate: {loguniform: [1.0e-4, 1.0e-2]}
  num_steps: {choice: [64, 128]}
samples: 4
seeds: [1, 2]
metric: {name: episodic_return, mode: max, at: [30000, 75000, 150000]}
search: {kind: random, seed: 0}
scheduler: asha
limits: {max_duration: 30m, max_failures: 2, max_concurrent_trials: 8}
storage: ./mosaic-results
"""
    assert messages(yaml.safe_load(text)) == []
