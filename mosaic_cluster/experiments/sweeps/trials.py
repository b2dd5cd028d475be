"""The trials of a sweep as the journal tells them. Pure: entries in, state out, live and on resume alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.runtime.searching.protocols import EXPLOIT, PAUSE, STOP, Decision
from mosaic_cluster.telemetry.watch import Reading

PENDING, RUNNING, PAUSED = "PENDING", "RUNNING", "PAUSED"
COMPLETED, STOPPED, FAILED, CANCELLED = "COMPLETED", "STOPPED", "FAILED", "CANCELLED"
OVER = frozenset({COMPLETED, STOPPED, FAILED, CANCELLED})

STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}

SUGGESTED, STARTED, REPORTED, EXPLOITED, ENDED, REOPENED = (
    "trial_suggested",
    "trial_started",
    "trial_reported",
    "trial_exploited",
    "trial_ended",
    "trial_reopened",
)


@dataclass(frozen=True)
class Report:
    """What a trial had at one rung.

    Attributes:
        rung: counted from 1.
        at: environment steps asked for.
        readings: for each run, the step and value that counts.
        score: the statistic over them; ``None`` where it is no finite number.
    """

    rung: int
    at: int
    readings: Mapping[str, Reading]
    score: float | None


@dataclass
class Trial:
    """One configuration: a run per seed.

    Attributes:
        name: ``t0001``, ``t0002``, ...
        part: which of the sweep's workers it is for.
        params: the settings that are varied, by dotted name, as they are now.
        state: PENDING, RUNNING, PAUSED, COMPLETED, STOPPED (early), FAILED or CANCELLED.
        reports: one a rung, as far as it has come.
        score: what it is judged by; ``values``: of each seed, in the order of ``run_ids``.
        lineage: what it went on from, and with which settings, each time it was replaced.
        exploit: decided and not done yet.
    """

    name: str
    part: int
    worker: str
    params: dict[str, Any]
    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    state: str = PENDING
    reason: str = "waits for its turn"
    reports: list[Report] = field(default_factory=list)
    score: float | None = None
    values: list[float | None] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    exploit: Decision | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in OVER

    @property
    def rung(self) -> int:
        """Rungs reached."""
        return len(self.reports)

    def to_dict(self) -> dict[str, Any]:
        """One entry of the status document."""
        return {
            "trial": self.name,
            "worker": self.worker,
            "params": self.params,
            "state": self.state,
            "reason": self.reason,
            "rung": self.rung,
            "scores": [[report.at, report.score] for report in self.reports],
            "score": self.score,
            "values": self.values,
            "runs": list(self.run_ids),
            "seeds": list(self.seeds),
            "lineage": self.lineage,
        }


@dataclass
class Book:
    """All trials, in the order they were suggested.

    Attributes:
        scheduler: its kind, for reasons.
        metric: its name, for reasons.
    """

    scheduler: str
    metric: str
    trials: dict[str, Trial] = field(default_factory=dict)

    def next_name(self) -> str:
        """Name of the next trial."""
        return f"t{len(self.trials) + 1:04d}"

    def live(self) -> list[Trial]:
        """Trials that are not over."""
        return [trial for trial in self.trials.values() if not trial.over]

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Take a journal entry; others than ours change nothing."""
        handler = _HANDLERS.get(entry["type"])
        if handler is not None:
            handler(self, entry)

    def _suggested(self, entry: Mapping[str, Any]) -> None:
        runs = entry["runs"]
        self.trials[entry["trial"]] = Trial(
            name=entry["trial"],
            part=int(entry["part"]),
            worker=entry["worker"],
            params=dict(entry["params"]),
            run_ids=tuple(run["run_id"] for run in runs),
            seeds=tuple(run["seed"] for run in runs),
        )

    def _started(self, entry: Mapping[str, Any]) -> None:
        trial = self.trials[entry["trial"]]
        trial.state, trial.reason = RUNNING, "under way"

    def _reported(self, entry: Mapping[str, Any]) -> None:
        trial = self.trials[entry["trial"]]
        readings = {run: (int(step), _number(value)) for run, (step, value) in entry["readings"].items()}
        report = Report(int(entry["rung"]), int(entry["at"]), readings, entry["score"])
        trial.reports.append(report)
        trial.score = report.score
        trial.values = [_plain(readings[run][1]) for run in trial.run_ids]
        self._decide(entry, report)

    def _decide(self, entry: Mapping[str, Any], report: Report | None = None) -> None:
        for decision in map(Decision.from_dict, entry.get("decisions", ())):
            trial = self.trials[decision.trial]
            mine = report is not None and decision.trial == entry["trial"]
            at = report.at if report is not None and mine else (trial.reports[-1].at if trial.reports else 0)
            if decision.action == STOP:
                trial.state, trial.reason = STOPPED, self._why_stopped(trial, at)
            elif decision.action == PAUSE:
                why = f"paused by {self.scheduler} at rung {at:,} until the others are there"
                trial.state, trial.reason = PAUSED, why
            elif decision.action == EXPLOIT:
                trial.exploit = decision
                trial.state = PAUSED
                trial.reason = f"to go on from {decision.source}'s checkpoint ({self.scheduler}, rung {at:,})"

    def _why_stopped(self, trial: Trial, at: int) -> str:
        if trial.score is None:
            return f"stopped early at rung {at:,}: {self.metric} is no finite number there"
        value = f"{self.metric} {trial.score:.5g}"
        return f"stopped early by {self.scheduler} at rung {at:,}: {value} is not among the best"

    def _exploited(self, entry: Mapping[str, Any]) -> None:
        trial = self.trials[entry["trial"]]
        trial.exploit = None
        if entry.get("skipped"):
            trial.reason = entry["skipped"]
            return
        trial.params = dict(entry["params"])
        trial.lineage.append({name: entry[name] for name in ("source", "at", "before", "params", "runs")})
        trial.reason = f"goes on from {entry['source']}'s checkpoint with changed settings"

    def _ended(self, entry: Mapping[str, Any]) -> None:
        trial = self.trials[entry["trial"]]
        trial.state, trial.reason = entry["state"], entry["reason"]
        trial.exploit = None
        if entry["state"] == COMPLETED:
            trial.score, trial.values = entry["score"], list(entry["values"])
        self._decide(entry)

    def _reopened(self, entry: Mapping[str, Any]) -> None:
        trial = self.trials[entry["trial"]]
        trial.state, trial.reason = PENDING, "is tried again"


_HANDLERS: dict[str, Callable[[Book, Mapping[str, Any]], None]] = {
    SUGGESTED: Book._suggested,
    STARTED: Book._started,
    REPORTED: Book._reported,
    EXPLOITED: Book._exploited,
    ENDED: Book._ended,
    REOPENED: Book._reopened,
}


def score_of(values: Sequence[float | None], statistic: str) -> float | None:
    """The statistic over seeds; ``None`` if one value is missing or no finite number."""
    if not values or any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(STATISTICS[statistic]([value for value in values if value is not None]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
