"""From a journal back to the runs' lives, as far as they had come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.experiments.quarantine import QUARANTINED
from mosaic_cluster.experiments.states import COMPLETED, FAILED, PENDING
from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptResult
from mosaic_cluster.supervision import Outcome
from mosaic_cluster.telemetry import Watched

REOPENED = "run_reopened"


@dataclass
class Replay:
    """Rebuilds lives, entry by entry. A kind puts each new life in before its entries come.

    Attributes:
        now: unix time in seconds.
    """

    home: ExperimentHome
    now: float
    lives: dict[str, RunLife] = field(default_factory=dict)
    _open: dict[str, RunLife] = field(default_factory=dict)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take an entry; those that are not about a run change nothing."""
        kind = entry["type"]
        if kind == "attempt_started":
            life = self.lives[entry["run_id"]]
            self._begin(life, entry)
            self._open[life.run_id] = life
        elif kind == "attempt_ended":
            life = self.lives[entry["run_id"]]
            life.attempt_ended(result_of(entry), self.now, counts=bool(entry.get("counts", True)))
            self._open.pop(life.run_id, None)
        elif kind == QUARANTINED:
            for run_id, count in entry["forgiven"].items():
                self.lives[run_id].forgive(count)
        elif kind == REOPENED:
            reopen(self.lives[entry["run_id"]], retry_failed=True, now=self.now)
        elif kind == "run_ended":
            life = self.lives[entry["run_id"]]
            life.code = entry.get("code", life.code)
            life.move(entry["state"], entry["reason"], self.now)

    def unclosed(self) -> list[RunLife]:
        """Those whose last attempt was never closed, which must be before they go on."""
        return list(self._open.values())

    def _begin(self, life: RunLife, entry: Mapping[str, Any]) -> None:
        placement = Placement.from_dict(entry["placement"])
        life.attempt = int(entry["attempt"]) - 1
        life.order = life.next_order(self.home.experiment_id, self.home.location, placement)
        life.attempt = int(entry["attempt"])


def result_of(entry: Mapping[str, Any]) -> AttemptResult:
    """An attempt's result from its journal entry."""
    watched = entry.get("watched")
    return AttemptResult(
        outcome=Outcome.from_dict(entry["outcome"]),
        resumed_from_step=entry.get("resumed_from_step"),
        resumed_from=entry.get("resumed_from"),
        node=entry.get("node"),
        committed=int(entry.get("committed", 0)),
        log_bytes=int(entry.get("log_bytes", 0)),
        watched=None if watched is None else Watched.from_dict(watched),
        metrics=dict(entry.get("metrics", {})),
        events=int(entry.get("events", 0)),
        unsent=tuple(entry.get("unsent", ())),
    )


def reopen(life: RunLife, *, retry_failed: bool, now: float) -> None:
    """A cancelled or paused run goes on; a failed one only if that was asked for."""
    life.not_before = 0.0
    life.paused_by = None
    if life.state == COMPLETED or (life.state == FAILED and not retry_failed):
        return
    if life.state == FAILED:
        life.failures = life.growths = 0
    life.stop_requested = None
    if life.state != PENDING:
        life.move(PENDING, "waiting to be placed again", now)
