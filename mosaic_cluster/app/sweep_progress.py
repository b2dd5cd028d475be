"""The progress model of a sweep: one row a trial, and the summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORDS = {"COMPLETED": "completed", "STOPPED": "stopped early", "FAILED": "failed", "CANCELLED": "cancelled"}


@dataclass(frozen=True)
class TrialRow:
    """What a person wants to see of one trial.

    Attributes:
        name: ``t0001``, ...
        worker: its worker, where the sweep compares several; else ``None``.
        params: the settings that are varied, short.
        state: PENDING, RUNNING, PAUSED, COMPLETED, STOPPED, FAILED or CANCELLED.
        reason: one sentence saying why.
        rung: rungs reached, of how many, as text; empty where there are none.
        score: as text.
        best: whether it is the best one.
    """

    name: str
    worker: str | None
    params: Mapping[str, str]
    state: str
    reason: str
    rung: str
    score: str
    best: bool

    def line(self) -> str:
        """The row as one plain line."""
        settings = ", ".join(f"{name} {value}" for name, value in self.params.items())
        parts = [f"trial {self.name}", self.state, settings]
        if self.worker:
            parts.insert(1, self.worker)
        if self.score:
            parts.append(f"{self.score} at rung {self.rung}" if self.rung else self.score)
        if self.state not in ("RUNNING", "COMPLETED"):
            parts.append(self.reason)
        return "  ".join(parts)


@dataclass(frozen=True)
class SweepProgress:
    """A sweep at one moment.

    Attributes:
        rows: its trials.
        headline: how many there are and how they stand, in one line.
        columns: names of the settings that are varied.
        metric: what trials are judged by.
    """

    rows: tuple[TrialRow, ...]
    headline: str
    columns: tuple[str, ...]
    metric: str

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> SweepProgress | None:
        """Read a status document; ``None`` if it is not a sweep's."""
        about = status.get("sweep")
        if about is None:
            return None
        trials: Sequence[Mapping[str, Any]] = status.get("trials", ())
        several = len({trial["worker"] for trial in trials}) > 1
        best = (about.get("best") or {}).get("trial")
        rows = tuple(_row(trial, about, several, best) for trial in trials)
        columns = tuple(dict.fromkeys(name for row in rows for name in row.params))
        return cls(rows, _headline(trials, about), columns, str(about["metric"]))


def _row(trial: Mapping[str, Any], about: Mapping[str, Any], several: bool, best: str | None) -> TrialRow:
    rungs = about.get("rungs") or ()
    # The last rung is reached at the end, which is not reported as a rung of its own.
    reached = len(rungs) if trial["state"] == "COMPLETED" else trial["rung"]
    return TrialRow(
        name=trial["trial"],
        worker=trial["worker"] if several else None,
        params={name: short(value) for name, value in trial["params"].items()},
        state=trial["state"],
        reason=trial["reason"],
        rung=f"{reached}/{len(rungs)}" if rungs else "",
        score="" if trial["score"] is None else f"{trial['score']:.4g}",
        best=trial["trial"] == best,
    )


def _headline(trials: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    total = about.get("samples")
    states = Counter(trial["state"] for trial in trials)
    counted = [f"{count} {WORDS.get(state, state.lower())}" for state, count in states.items()]
    of = f" of {total}" if total is not None and total >= len(trials) else ""
    text = f"trials: {len(trials)}{of}" + (f" ({', '.join(counted)})" if counted else "")
    return f"{text}; {about['search']} search, scheduler {about['scheduler']}"


def summary_lines(status: Mapping[str, Any], *, headline: bool = True) -> list[str]:
    """How a sweep came out: the best trial with its interval, the runner-up, what failed and why.

    Args:
        headline: with a line that counts the trials.
    """
    about = status["sweep"]
    trials: Sequence[Mapping[str, Any]] = status.get("trials", ())
    lines = []
    for name, title in (("best", "best"), ("runner_up", "runner-up")):
        standing = about.get(name)
        if standing is not None:
            lines += _standing_lines(title, standing, about, trials)
    if about.get("best") is None:
        lines.append(f"no trial has a value of {about['metric']} yet")
    lines += [_headline(trials, about)] if headline else []
    lines += [f"  {each['trial']} failed: {each['reason']}" for each in about.get("failed", ())]
    if about.get("note"):
        lines.append(f"note: {about['note']}")
    return lines


def _standing_lines(
    title: str, standing: Mapping[str, Any], about: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> list[str]:
    settings = ", ".join(f"{name}: {short(value)}" for name, value in standing["params"].items())
    several = len({trial["worker"] for trial in trials}) > 1
    who = f"{standing['worker']}  " if several else ""
    seeds = ", ".join(str(seed) for seed in standing["seeds"])
    text = f"{about['metric']} {standing['score']:.5g}, the {about['statistic']} over seeds {seeds}"
    if len(standing["seeds"]) == 1:
        text = f"{about['metric']} {standing['score']:.5g} with seed {seeds}; one seed tells nothing about the spread"
    if standing["interval"] is not None and about["statistic"] == "mean":
        low, high = standing["interval"]
        text += f"; 95 % interval {low:.5g} to {high:.5g}"
    if standing["state"] != "COMPLETED":
        text += f" ({WORDS.get(standing['state'], standing['state'].lower())})"
    return [f"{title}: {standing['trial']}  {who}{settings}", f"  {text}"]


def short(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
