"""Search spaces: what is varied, between what, and under which condition. Pure, and seeded from outside.

A space is a mapping of settings to distributions; settings may be nested mappings or dotted names::

    learning_rate: {loguniform: [1.0e-4, 1.0e-2]}
    num_steps: {choice: [64, 128]}
    optimizer: {momentum: {uniform: [0.8, 0.99], step: 0.01}}
    buffer_size: {logint: [1000, 100000], when: {algo: dqn}}
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.specs.expressions import Expression, ExpressionError, put
from mosaic_cluster.specs.problems import shown, suggestion
from mosaic_cluster.worker.errors import Problem

RANGES = ("uniform", "loguniform", "int", "logint")
KINDS = (*RANGES, "choice")
MODIFIERS = ("step", "when")
MOST_VALUES = 1000
DRAWS = 10_000
FLAW_DRAWS = 100
TUNE_NAMES = {
    "quniform": "uniform with step",
    "qloguniform": "loguniform with step",
    "randint": "int (both ends included)",
    "qrandint": "int with step",
    "lograndint": "logint",
    "grid_search": "choice, with search: grid",
    "values": "choice",
    "categorical": "choice",
    "float": "uniform or loguniform",
}


class NoConfiguration(ValueError):
    """The constraints leave nothing."""


@dataclass(frozen=True)
class Param:
    """One setting that is varied.

    Attributes:
        path: dotted name of the setting.
        kind: ``uniform``, ``loguniform``, ``int``, ``logint`` or ``choice``.
        low, high: ends of a range, both included.
        step: distance of neighbouring values, counted from ``low``.
        choices: the values of a ``choice``.
        when: the setting is only there where this holds.
    """

    path: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: Expression | None = None

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind in ("int", "logint")

    @property
    def log(self) -> bool:
        """Whether it is drawn evenly over orders of magnitude."""
        return self.kind.startswith("log")

    def sample(self, rng: random.Random) -> Any:
        """One value at random."""
        if self.kind == "choice":
            return self.choices[rng.randrange(len(self.choices))]
        if self.log:
            top = self.high + 1 if self.whole else self.high
            return self.fit(math.exp(rng.uniform(math.log(self.low), math.log(top))), down=self.whole)
        if self.step is not None:
            return self._at(rng.randrange(self._count()))
        if self.whole:
            return rng.randint(int(self.low), int(self.high))
        return rng.uniform(self.low, self.high)

    def fit(self, value: Any, *, down: bool = False) -> Any:
        """The nearest possible value (of a range; of a choice, ``value`` as it is)."""
        if self.kind == "choice":
            return value
        number = min(max(float(value), self.low), self.high)
        if self.step is not None:
            return self._at(min(round((number - self.low) / self.step), self._count() - 1))
        if self.whole:
            return math.floor(number) if down else round(number)
        return number

    def values(self) -> list[Any] | None:
        """All its values, if they are few enough to try each; else ``None``."""
        if self.kind == "choice":
            return list(self.choices)
        if not self.whole and self.step is None:
            return None
        return [self._at(index) for index in range(self._count())] if self._count() <= MOST_VALUES else None

    def extremes(self) -> list[Any]:
        """Values that show whether a worker takes them all: every choice, or both ends."""
        if self.kind == "choice":
            return list(self.choices)
        return [self.fit(self.low), self.fit(self.high)]

    def _count(self) -> int:
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def _at(self, index: int) -> Any:
        value = self.low + index * (self.step or 1)
        # 0.1 + 2 * 0.1 is meant to be 0.3.
        return int(value) if self.whole else min(max(round(value, 12), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """All that is varied, in an order in which each ``when`` looks only at what comes before.

    Attributes:
        constraints: what must hold for every configuration.
        fixed: values of settings that are not varied, by dotted name: conditions may look at them.
    """

    params: tuple[Param, ...]
    constraints: tuple[Expression, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """One configuration at random, by dotted name; drawn again until the constraints hold.

        Raises:
            NoConfiguration: ten thousand draws did not meet the constraints.
        """
        for _ in range(DRAWS):
            drawn: dict[str, Any] = {}
            for param in self.params:
                # Drawn in any case: the other settings then do not depend on whether this one is there.
                value = param.sample(rng)
                if self.active(param, drawn):
                    drawn[param.path] = value
            if self.allows(drawn):
                return drawn
        texts = "; ".join(each.text for each in self.constraints)
        raise NoConfiguration(f"no configuration met the constraints in {DRAWS:,} draws: {texts}")

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration once, the last setting varying fastest."""
        seen = set()
        for values in itertools.product(*(param.values() or () for param in self.params)):
            found: dict[str, Any] = {}
            for param, value in zip(self.params, values, strict=True):
                if self.active(param, found):
                    found[param.path] = value
            key = json.dumps(found, sort_keys=True)
            if key not in seen and self.allows(found):
                seen.add(key)
                yield found

    def active(self, param: Param, drawn: Mapping[str, Any]) -> bool:
        """Whether a setting is there, given the ones before it."""
        if param.when is None:
            return True
        known = {**dict(self.fixed), **drawn}
        # What looks at a setting that is not there is not there either.
        return all(name in known for name in param.when.names) and _met(param.when, known)

    def allows(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the constraints hold. One about a setting that is not there does."""
        known = {**dict(self.fixed), **drawn}
        return all(_met(each, known) for each in self.constraints if all(name in known for name in each.names))

    def flaws(self, rng: random.Random) -> list[Problem]:
        """Conditions and constraints that have no value for some configurations, such as a division by zero."""
        found: dict[str, Problem] = {}
        raw = [{param.path: param.sample(rng) for param in self.params} for _ in range(FLAW_DRAWS)]
        raw += [{**raw[0], param.path: value} for param in self.params for value in param.extremes()]
        conditions = [(f"space.{param.path}.when", param.when) for param in self.params if param.when is not None]
        conditions += [("constraints", each) for each in self.constraints]
        for drawn in raw:
            known = {**dict(self.fixed), **drawn}
            for where, condition in conditions:
                try:
                    condition.holds(known)
                except ExpressionError as error:
                    given = ", ".join(f"{name}: {known[name]}" for name in condition.names)
                    found.setdefault(condition.text, Problem(where, f"{error} (for {given})"))
        return list(found.values())

    def probes(self, rng: random.Random) -> list[dict[str, Any]]:
        """Configurations that together hold every choice and both ends of every range, as far as allowed."""
        found = []
        base = self.sample(rng)
        for param in self.params:
            for value in param.extremes():
                for _ in range(20):
                    candidate = {**self.sample(rng), param.path: value}
                    # Another value of one setting may switch others on or off.
                    kept = {name: each for name, each in candidate.items() if name in base or name == param.path}
                    if self._consistent(kept):
                        found.append(kept)
                        break
        return [base, *found]

    def _consistent(self, drawn: Mapping[str, Any]) -> bool:
        there = {param.path for param in self.params if self.active(param, drawn)}
        return there == set(drawn) and self.allows(drawn)

    def find(self, path: str) -> Param | None:
        """The setting of that name."""
        return next((param for param in self.params if param.path == path), None)


def _met(condition: Expression, known: Mapping[str, Any]) -> bool:
    """Whether a condition holds; one that cannot be worked out does not."""
    try:
        return condition.holds(known)
    except ExpressionError:
        return False


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by dotted name, as nested mappings."""
    made: dict[str, Any] = {}
    for path, value in flat.items():
        put(made, path, value)
    return made


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted name, its mappings included as a whole, too."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
    return found


def read_space(
    raw: Mapping[str, Any], constraints: Sequence[str] = (), fixed: Mapping[str, Any] | None = None
) -> tuple[Space, list[Problem]]:
    """A space from what a person wrote.

    Args:
        raw: the ``space`` of a spec.
        constraints: its ``constraints``.
        fixed: its ``config``, nested.

    Returns:
        The space, without what is wrong; and every problem, with paths below ``space`` and ``constraints``.
    """
    problems: list[Problem] = []
    params = _read(raw, "", problems)
    known = flat(fixed or {})
    for path in sorted({param.path for param in params if [each.path for each in params].count(param.path) > 1}):
        problems.append(Problem(f"space.{path}", "is there twice, nested and with dots; keep one"))
    conditions = []
    for index, text in enumerate(constraints):
        try:
            conditions.append(_known_names(Expression.read(text), params, known))
        except ExpressionError as error:
            problems.append(Problem(f"constraints.{index}", str(error)))
    for param in params:
        if param.when is not None:
            try:
                _known_names(param.when, [each for each in params if each is not param], known)
            except ExpressionError as error:
                problems.append(Problem(f"space.{param.path}.when", str(error)))
    ordered = _ordered(params, problems)
    needed = {name for each in conditions for name in each.names}
    needed |= {name for param in params if param.when is not None for name in param.when.names}
    used = tuple((name, known[name]) for name in sorted(needed) if name in known)
    return Space(tuple(ordered), tuple(conditions), used), problems


def _known_names(expression: Expression, params: Sequence[Param], fixed: Mapping[str, Any]) -> Expression:
    names = [param.path for param in params]
    for name in expression.names:
        if name not in names and name not in fixed:
            hint = suggestion(name, [*names, *fixed]).replace("valid keys", "known")
            raise ExpressionError(
                f"{expression.text!r} looks at {name}, which is neither in space nor in config; {hint}"
            )
    return expression


def _ordered(params: list[Param], problems: list[Problem]) -> list[Param]:
    """Each after what its condition looks at; otherwise as written."""
    waiting, done = list(params), list[Param]()
    while waiting:
        open_names = {param.path for param in waiting}
        ready = next((p for p in waiting if p.when is None or not (set(p.when.names) - {p.path}) & open_names), None)
        if ready is None:
            names = ", ".join(sorted(open_names))
            problems.append(Problem("space", f"the conditions of {names} go round in a circle; remove one `when`"))
            return done
        waiting.remove(ready)
        done.append(ready)
    return done


def _read(raw: Mapping[str, Any], prefix: str, problems: list[Problem]) -> list[Param]:
    found = []
    for key, value in raw.items():
        path = f"{prefix}{key}"
        where = f"space.{path}"
        if not isinstance(value, Mapping):
            problems.append(Problem(where, _no_distribution(value)))
        elif not value or not all(isinstance(inner, Mapping) for inner in value.values()):
            param = _param(path, value, where, problems)
            if param is not None:
                found.append(param)
        else:
            found += _read(value, f"{path}.", problems)
    return found


def _no_distribution(value: Any) -> str:
    if isinstance(value, list):
        return "a list is not a distribution; write {choice: [...]}"
    return f"{shown(value)} is not a distribution; write {{choice: [...]}} to vary it, or put it under config"


def _param(path: str, raw: Mapping[str, Any], where: str, problems: list[Problem]) -> Param | None:
    before = len(problems)
    kinds = [name for name in raw if name in KINDS]
    for name in raw:
        if name not in KINDS and name not in MODIFIERS:
            if name in TUNE_NAMES:
                problems.append(Problem(where, f"{name} is written here as {TUNE_NAMES[name]}"))
            else:
                problems.append(Problem(f"{where}.{name}", f"unknown key; {suggestion(name, (*KINDS, *MODIFIERS))}"))
    if len(kinds) != 1 and len(problems) == before:
        what = f"has {' and '.join(kinds)}" if kinds else "is empty"
        problems.append(Problem(where, f"{what}; give one of: {', '.join(KINDS)}"))
    when = _condition(raw.get("when"), f"{where}.when", problems)
    if len(problems) > before or len(kinds) != 1:
        return None
    kind = kinds[0]
    if kind == "choice":
        return _choice(path, raw, where, when, problems)
    return _range(path, kind, raw, where, when, problems)


def _choice(
    path: str, raw: Mapping[str, Any], where: str, when: Expression | None, problems: list[Problem]
) -> Param | None:
    values = raw["choice"]
    if not isinstance(values, list) or not values:
        problems.append(Problem(where, f"choice is {shown(values)}; give a list of at least one value"))
    elif "step" in raw:
        problems.append(Problem(f"{where}.step", "goes with ranges only; remove it"))
    elif len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
        problems.append(Problem(where, "choice holds a value twice; keep one"))
    else:
        return Param(path, "choice", choices=tuple(values), when=when)
    return None


def _range(
    path: str, kind: str, raw: Mapping[str, Any], where: str, when: Expression | None, problems: list[Problem]
) -> Param | None:
    ends, step = raw[kind], raw.get("step")
    whole = kind in ("int", "logint")
    what = "two whole numbers" if whole else "two numbers"
    example = "[1, 8]" if whole else "[0.0001, 0.01]"
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_number(end, whole) for end in ends):
        problems.append(Problem(where, f"{kind} needs {what}, the lowest and the highest value, e.g. {example}"))
        return None
    low, high = float(ends[0]), float(ends[1])
    if low >= high:
        message = f"{kind} goes from {shown(ends[0])} to {shown(ends[1])}; the first must be lower"
        problems.append(Problem(where, message))
    elif kind.startswith("log") and low <= 0:
        problems.append(Problem(where, f"{kind} starts at {shown(ends[0])}; a logarithmic range starts above 0"))
    elif step is not None and (not _is_number(step, whole) or not 0 < float(step) <= high - low):
        kind_of = "a whole number" if whole else "a number"
        valid = f"give {kind_of} above 0, at most {high - low:g}"
        problems.append(Problem(f"{where}.step", f"{shown(step)} is no step of this range; {valid}"))
    else:
        return Param(path, kind, low, high, None if step is None else float(step), when=when)
    return None


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        return False
    return not whole or float(value).is_integer()


def _condition(raw: Any, where: str, problems: list[Problem]) -> Expression | None:
    """``when``: an expression, or settings and the value (or list of values) each must have."""
    if raw is None:
        return None
    if isinstance(raw, Mapping) and raw:
        parts = []
        for name, value in raw.items():
            values = value if isinstance(value, list) else [value]
            parts.append(f"{name} in {_literal(values)}")
        text = " and ".join(parts)
    elif isinstance(raw, str):
        text = raw
    else:
        problems.append(Problem(where, f"{shown(raw)} is no condition; write {{algo: dqn}} or \"algo == 'dqn'\""))
        return None
    try:
        return Expression.read(text)
    except ExpressionError as error:
        problems.append(Problem(where, str(error)))
        return None


def _literal(values: Sequence[Any]) -> str:
    return "[" + ", ".join(repr(value) for value in values) + "]"
