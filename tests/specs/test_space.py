"""Search spaces: what they hold, what they refuse, and what is drawn from them."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_cluster.specs.expressions import Expression, ExpressionError
from mosaic_cluster.specs.space import NoConfiguration, Space, nested, read_space


def space(raw: dict[str, Any], constraints: list[str] | None = None, fixed: dict[str, Any] | None = None) -> Space:
    read, problems = read_space(raw, constraints or [], fixed)
    assert problems == []
    return read


def problems(raw: dict[str, Any], constraints: list[str] | None = None, fixed: dict[str, Any] | None = None) -> list[str]:
    return [str(problem) for problem in read_space(raw, constraints or [], fixed)[1]]


def draws(raw: dict[str, Any], count: int = 2000) -> list[Any]:
    read = space({"x": raw})
    return [read.sample(random.Random(f"{number}"))["x"] for number in range(count)]


def test_uniform_is_uniform() -> None:
    values = draws({"uniform": [2, 4]})
    assert 2 <= min(values) < 2.01
    assert 3.99 < max(values) <= 4
    assert statistics.fmean(values) == pytest.approx(3, abs=0.05)


def test_loguniform_is_uniform_over_orders_of_magnitude() -> None:
    logs = [math.log10(value) for value in draws({"loguniform": [1e-5, 1e-1]})]
    for low in (-5, -4, -3, -2):
        assert sum(low <= each < low + 1 for each in logs) / len(logs) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ({"int": [1, 4]}, {1, 2, 3, 4}),
        ({"int": [0, 10], "step": 5}, {0, 5, 10}),
        ({"int": [0, 11], "step": 5}, {0, 5, 10}),
        ({"logint": [1, 3]}, {1, 2, 3}),
        ({"uniform": [0, 0.3], "step": 0.1}, {0.0, 0.1, 0.2, 0.3}),
        ({"choice": [64, "a", None, True, [1, 2], {"b": 1}]}, None),
    ],
)
def test_values_of_finite_ranges(raw: dict[str, Any], values: set[Any] | None) -> None:
    drawn = draws(raw, 300)
    if values is not None:
        assert set(drawn) == values
        assert all(type(each) is type(next(iter(values))) for each in drawn)
    read = space({"x": raw})
    if "logint" not in raw:
        grid = [each["x"] for each in read.grid()]
        assert grid == (sorted(values) if values is not None else raw["choice"])


def test_the_ends_of_a_logint_are_as_likely_as_their_share() -> None:
    """P(n) of a log-uniform whole number is log((n+1)/n) / log((high+1)/low)."""
    drawn = draws({"logint": [1, 3]}, 4000)
    for value in (1, 2, 3):
        expected = math.log((value + 1) / value) / math.log(4)
        assert drawn.count(value) / len(drawn) == pytest.approx(expected, abs=0.03)


def test_our_draws_are_those_of_tune() -> None:
    """The same distributions, by their quantiles."""
    from ray import tune

    theirs = {
        "uniform": tune.uniform(1, 9), "loguniform": tune.loguniform(1e-4, 1e-2),
        "int": tune.randint(1, 21), "logint": tune.lograndint(1, 101),
    }  # fmt: skip
    ours = {"uniform": [1, 9], "loguniform": [1e-4, 1e-2], "int": [1, 20], "logint": [1, 100]}
    for kind, domain in theirs.items():
        mine = sorted(draws({kind: ours[kind]}, 3000))
        other = sorted(domain.sample(size=3000))
        tolerance = 1 if "int" in kind else 0
        for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
            index = int(3000 * quantile)
            assert mine[index] == pytest.approx(other[index], rel=0.15, abs=tolerance), (kind, quantile)


def test_a_configuration_depends_on_its_own_number_alone() -> None:
    read = space({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1], "when": "a > 0.5"}, "c": {"uniform": [0, 1]}})
    without = space({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1], "when": "a > 2"}, "c": {"uniform": [0, 1]}})
    for number in range(20):
        one, other = read.sample(random.Random(f"{number}")), without.sample(random.Random(f"{number}"))
        assert one["a"] == other["a"]
        assert one["c"] == other["c"]  # whether b is there changes nothing else
        assert ("b" in one) == (one["a"] > 0.5)


def test_nested_settings_in_both_ways_of_writing() -> None:
    one = space({"optimizer": {"lr": {"choice": [1]}, "sub": {"x": {"choice": [2]}}}})
    other = space({"optimizer.lr": {"choice": [1]}, "optimizer.sub.x": {"choice": [2]}})
    expected = {"optimizer": {"lr": 1, "sub": {"x": 2}}}
    assert [nested(each) for each in one.grid()] == [nested(each) for each in other.grid()] == [expected]


def test_conditions_follow_their_settings_whatever_the_order() -> None:
    read = space(
        {
            "c": {"choice": [1, 2], "when": "b == 'y'"},
            "b": {"choice": ["x", "y"], "when": {"a": [2, 3]}},
            "a": {"choice": [1, 2, 3]},
        }
    )
    found = list(read.grid())
    assert found == [
        {"a": 1},
        {"a": 2, "b": "x"}, {"a": 2, "b": "y", "c": 1}, {"a": 2, "b": "y", "c": 2},
        {"a": 3, "b": "x"}, {"a": 3, "b": "y", "c": 1}, {"a": 3, "b": "y", "c": 2},
    ]  # fmt: skip


def test_constraints_look_at_what_is_fixed_and_what_is_varied() -> None:
    read = space({"steps": {"choice": [32, 64, 128]}, "envs": {"choice": [4, 8]}}, ["steps * envs <= most"], {"most": 256})
    assert [(each["steps"], each["envs"]) for each in read.grid()] == [(32, 4), (32, 8), (64, 4)]
    for number in range(50):
        each = read.sample(random.Random(number))
        assert each["steps"] * each["envs"] <= 256


def test_a_constraint_about_a_setting_that_is_not_there_holds() -> None:
    read = space({"a": {"choice": [1, 2]}, "b": {"choice": [5], "when": {"a": 2}}}, ["b < 3"])
    assert list(read.grid()) == [{"a": 1}]


def test_constraints_that_leave_nothing_say_so() -> None:
    with pytest.raises(NoConfiguration, match=r"no configuration met the constraints in 10,000 draws: a > 2"):
        space({"a": {"uniform": [0, 1]}}, ["a > 2"]).sample(random.Random(0))


def test_probes_hold_every_choice_and_both_ends() -> None:
    read = space({
        "algo": {"choice": ["a", "b"]}, "lr": {"loguniform": [0.1, 1]},
        "n": {"int": [1, 9], "when": {"algo": "b"}},
    })  # fmt: skip
    probes = read.probes(random.Random(0))
    assert {each["algo"] for each in probes} == {"a", "b"}
    assert {0.1, 1.0} <= {each["lr"] for each in probes}
    assert {1, 9} <= {each.get("n") for each in probes}
    assert all(("n" in each) == (each["algo"] == "b") for each in probes)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"a": [1, 2]}, "space.a: a list is not a distribution; write {choice: [...]}"),
        ({"a": 1}, "space.a: 1 is not a distribution; write {choice: [...]} to vary it, or put it under config"),
        ({"a": {"choise": [1]}}, "space.a.choise: unknown key; did you mean choice?"),
        ({"a": {}}, "space.a: is empty; give one of: uniform, loguniform, int, logint, choice"),
        ({"a": {"choice": []}}, "space.a: choice is a list; give a list of at least one value"),
        ({"a": {"choice": [1, 1]}}, "space.a: choice holds a value twice; keep one"),
        ({"a": {"choice": [1], "step": 2}}, "space.a.step: goes with ranges only; remove it"),
        ({"a": {"uniform": [1]}}, "space.a: uniform needs two numbers, the lowest and the highest value, e.g. [0.0001, 0.01]"),
        ({"a": {"int": [1, 2.5]}}, "space.a: int needs two whole numbers, the lowest and the highest value, e.g. [1, 8]"),
        ({"a": {"uniform": [2, 1]}}, "space.a: uniform goes from 2 to 1; the first must be lower"),
        ({"a": {"loguniform": [0, 1]}}, "space.a: loguniform starts at 0; a logarithmic range starts above 0"),
        ({"a": {"uniform": [0, 1], "step": 2}}, "space.a.step: 2 is no step of this range; give a number above 0, at most 1"),
        ({"a": {"uniform": [0, 1], "choice": [1]}}, "space.a: has uniform and choice; give one of: uniform, loguniform, int, logint, choice"),
        ({"a": {"quniform": [0, 1, 0.1]}}, "space.a: quniform is written here as uniform with step"),
        ({"a": {"randint": [0, 4]}}, "space.a: randint is written here as int (both ends included)"),
        ({"o": {"lr": {"uniform": [2, 1]}}}, "space.o.lr: uniform goes from 2 to 1; the first must be lower"),
        ({"a": {"choice": [1], "when": 3}}, "space.a.when: 3 is no condition; write {algo: dqn} or \"algo == 'dqn'\""),
        ({"a": {"choice": [1], "when": "b == 1"}}, "space.a.when: 'b == 1' looks at b, which is neither in space nor in config; known: config_key"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_space(raw: dict[str, Any], expected: str) -> None:
    assert problems(raw, fixed={"config_key": 1}) == [expected]


def test_all_problems_at_once() -> None:
    found = problems({"a": [1], "b": {"uniform": [2, 1]}, "c": {"int": [1, 5], "when": "d >"}}, ["a +", "zz > 1"])
    assert len(found) == 5


def test_conditions_that_go_round_in_a_circle() -> None:
    found = problems({"a": {"int": [1, 2], "when": "b > 1"}, "b": {"int": [1, 2], "when": "a > 1"}})
    assert found == ["space: the conditions of a, b go round in a circle; remove one `when`"]


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.__class__", "(lambda: 1)()", "[x for x in a]", "open('f')", "a := 1", "", "a b"]
)
def test_expressions_run_no_code(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression.read(text).evaluate({"a": 1, "a.__class__": 1} if "class" not in text else {"a": 1})


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_expressions_are_python_s(a: int, b: int) -> None:
    values = {"a": a, "b.c": b, "name": "x"}
    assert Expression.read("a * 2 + b.c").evaluate(values) == a * 2 + b
    assert Expression.read("min(a, b.c) <= a and not a < b.c").holds(values) == (min(a, b) <= a and not a < b)
    assert Expression.read("name in ['x', 'y'] or a in (1, 2)").holds(values)
    assert Expression.read("a if a > b.c else b.c").evaluate(values) == max(a, b)


@settings(deadline=None)  # a busy machine is not the point
@given(st.data())
def test_what_is_drawn_is_possible(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["uniform", "loguniform", "int", "logint"]))
    whole = kind in ("int", "logint")
    low = data.draw(st.integers(1, 1000) if whole else st.floats(1e-3, 1000))
    high = low + data.draw(st.integers(1, 1000) if whole else st.floats(1e-2, 1000))
    raw: dict[str, Any] = {kind: [low, high]}
    if data.draw(st.booleans()):
        raw["step"] = data.draw(st.integers(1, int(high - low)) if whole else st.floats(1e-3, high - low))
    read, found = read_space({"x": raw})
    assert not found
    (param,) = read.params
    for number in range(5):
        value = param.sample(random.Random(number))
        assert low <= value <= high + 1e-9
        assert param.fit(value) == pytest.approx(value)
    assert param.fit(low - 5) == pytest.approx(low)
    assert low <= param.fit(high * 3) <= high + 1e-9
