"""Searchers and schedulers behind the protocols: ours without Ray, Tune's through the adapter."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mosaic_cluster.runtime.inline import InlineBackend
from mosaic_cluster.runtime.searching.protocols import (
    Decision,
    GridSearch,
    RandomSearch,
    Scheduler,
    SchedulerSetup,
    SearchSetup,
)
from mosaic_cluster.runtime.searching.tune_schedulers import make_scheduler
from mosaic_cluster.runtime.searching.tune_search import make_searcher
from mosaic_cluster.specs.space import Space, read_space
from mosaic_cluster.worker.errors import BackendError


def space(raw: dict[str, Any], *constraints: str) -> Space:
    read, problems = read_space(raw, constraints)
    assert not problems
    return read


WIDE = {
    "lr": {"loguniform": [1e-4, 1e-2]}, "n": {"choice": [64, 128, 256]}, "k": {"int": [1, 10]},
    "q": {"uniform": [0, 1], "step": 0.25},
}  # fmt: skip


def search(kind: str, *parts: Space, samples: int | None = 10, seed: int = 0) -> Any:
    return make_searcher(SearchSetup(kind, seed, parts or (space(WIDE),), samples, "max"))


def scheduler(kind: str, rungs: int = 4, mode: str = "max", **options: Any) -> Scheduler:
    return make_scheduler(SchedulerSetup(kind, mode, rungs, options, space(WIDE), 0))


class Told:
    """Drives a scheduler as a sweep does, with trials of known quality; one step a rung.

    Attributes:
        reached: rungs by trial; state: by trial; exploits: in order.
    """

    def __init__(self, scheduler: Scheduler, qualities: list[float], rungs: int, at_once: int = 4) -> None:
        self.scheduler, self.rungs, self.at_once = scheduler, rungs, at_once
        self.quality = {f"t{number}": value for number, value in enumerate(qualities)}
        self.reached = dict.fromkeys(self.quality, 0)
        self.state = dict.fromkeys(self.quality, "PENDING")
        self.exploits: list[Decision] = []
        self.log: list[Any] = []
        for number, name in enumerate(self.quality):
            scheduler.add(name, space(WIDE).sample(random.Random(number)))

    def run(self, fails: Callable[[str, int], bool] = lambda name, rung: False) -> None:
        running: list[str] = []
        while True:
            while len(running) < self.at_once and (name := self.scheduler.choose()) is not None:
                assert self.state[name] in ("PENDING", "PAUSED")
                self.scheduler.started(name)
                self.state[name] = "RUNNING"
                running.append(name)
            if not running:
                return
            name = running.pop(0)
            self.reached[name] += 1
            rung = self.reached[name]
            if fails(name, rung):
                self.state[name] = "FAILED"
                decisions = self.scheduler.fail(name)
            elif rung == self.rungs:
                self.state[name] = "COMPLETED"
                decisions = self.scheduler.complete(name, self.quality[name] * rung)
            else:
                decisions = self.scheduler.report(name, rung, self.quality[name] * rung)
            self.log.append((name, rung, [each.to_dict() for each in decisions]))
            for each in decisions:
                assert Decision.from_dict(each.to_dict()) == each
                if each.action == "stop":
                    self.state[each.trial] = "STOPPED"
                elif each.action == "pause":
                    self.state[each.trial] = "PAUSED"
                elif each.action == "exploit":
                    self.exploits.append(each)
                elif each.trial == name:
                    running.append(name)


def test_random_is_the_same_row_however_many_are_asked_for() -> None:
    few, many = search("random", samples=3), search("random", samples=9)
    assert isinstance(few, RandomSearch)
    rows = [[each.suggest(str(number)) for number in range(12)] for each in (few, many)]
    assert rows[0][:3] == rows[1][:3]
    assert [each is None for each in rows[1]] == [False] * 9 + [True] * 3
    assert search("random", seed=1).suggest("t") != rows[0][0]


def test_random_deals_workers_in_turn() -> None:
    found = search("random", space({"a": {"choice": [1]}}), space({"b": {"choice": [2]}}), samples=5)
    assert [found.suggest("t").part for _ in range(5)] == [0, 1, 0, 1, 0]


def test_grid_is_every_combination_once() -> None:
    found = search("grid", space({"a": {"choice": [1, 2]}, "b": {"int": [1, 2]}}), samples=None)
    assert isinstance(found, GridSearch)
    assert [dict(found.suggest("t").params) for _ in range(4)] == [
        {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 2, "b": 2},
    ]  # fmt: skip
    assert found.suggest("t") is None


def optuna_row(count: int = 12) -> list[Any]:
    raw = {**WIDE, "algo": {"choice": ["x", "y"]}, "extra": {"uniform": [0, 1], "when": {"algo": "y"}}}
    found = search("optuna", space(raw, "k + n < 260"), samples=count)
    row = []
    for number in range(count):
        name = f"t{number}"
        each = found.suggest(name)
        row.append(dict(each.params))
        found.report(name, 1, each.params["lr"])
        if number % 5 == 4:
            found.complete(name, None, failed=True)
        else:
            found.complete(name, each.params["lr"])
    assert found.suggest("more") is None
    return row


def test_optuna_keeps_to_the_space_and_tells_the_same_twice() -> None:
    row = optuna_row()
    assert row == optuna_row()
    for each in row:
        assert each["k"] + each["n"] < 260
        assert 1e-4 <= each["lr"] <= 1e-2
        assert each["n"] in (64, 128, 256)
        assert each["q"] in (0, 0.25, 0.5, 0.75, 1)
        assert ("extra" in each) == (each["algo"] == "y")


def test_optuna_chooses_among_workers_by_result() -> None:
    found = search("optuna", space({"a": {"uniform": [0, 1]}}), space({"a": {"uniform": [5, 6]}}), samples=40)
    parts = []
    for number in range(40):
        each = found.suggest(f"t{number}")
        assert (0 <= each.params["a"] <= 1) if each.part == 0 else (5 <= each.params["a"] <= 6)
        parts.append(each.part)
        found.complete(f"t{number}", float(each.part))
    assert sum(parts[20:]) > 15


def test_optuna_where_constraints_leave_next_to_nothing() -> None:
    found = search("optuna", space({"a": {"uniform": [0, 1]}}, "a > 0.99"), samples=3)
    for number in range(3):
        each = found.suggest(f"t{number}")
        assert each.params["a"] > 0.99
        found.complete(f"t{number}", 1.0)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("rungs", range(2, 9))
def test_rungs_of_a_spec_are_the_rungs_of_tune(factor: int, rungs: int) -> None:
    asha: Any = scheduler("asha", rungs, reduction_factor=factor)
    (bracket,) = asha._scheduler._brackets
    assert [milestone for milestone, _ in bracket._rungs] == [factor**k for k in reversed(range(rungs))]
    band: Any = scheduler("hyperband", rungs, reduction_factor=factor)
    assert band._scheduler._s_max_1 == rungs
    assert [band._scheduler._get_r0(s) for s in range(rungs)] == [factor ** (rungs - 1 - s) for s in range(rungs)]


def test_asha_keeps_what_is_in_the_best_third() -> None:
    told = Told(scheduler("asha", 3), [9, 1, 8, 2, 7, 3, 6, 4, 5], 3, at_once=1)
    told.run()
    assert told.state["t0"] == "COMPLETED"
    assert [name for name, state in told.state.items() if state == "COMPLETED"] == ["t0"]
    assert sum(told.reached.values()) < 0.5 * 27


def test_less_is_better_with_mode_min() -> None:
    told = Told(scheduler("asha", 3, mode="min"), [1, 9, 8, 7], 3, at_once=1)
    told.run()
    assert [name for name, state in told.state.items() if state == "COMPLETED"] == ["t0"]


def test_hyperband_fills_its_brackets() -> None:
    told = Told(scheduler("hyperband", 3), [float(n) for n in range(17)], 3)
    told.run()
    states = list(told.state.values())
    assert (states.count("COMPLETED"), states.count("STOPPED")) == (6, 11)


@pytest.mark.parametrize("at_once", [2, 8])
def test_pbt_replaces_the_worst_by_the_best_within_the_space(at_once: int) -> None:
    told = Told(scheduler("pbt", 6), [float(n) for n in range(8)], 6, at_once=at_once)
    told.run()
    assert set(told.state.values()) == {"COMPLETED"}
    assert len(told.exploits) == 10  # two of eight, at five rungs
    for each in told.exploits:
        assert each.trial in ("t0", "t1")
        assert each.source in ("t6", "t7")
        params = each.params
        assert 1e-4 <= params["lr"] <= 1e-2
        assert params["n"] in (64, 128, 256)
        assert params["k"] in range(1, 11)
        assert params["q"] in (0, 0.25, 0.5, 0.75, 1)


def test_pbt_keeps_to_constraints() -> None:
    raw = {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}
    setup = SchedulerSetup("pbt", "max", 5, {}, space(raw, "a + b <= 1"), 0)
    made = make_scheduler(setup)
    told = Told(made, [], 5)
    told.quality = {f"t{n}": float(n) for n in range(6)}
    told.reached, told.state = dict.fromkeys(told.quality, 0), dict.fromkeys(told.quality, "PENDING")
    for number, name in enumerate(told.quality):
        made.add(name, setup.space.sample(random.Random(number)))
    told.run()
    assert told.exploits
    assert all(each.params["a"] + each.params["b"] <= 1 for each in told.exploits)


@pytest.mark.parametrize("kind", ["asha", "hyperband", "pbt"])
@pytest.mark.parametrize("seed", range(5))
def test_failing_trials_block_nobody(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    told = Told(scheduler(kind, 4), [rng.random() for _ in range(9)], 4, at_once=rng.choice([1, 3, 9]))
    told.run(fails=lambda name, rung: rng.random() < 0.2)
    assert set(told.state.values()) <= {"COMPLETED", "STOPPED", "FAILED"}, told.state


@pytest.mark.parametrize("kind", ["asha", "hyperband", "pbt"])
def test_told_the_same_it_decides_the_same_whatever_others_draw(kind: str) -> None:
    logs = []
    for disturb in (False, True):
        told = Told(scheduler(kind, 4), [float(n % 7) for n in range(12)], 4)
        if disturb:
            random.seed(99)
            np.random.seed(98)
        told.run(fails=lambda name, rung: bool(random.random() < 2 * 0))
        logs.append(told.log)
    assert logs[0] == logs[1]


def test_the_process_s_own_randomness_is_left_alone() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), float(np.random.rand())
    random.seed(5)
    np.random.seed(5)
    told = Told(scheduler("pbt", 4), [float(n) for n in range(8)], 4)
    told.run()
    assert (random.random(), float(np.random.rand())) == expected


def test_the_inline_backend_refuses_by_name() -> None:
    backend = InlineBackend()
    with pytest.raises(BackendError, match="scheduler: hyperband needs Ray"):
        backend.scheduler(SchedulerSetup("hyperband", "max", 2, {}, Space(()), 0))
    with pytest.raises(BackendError, match="search: optuna needs Ray"):
        backend.searcher(SearchSetup("optuna", 0, (Space(()),), 1, "max"))
