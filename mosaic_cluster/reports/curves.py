"""From stored telemetry to curves: one a run, brought together over the seeds of a trial."""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_cluster.reports.intervals import interval
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.sql import query
from mosaic_cluster.worker.errors import InvalidInput, Problem

STEPS, SECONDS = "steps", "seconds"
AXES = (STEPS, SECONDS)
GRID = 200
"""Points of a mean over seeds."""

ENOUGH_SEEDS = 3
"""From so many on a band is an interval of the mean; with two it is just the two."""

_NAMES = ("env_id", "env", "environment", "game", "task", "worlds", "scenario")
"""Settings that say what was trained on, the first that is there; the first is the usual one."""


@dataclass(frozen=True)
class RunCurve:
    """One run: how it stands, and what it reported of the metric.

    Attributes:
        state, reason: as in the status document.
        elapsed: seconds it ran, over all attempts.
        x: environment steps or seconds since its first event, rising.
        y: the metric there; finite numbers only.
        step: its last step; ``None``: it told none.
    """

    run_id: str
    seed: int | None
    state: str
    reason: str
    attempt: int
    elapsed: float
    step: int | None
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    @property
    def final(self) -> float | None:
        """The last value."""
        return self.y[-1] if self.y else None


@dataclass(frozen=True)
class Series:
    """The runs that differ by their seed alone: a trial of a sweep, or the one run there is.

    Attributes:
        label: names it in legends and tables; unique in a report.
        environment: what was trained on, as its worker names it; a worker that tells none has one of its own.
        trial: ``t0001``, ...; ``None`` where there are no trials.
        settings: those that the sweep varies, or the algorithm, in words.
    """

    label: str
    worker: str
    environment: str
    trial: str | None
    settings: str
    runs: tuple[RunCurve, ...]

    @property
    def told(self) -> list[RunCurve]:
        """Runs that reported the metric."""
        return [run for run in self.runs if run.x]


@dataclass(frozen=True)
class Band:
    """A mean over seeds on a grid, and what lies around it.

    Attributes:
        kind: ``interval`` (95 % interval of the mean), ``range`` (smallest to largest) or ``none`` (one seed).
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: str


@dataclass(frozen=True)
class Report:
    """What there is to see of one experiment.

    Attributes:
        axis: ``steps`` or ``seconds``.
        series: in the order of the trials.
        reported: names of the metrics that some run reported.
    """

    experiment_id: str
    kind: str
    state: str
    reason: str
    metric: str
    axis: str
    series: tuple[Series, ...]
    reported: tuple[str, ...] = field(default=())

    @property
    def facets(self) -> dict[str, list[Series]]:
        """Series with something to draw, by environment: only values of one environment can be compared."""
        found: dict[str, list[Series]] = {}
        for each in self.series:
            if each.told:
                found.setdefault(each.environment, []).append(each)
        return found


def gather(telemetry: str | Path | Storage, status: Mapping[str, Any], metric: str, axis: str = STEPS) -> Report:
    """Read an experiment's curves, also while it runs.

    Args:
        telemetry: its telemetry folder.
        status: its status document.
        axis: ``steps`` or ``seconds``.

    Raises:
        InvalidInput: no run has reported that metric, though there are others; says which.
    """
    storage = Storage.open(telemetry)
    name = metric.replace("'", "''")
    points = query(
        storage,
        f"""SELECT run_id, step, value, epoch(ts) AS at FROM metrics
        WHERE name = '{name}' AND isfinite(value) ORDER BY run_id, attempt, "offset" """,
    ).to_pylist()
    began = {
        row["run_id"]: row["at"]
        for row in query(storage, "SELECT run_id, min(epoch(ts)) AS at FROM lifecycle GROUP BY run_id").to_pylist()
    }
    names = query(storage, "SELECT DISTINCT name FROM metrics ORDER BY name").to_pylist()
    reported = tuple(str(row["name"]) for row in names)
    if metric not in reported and reported:
        raise InvalidInput([Problem("--metric", f"no run has reported {metric!r}; reported are {', '.join(reported)}")])
    by_run: dict[str, list[tuple[float, float]]] = {}
    for row in points:
        x = row["step"] if axis == STEPS else row["at"] - began.get(row["run_id"], row["at"])
        if x is not None:
            by_run.setdefault(row["run_id"], []).append((float(x), float(row["value"])))
    about = _about(storage)
    return Report(
        experiment_id=str(status["experiment_id"]),
        kind=str(status.get("kind") or "run"),
        state=str(status["state"]),
        reason=str(status.get("reason") or ""),
        metric=metric,
        axis=axis,
        series=_series(status, by_run, about),
        reported=reported,
    )


def combined(runs: Sequence[RunCurve]) -> Band | None:
    """The mean of several runs, where all of them have a value; linear between reports.

    Returns:
        ``None`` where there is no stretch that all share, or no run.
    """
    told = [run for run in runs if run.x]
    if not told:
        return None
    first, last = max(run.x[0] for run in told), min(run.x[-1] for run in told)
    if first > last:
        return None
    inside = sorted({x for run in told for x in run.x if first <= x <= last} | {first, last})
    grid = inside if len(inside) <= GRID else [first + (last - first) * at / (GRID - 1) for at in range(GRID)]
    columns = [[_at(run, x) for run in told] for x in grid]
    mean = tuple(statistics.fmean(values) for values in columns)
    if len(told) == 1:
        return Band(tuple(grid), mean, mean, mean, "none")
    if len(told) < ENOUGH_SEEDS:
        low, high, kind = tuple(map(min, columns)), tuple(map(max, columns)), "range"
    else:
        ends = [interval(values) or (math.nan, math.nan) for values in columns]
        low, high, kind = tuple(each[0] for each in ends), tuple(each[1] for each in ends), "interval"
    return Band(tuple(grid), mean, low, high, kind)


def _at(run: RunCurve, x: float) -> float:
    """The value at ``x``, which lies within the run."""
    right = bisect_left(run.x, x)
    if run.x[right] == x or right == 0:
        return run.y[right]
    before, after = run.x[right - 1], run.x[right]
    share = (x - before) / (after - before)
    return run.y[right - 1] * (1 - share) + run.y[right] * share


def _rising(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of several values at one place the last; a place before an earlier one is left out."""
    kept: dict[float, float] = {}
    furthest = -math.inf
    for x, y in points:
        if x >= furthest:
            kept[x] = y
            furthest = x
    return tuple(kept), tuple(kept.values())


