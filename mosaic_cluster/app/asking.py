"""Asking a running experiment to stop, pause or go on, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.experiments import control
from mosaic_cluster.experiments.home import find_experiment
from mosaic_cluster.experiments.states import LOST, PAUSED, TERMINAL
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.storage import Storage, default_location
from mosaic_cluster.worker.errors import InvalidInput, Problem

POLL_SECONDS = 0.2
REACHED = {
    "stop": lambda state: state in TERMINAL,
    "pause": lambda state: state in TERMINAL or state == PAUSED,
    "unpause": lambda state: state != PAUSED,
}


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        done: every run it was about is where the request wanted it.
        lines: one line a run, for people.
        runs: the runs' status entries.
    """

    experiment_id: str
    done: bool
    lines: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"experiment_id": self.experiment_id, "done": self.done, "runs": list(self.runs)}


def ask_experiment(verb: str, wanted: str, runs: Sequence[str], storage: str | None, wait: float) -> Answer:
    """Leave a request with an experiment and wait until it has been acted on.

    Args:
        verb: ``stop``, ``pause`` or ``unpause``.
        wanted: the experiment, as a person names it.
        runs: run ids or their ends; none means all.
        wait: seconds to wait.

    Raises:
        InvalidInput: no such experiment or run, or nobody drives it any more.
    """
    home = find_experiment(Storage.open(storage or default_location()), wanted)
    status = read_status(home)
    if status["state"] == LOST:
        raise InvalidInput([Problem("", f"cannot {verb} {home.experiment_id}: {status['reason']}")])
    chosen = choose_runs(status, runs)
    reached = REACHED[verb]
    if status["state"] not in TERMINAL and not _all(status, chosen, reached):
        control.send(home.storage, verb, chosen if runs else ())
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            status = read_status(home)
            if _all(status, chosen, reached) or status["state"] == LOST:
                break
    entries = tuple(run for run in status["runs"] if run["run_id"] in chosen)
    lines = tuple(f"{run['run_id']}  {run['state']}  {run['reason']}" for run in entries)
    return Answer(home.experiment_id, _all(status, chosen, reached), lines, entries)


def choose_runs(status: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """Run ids that a person means, given as ids or their ends (case does not matter), or as trials.

    Raises:
        InvalidInput: one fits no run, or several; all such at once.
    """
    trials = {str(trial["trial"]): list(trial["runs"]) for trial in status.get("trials", ())}
    known = [str(run["run_id"]) for run in status["runs"]]
    if not wanted:
        return known
    chosen, problems = [], []
    for text in wanted:
        if text.lower() in trials:
            chosen += trials[text.lower()]
            continue
        fitting = [run_id for run_id in known if run_id.lower().endswith(text.lower())]
        if len(fitting) == 1:
            chosen.append(fitting[0])
        else:
            how = "fits no run" if not fitting else f"fits {len(fitting)} runs"
            names = ", ".join([*list(trials)[:10], *(fitting or known)[:10]])
            problems.append(Problem(f"run {text!r}", f"{how} of {status['experiment_id']}; there is {names}"))
    if problems:
        raise InvalidInput(problems)
    return chosen


def _all(status: dict[str, Any], chosen: Sequence[str], reached: Any) -> bool:
    return all(reached(run["state"]) for run in status["runs"] if run["run_id"] in chosen)
