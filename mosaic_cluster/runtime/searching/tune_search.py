"""Optuna, through Ray Tune's ``OptunaSearch``."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from mosaic_cluster.runtime.searching.protocols import Searcher, SearchSetup, Suggestion, plain_searcher
from mosaic_cluster.specs.space import Param
from mosaic_cluster.worker.errors import BackendError

METRIC = "score"
WORKER = "(worker)"
TRIES = 200


def make_searcher(setup: SearchSetup) -> Searcher:
    """The searcher of any kind.

    Raises:
        BackendError: Optuna is not installed.
    """
    return plain_searcher(setup) or OptunaSearcher(setup)


class OptunaSearcher:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), as Optuna has them.

    What violates the constraints is told to Optuna as pruned, and another is asked for.
    """

    def __init__(self, setup: SearchSetup) -> None:
        try:
            import optuna
            from ray.tune.search.optuna import OptunaSearch
        except ImportError as error:
            raise BackendError("search: optuna needs Optuna: pip install 'mosaic-cluster[cluster]'") from error
        optuna.logging.set_verbosity(logging.WARNING)
        self._setup = setup
        self._suggested = 0
        self._search = OptunaSearch(self._define, metric=METRIC, mode=setup.mode, seed=setup.seed)
        self._over: set[str] = set()

    def _define(self, trial: Any) -> None:
        """The space as Optuna wants it: settings asked for one after the other, each where it is there."""
        part = 0
        if len(self._setup.parts) > 1:
            part = trial.suggest_categorical(WORKER, list(range(len(self._setup.parts))))
        space = self._setup.parts[part]
        drawn: dict[str, Any] = {}
        for param in space.params:
            if space.active(param, drawn):
                drawn[param.path] = _value(param, _ask(trial, param, self._name(part, param)))

    def _name(self, part: int, param: Param) -> str:
        """Settings of one name may have different ranges for different workers, which Optuna refuses."""
        return param.path if len(self._setup.parts) == 1 else f"{part}:{param.path}"

    def suggest(self, trial: str) -> Suggestion | None:
        """See :class:`Searcher`."""
        if self._setup.samples is not None and self._suggested >= self._setup.samples:
            return None
        self._suggested += 1
        for attempt in range(TRIES):
            name = trial if attempt == 0 else f"{trial}/{attempt}"
            found = self._read(self._raw(name))
            if self._setup.parts[found.part].allows(found.params):
                if attempt:  # the one that fits takes the trial's name
                    self._search._ot_trials[trial] = self._search._ot_trials.pop(name)
                    self._search._completed_trials.discard(trial)
                return found
            self._search.on_trial_complete(name)
        # The constraints leave so little that a model's proposals miss it: a plain draw, then.
        rng = random.Random(f"mosaic sweep {self._setup.seed} {self._suggested}")
        part = self._suggested % len(self._setup.parts)
        self._over.add(trial)
        return Suggestion(part, self._setup.parts[part].sample(rng))

    def _raw(self, name: str) -> dict[str, Any]:
        # Not OptunaSearch.suggest's own answer: it would nest names with a slash in them.
        self._search.suggest(name)
        return dict(self._search._ot_trials[name].params)

    def _read(self, raw: Mapping[str, Any]) -> Suggestion:
        part = int(raw.get(WORKER, 0))
        params = {}
        for param in self._setup.parts[part].params:
            name = self._name(part, param)
            if name in raw:
                params[param.path] = _value(param, raw[name])
        return Suggestion(part, params)

    def report(self, trial: str, rung: int, score: float) -> None:
        """See :class:`Searcher`."""
        if trial not in self._over:
            self._search.on_trial_result(trial, {METRIC: score, "training_iteration": rung})

    def complete(self, trial: str, score: float | None, *, failed: bool = False) -> None:
        """See :class:`Searcher`."""
        if trial in self._over:
            return
        self._over.add(trial)
        self._search.on_trial_complete(trial, None if score is None else {METRIC: score}, error=failed)


def _ask(trial: Any, param: Param, name: str) -> Any:
    if param.kind == "choice":
        # Optuna takes plain values only; the index stands for whatever the choice holds.
        return trial.suggest_categorical(name, list(range(len(param.choices))))
    if param.whole:
        step = int(param.step or 1)
        if param.log:
            return trial.suggest_int(name, int(param.low), int(param.high), log=True)
        return trial.suggest_int(name, int(param.low), int(param.high), step=step)
    if param.log:
        return trial.suggest_float(name, param.low, param.high, log=True)
    return trial.suggest_float(name, param.low, param.high, step=param.step)


def _value(param: Param, asked: Any) -> Any:
    return param.choices[int(asked)] if param.kind == "choice" else param.fit(asked)