def _about(storage: Storage) -> dict[str, Mapping[str, Any]]:
    """What each run said when it started, last attempt."""
    told = query(
        storage,
        "SELECT run_id, payload FROM lifecycle WHERE event = 'run_started' ORDER BY run_id, attempt, \"offset\"",
    )
    found: dict[str, Mapping[str, Any]] = {}
    for row in told.to_pylist():
        payload = json.loads(row["payload"] or "{}")
        config = payload.get("config") if isinstance(payload.get("config"), dict) else {}
        found[row["run_id"]] = {**config, **{name: payload[name] for name in (*_NAMES, "algo") if payload.get(name)}}
    return found


def _series(
    status: Mapping[str, Any],
    points: Mapping[str, list[tuple[float, float]]],
    about: Mapping[str, Mapping[str, Any]],
) -> tuple[Series, ...]:
    params = {trial["trial"]: trial["params"] for trial in status.get("trials", ())}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in status.get("runs", ()):
        groups.setdefault(str(run.get("trial") or run["run_id"]), []).append(run)
    found = []
    for key, runs in groups.items():
        worker, trial = str(runs[0].get("worker") or ""), runs[0].get("trial")
        said = next((about[run["run_id"]] for run in runs if run["run_id"] in about), {})
        settings = _settings(params.get(trial) or {}, said)
        label = " ".join(filter(None, [trial, worker, settings]))
        now = float(status.get("updated_at") or 0.0)
        curves = tuple(_curve(run, points.get(run["run_id"], []), now) for run in runs)
        environment = _environment(said) or f"{worker or key}: environment not told"
        found.append(Series(label or key, worker, environment, trial, settings, curves))
    return tuple(found)


def _curve(run: Mapping[str, Any], points: list[tuple[float, float]], now: float) -> RunCurve:
    x, y = _rising(points)
    elapsed = float(run.get("elapsed") or 0.0)  # of the attempts that are over
    if run["state"] == "RUNNING" and run.get("since"):
        elapsed += max(0.0, now - float(run["since"]))
    return RunCurve(
        run_id=str(run["run_id"]),
        seed=run.get("seed"),
        state=str(run["state"]),
        reason=str(run.get("reason") or ""),
        attempt=int(run.get("attempt") or 0),
        elapsed=elapsed,
        step=run.get("step"),
        x=x,
        y=y,
    )


def _settings(params: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The algorithm, unless it is varied, and what is varied."""
    varied = [f"{name}={_short(value)}" for name, value in params.items()]
    algo = said.get("algo")
    return ", ".join([str(algo), *varied] if isinstance(algo, str) and "algo" not in params else varied)


def _environment(said: Mapping[str, Any]) -> str:
    for name in _NAMES:
        value = said.get(name)
        if isinstance(value, (list, tuple)) and value:
            return ", ".join(map(str, value))
        if isinstance(value, str) and value:
            return value
    return ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["AXES", "SECONDS", "STEPS", "Band", "Report", "RunCurve", "Series", "combined", "gather"]
