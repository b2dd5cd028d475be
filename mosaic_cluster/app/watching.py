"""Watching an experiment's metrics as they come: latest values from the hubs, their history from Parquet."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from mosaic_cluster.app.asking import choose_runs
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.states import LOST, TERMINAL
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.telemetry import LiveRun, read_live
from mosaic_cluster.telemetry.sql import query
from mosaic_cluster.worker.errors import InvalidInput, Problem

POLL_SECONDS = 0.2
HISTORY_SECONDS, HISTORY_SHARE = 2.0, 0.1
"""The history is read again so often, or less often if it takes more than this share of the time."""

HISTORY_POINTS = 40
MOST_METRICS = 3
PREFERRED = ("episodic_return", "episode/return", "loss")
"""Shown first where nobody says which."""

Point = tuple[int, float]

_HISTORY = """
WITH points AS (
    SELECT run_id, name, step, value, max(step) OVER (PARTITION BY run_id, name) AS last
    FROM metrics WHERE step IS NOT NULL AND isfinite(value) AND name IN ({names}) AND run_id IN ({runs})
)
SELECT run_id, name, arg_max(step, step) AS step, avg(value) AS value FROM points
GROUP BY run_id, name, step::HUGEINT * {bins} // (last::HUGEINT + 1) ORDER BY run_id, name, 3
"""


@dataclass(frozen=True)
class WatchedRun:
    """One run at one moment.

    Attributes:
        trial: the trial it belongs to.
        step: environment steps; events: telemetry lines of this attempt; age: seconds since the last of them.
        latest: step and value of each metric shown.
        history: steps and mean values of each metric shown, at most :data:`HISTORY_POINTS` of each.
    """

    run_id: str
    trial: str | None
    state: str
    attempt: int
    step: int | None
    events: int
    age: float | None
    latest: Mapping[str, tuple[int | None, float]]
    history: Mapping[str, Sequence[Point]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``null`` for values that are no finite number."""
        latest = {
            name: {"step": step, "value": value if math.isfinite(value) else None}
            for name, (step, value) in self.latest.items()
        }
        history = {name: [list(point) for point in points] for name, points in self.history.items()}
        return {**vars(self), "latest": latest, "history": history}


@dataclass(frozen=True)
class Watching:
    """An experiment at one moment.

    Attributes:
        metrics: names of the metrics shown; known: of all there are.
        over: whether all the runs have ended.
    """

    experiment_id: str
    state: str
    metrics: tuple[str, ...]
    known: tuple[str, ...]
    runs: tuple[WatchedRun, ...]
    over: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "runs": [run.to_dict() for run in self.runs]}


class Watcher:
    """Looks at an experiment again and again.

    Args:
        runs: run ids or their ends, or trials; none means all.
        metrics: names; none means those that matter most.
    """

    def __init__(self, home: ExperimentHome, runs: Sequence[str] = (), metrics: Sequence[str] = ()) -> None:
        self._home = home
        self._wanted = list(runs)
        self._metrics = tuple(metrics)
        self._history: dict[tuple[str, str], list[Point]] = {}
        self._history_due = -math.inf
        self._history_of: tuple[Any, ...] = ()

    def look(self) -> Watching:
        """How it stands now.

        Raises:
            InvalidInput: there is no such run, or, once the experiment has metrics, no such metric.
        """
        status = read_status(self._home)
        live = read_live(self._home.storage.at("telemetry"))
        chosen = set(choose_runs(status, self._wanted))
        runs = [run for run in status["runs"] if run["run_id"] in chosen]
        known = sorted({name for run_id in chosen if run_id in live for name in live[run_id].metrics})
        names = self._metrics or _preferred(known)
        over = all(run["state"] in TERMINAL or run["state"] == LOST for run in runs)
        missing = [name for name in self._metrics if name not in known]
        if missing and (known or over):
            raise InvalidInput([_no_metric(name, known) for name in missing])
        self._remember([run["run_id"] for run in runs], names, over)
        watched = tuple(self._run(run, live.get(run["run_id"]), names) for run in runs)
        return Watching(self._home.experiment_id, status["state"], tuple(names), tuple(known), watched, over)

    def follow(self) -> Iterator[Watching]:
        """Each time something has changed, until the runs have ended."""
        before = None
        while True:
            now = self.look()
            seen = [(run.state, run.events, run.latest) for run in now.runs]
            if seen != before or now.over:
                before = seen
                yield now
            if now.over:
                return
            time.sleep(POLL_SECONDS)

    def _run(self, run: Mapping[str, Any], live: LiveRun | None, names: Sequence[str]) -> WatchedRun:
        run_id = run["run_id"]
        latest = {name: live.metrics[name] for name in names if name in live.metrics} if live else {}
        history = {}
        for name in names:
            points = list(self._history.get((run_id, name), ()))
            step, value = latest.get(name, (None, math.nan))
            if step is not None and math.isfinite(value) and (not points or step > points[-1][0]):
                points.append((step, value))
            history[name] = points
        return WatchedRun(
            run_id=run_id,
            trial=run.get("trial"),
            state=run["state"],
            attempt=live.attempt if live else int(run.get("attempt") or 0),
            step=live.step if live else run.get("step"),
            events=live.events if live else 0,
            age=max(0.0, time.time() - live.ts / 1e6) if live and live.ts is not None else None,
            latest=latest,
            history=history,
        )

    def _remember(self, runs: Sequence[str], names: Sequence[str], over: bool) -> None:
        """Read the history again, now and then, or when something else is asked for."""
        wanted = (tuple(runs), tuple(names), over)
        now = time.monotonic()
        if not runs or not names or (wanted == self._history_of and now < self._history_due):
            return
        self._history_of = wanted
        sql = _HISTORY.format(names=_quoted(names), runs=_quoted(runs), bins=HISTORY_POINTS)
        found: dict[tuple[str, str], list[Point]] = {}
        for row in query(self._home.storage.at("telemetry"), sql).to_pylist():
            found.setdefault((row["run_id"], row["name"]), []).append((row["step"], row["value"]))
        self._history = found
        took = time.monotonic() - now
        self._history_due = now + max(HISTORY_SECONDS, took / HISTORY_SHARE)


def _preferred(known: Sequence[str]) -> tuple[str, ...]:
    first = [name for name in PREFERRED if name in known]
    return tuple([*first, *(name for name in known if name not in first)][:MOST_METRICS])


def _no_metric(name: str, known: Sequence[str]) -> Problem:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Problem("--metric", f"there is no metric {name!r}{hint} There is: {', '.join(known) or 'none'}")


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
