"""A report as rows of text, for the terminal and the page."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from mosaic_cluster.reports.curves import ENOUGH_SEEDS, Report, Series
from mosaic_cluster.reports.intervals import interval
from mosaic_cluster.units import format_duration


@dataclass(frozen=True)
class Row:
    """One series.

    Attributes:
        seeds: how many.
        final: mean over seeds of the last values, with what is known of the spread.
        steps: the last, of the seed that got furthest.
        time: running time of the longest run.
        state: of the runs, counted where they differ.
        reason: of the runs that are not completed, each once; and what else must be said.
    """

    environment: str
    trial: str
    worker: str
    settings: str
    seeds: str
    final: str
    steps: str
    time: str
    state: str
    reason: str


def rows(report: Report) -> list[Row]:
    """One row a series, by environment."""
    order = {name: at for at, name in enumerate(dict.fromkeys(each.environment for each in report.series))}
    return [_row(each, report.metric) for each in sorted(report.series, key=lambda each: order[each.environment])]


def _row(series: Series, metric: str) -> Row:
    told = series.told
    steps = [run.step for run in series.runs if run.step is not None]
    states = Counter(run.state for run in series.runs)
    unsaid = len(series.runs) - len(told)
    reasons = list(dict.fromkeys(run.reason for run in series.runs if run.state != "COMPLETED" and run.reason))
    if unsaid == len(series.runs):
        reasons.append(f"nothing reported {metric}")
    elif unsaid:
        reasons.append(f"{unsaid} of {len(series.runs)} runs did not report {metric}")
    return Row(
        environment=series.environment,
        trial=series.trial or "",
        worker=series.worker,
        settings=series.settings,
        seeds=str(len(series.runs)),
        final=final_text(series),
        steps=f"{max(steps):,}" if steps else "",
        time=format_duration(round(max(run.elapsed for run in series.runs))),
        state=next(iter(states)) if len(states) == 1 else ", ".join(f"{n} {name}" for name, n in states.items()),
        reason="; ".join(reasons),
    )


def final_text(series: Series) -> str:
    """Mean of the last values, and the spread that is known: an interval, or the range of two."""
    values = [run.final for run in series.told if run.final is not None]
    if not values:
        return ""
    text = f"{statistics.fmean(values):.4g}"
    if len(values) >= ENOUGH_SEEDS:
        low, high = interval(values) or (values[0], values[0])
        return f"{text} [{low:.4g}, {high:.4g}]"
    return f"{text} ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else text


__all__ = ["Row", "final_text", "rows"]
