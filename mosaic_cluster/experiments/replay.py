"""From a journal back to the runs' lives, as far as they had come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.life import COMPLETED, FAILED, PENDING, RunLife, RunPlan
from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptResult
from mosaic_cluster.supervision import Outcome


def replay(
    entries: Sequence[Mapping[str, Any]],
    plan_of: Callable[[str], RunPlan],
    home: ExperimentHome,
    *,
    retry_failed: bool,
    now: float,
) -> tuple[list[RunLife], list[RunLife]]:
    """Rebuild the lives of an experiment's runs.

    Args:
        entries: the journal, oldest first.
        plan_of: the plan of a run id.
        retry_failed: let FAILED runs go on.
        now: unix time in seconds.

    Returns:
        Every life; and those whose last attempt was never closed, which must be closed before they go on.
    """
    lives: dict[str, RunLife] = {}
    unclosed: dict[str, RunLife] = {}
    for entry in entries:
        kind = entry["type"]
        if kind == "run_planned":
            life = RunLife(plan_of(entry["run_id"]), since=now)
            lives[life.run_id] = life
        elif kind == "attempt_started":
            life = lives[entry["run_id"]]
            _begin(life, entry, home)
            unclosed[life.run_id] = life
        elif kind == "attempt_ended":
            life = lives[entry["run_id"]]
            life.attempt_ended(result_of(entry), now, counts=bool(entry.get("counts", True)))
            unclosed.pop(life.run_id, None)
        elif kind == "run_ended":
            life = lives[entry["run_id"]]
            life.move(entry["state"], entry["reason"], now)
    for life in lives.values():
        reopen(life, retry_failed=retry_failed, now=now)
    return list(lives.values()), list(unclosed.values())


def result_of(entry: Mapping[str, Any]) -> AttemptResult:
    """An attempt's result from its journal entry."""
    return AttemptResult(
        outcome=Outcome.from_dict(entry["outcome"]),
        resumed_from_step=entry.get("resumed_from_step"),
        resumed_from=entry.get("resumed_from"),
        node=entry.get("node"),
        committed=int(entry.get("committed", 0)),
        log_bytes=int(entry.get("log_bytes", 0)),
    )


def _begin(life: RunLife, entry: Mapping[str, Any], home: ExperimentHome) -> None:
    placement = Placement.from_dict(entry["placement"])
    life.attempt = int(entry["attempt"]) - 1
    life.order = life.next_order(home.experiment_id, str(home.path), placement)
    life.attempt = int(entry["attempt"])


def reopen(life: RunLife, *, retry_failed: bool, now: float) -> None:
    """A cancelled or paused run goes on; a failed one only if that was asked for."""
    life.not_before = 0.0
    if life.state == COMPLETED or (life.state == FAILED and not retry_failed):
        return
    if life.state == FAILED:
        life.failures = 0
    if life.state != PENDING:
        life.move(PENDING, "waiting to be placed again", now)
