"""Ray Tune's own schedulers, driven by a sweep instead of Tune's trial runner.

A scheduler of Tune decides by what it is told (trials added, results, ends) and acts through a handful of methods
of the controller it is given. Ours is such a controller: it keeps the status of each trial and notes what the
scheduler wants done. So every decision is Tune's, and the whole history can be told again in the same order,
which is how a sweep is taken up after its driver died.

These are private corners of Ray, which is one reason why its version is pinned.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandScheduler, PopulationBasedTraining, TrialScheduler

from mosaic_cluster.runtime.searching.protocols import (
    CONTINUE,
    EXPLOIT,
    PAUSE,
    STOP,
    Decision,
    NoScheduler,
    Scheduler,
    SchedulerSetup,
)
from mosaic_cluster.specs.space import Param, Space

METRIC = "score"
TIME = "rung_time"
DEFAULT_FACTOR = 3
DEFAULT_QUANTILE = 0.25
DEFAULT_RESAMPLE = 0.25
TRIES = 100


def make_scheduler(setup: SchedulerSetup) -> Scheduler:
    """The scheduler of any kind."""
    if setup.kind == "none":
        return NoScheduler()
    makers: dict[str, Callable[[SchedulerSetup], TuneScheduler]] = {
        "asha": _asha,
        "hyperband": _hyperband,
        "pbt": _pbt,
    }
    return makers[setup.kind](setup)


def _asha(setup: SchedulerSetup) -> TuneScheduler:
    factor = int(setup.options.get("reduction_factor", DEFAULT_FACTOR))
    scheduler = AsyncHyperBandScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode=setup.mode,
        grace_period=1,
        # A little beyond the last rung: the logarithm that Tune counts rungs with rounds down.
        max_t=factor ** (setup.rungs - 1) + 0.5,
        reduction_factor=factor,
    )
    return TuneScheduler(scheduler, setup, lambda rung: float(factor ** (rung - 1)))


def _hyperband(setup: SchedulerSetup) -> TuneScheduler:
    factor = int(setup.options.get("reduction_factor", DEFAULT_FACTOR))
    scheduler = HyperBandScheduler(
        time_attr=TIME, metric=METRIC, mode=setup.mode, max_t=factor ** (setup.rungs - 1), reduction_factor=factor
    )
    # Tune's own formula rounds down what floats leave a hair below a whole number.
    scheduler._get_r0 = lambda bracket: factor ** (setup.rungs - 1 - bracket)
    return TuneScheduler(scheduler, setup, lambda rung: float(factor ** (rung - 1)), eager=True)


def _pbt(setup: SchedulerSetup) -> TuneScheduler:
    scheduler = _BoundedPBT(
        setup.space,
        time_attr=TIME,
        metric=METRIC,
        mode=setup.mode,
        perturbation_interval=1,
        hyperparam_mutations={param.path: _domain(param) for param in setup.space.params},
        quantile_fraction=float(setup.options.get("quantile_fraction", DEFAULT_QUANTILE)),
        resample_probability=float(setup.options.get("resample_probability", DEFAULT_RESAMPLE)),
        log_config=False,
        # All trials meet at a rung: which is better is then no matter of which was faster.
        synch=True,
    )
    return TuneScheduler(scheduler, setup, float, eager=True)


def _domain(param: Param) -> Any:
    if param.kind == "choice":
        return list(param.choices)
    if param.log:
        return tune.loguniform(param.low, param.high)
    return tune.uniform(param.low, param.high)


class _BoundedPBT(PopulationBasedTraining):  # type: ignore[misc]
    """Tune's, but what it explores stays within the space: it multiplies by 0.8 or 1.2 without looking."""

    def __init__(self, space: Space, **options: Any) -> None:
        super().__init__(**options)
        self._space = space

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        for _ in range(TRIES):
            config, operations = super()._get_new_config(trial, trial_to_clone)
            fitted = {
                path: param.fit(value) if (param := self._space.find(path)) else value for path, value in config.items()
            }
            if self._space.allows(fitted):
                return fitted, operations
        return dict(trial_to_clone.config), {}


class _Controller:
    """What Tune's schedulers ask of the trial runner."""

    search_alg = None

    def __init__(self, scheduler: TrialScheduler) -> None:
        self.trials: dict[str, Trial] = {}
        self.wanted: list[Decision] = []
        self._scheduler = scheduler

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> set[Trial]:
        return {trial for trial in self.trials.values() if not trial.is_finished()}

    def stop_trial(self, trial: Trial, error: bool = False, exc: Exception | None = None) -> None:
        """One that waits or is paused, as an act of the scheduler's: which hears of it, as from Tune's runner."""
        del error, exc
        if trial.is_finished():
            return
        self._scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED
        self.wanted.append(Decision(trial.trial_id, STOP))

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        del should_checkpoint
        trial.status = Trial.PAUSED

    def _schedule_trial_save(self, trial: Trial, result: Any = None, storage: Any = None) -> str:
        """A run pauses with a checkpoint anyway; which one is known by whose it is."""
        del result, storage
        return str(trial.trial_id)


class TuneScheduler:
    """A scheduler of Tune behind our protocol.

    Args:
        scheduler: Tune's.
        setup: what it is about.
        time_of: what Tune is told as time at a rung.
        eager: whether it wants all trials at the start.
    """

    def __init__(
        self,
        scheduler: TrialScheduler,
        setup: SchedulerSetup,
        time_of: Callable[[int], float],
        *,
        eager: bool = False,
    ) -> None:
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self.eager = eager
        self._scheduler = scheduler
        self._time_of = time_of
        self._controller = _Controller(scheduler)
        self._last: dict[str, dict[str, Any]] = {}
        # Tune draws from the process's generators: ours stand in for them while it decides.
        self._random = random.Random(f"mosaic scheduler {setup.seed}").getstate()
        self._numpy = np.random.RandomState(setup.seed).get_state()

    def add(self, trial: str, params: Mapping[str, Any]) -> None:
        """See :class:`Scheduler`."""
        made = Trial("mosaic", stub=True, config=dict(params), trial_id=trial)
        self._controller.trials[trial] = made
        with self._seeded():
            self._scheduler.on_trial_add(self._controller, made)

    def choose(self) -> str | None:
        """See :class:`Scheduler`."""
        with self._seeded():
            found = self._scheduler.choose_trial_to_run(self._controller)
        return None if found is None else str(found.trial_id)

    def started(self, trial: str) -> None:
        """See :class:`Scheduler`."""
        self._controller.trials[trial].status = Trial.RUNNING

    def report(self, trial: str, rung: int, score: float) -> list[Decision]:
        """See :class:`Scheduler`."""
        result = {TIME: self._time_of(rung), "training_iteration": rung, METRIC: score}
        self._last[trial] = result
        return self._told(trial, result)

    def _told(self, trial: str, result: dict[str, Any]) -> list[Decision]:
        made = self._controller.trials[trial]
        with self._seeded():
            action = self._scheduler.on_trial_result(self._controller, made, dict(result))
        if action == TrialScheduler.PAUSE:
            self._pause(made)
        elif action == TrialScheduler.STOP:
            made.status = Trial.TERMINATED
            with self._seeded():
                self._scheduler.on_trial_complete(self._controller, made, dict(result))
        names = {
            TrialScheduler.CONTINUE: CONTINUE,
            TrialScheduler.PAUSE: PAUSE,
            TrialScheduler.STOP: STOP,
            TrialScheduler.NOOP: PAUSE,
        }
        return [Decision(trial, names[action]), *self._wanted()]

    def _pause(self, trial: Trial) -> None:
        trial.status = Trial.PAUSED
        kept = trial.run_metadata.checkpoint_manager
        name = str(trial.trial_id)
        kept._latest_checkpoint_result = _TrainingResult(checkpoint=name, metrics=self._last[name])

    def complete(self, trial: str, score: float | None) -> list[Decision]:
        """See :class:`Scheduler`."""
        if score is None or not math.isfinite(score):
            return self.fail(trial)
        made = self._controller.trials[trial]
        if made.is_finished():
            return []
        last = self._last.get(trial, {"training_iteration": 0, TIME: 0.0})
        rung = int(last["training_iteration"]) + 1
        result = {TIME: self._time_of(rung), "training_iteration": rung, METRIC: score}
        made.status = Trial.TERMINATED
        with self._seeded():
            self._scheduler.on_trial_complete(self._controller, made, result)
        return [*self._wanted(), *self._unblock()]

    def fail(self, trial: str) -> list[Decision]:
        """See :class:`Scheduler`."""
        made = self._controller.trials[trial]
        if made.is_finished():
            return []
        made.status = Trial.ERROR
        with self._seeded():
            self._scheduler.on_trial_error(self._controller, made)
        return [*self._wanted(), *self._unblock()]

    def _unblock(self) -> list[Decision]:
        """When the last of those that others wait for is gone, nothing would ever tell the scheduler so."""
        live = [trial for trial in self._controller.trials.values() if not trial.is_finished()]
        if not live or any(trial.status != Trial.PAUSED for trial in live) or self.choose() is not None:
            return []
        latest = max(live, key=lambda trial: self._last[trial.trial_id]["training_iteration"])
        latest.status = Trial.RUNNING
        decisions = self._told(latest.trial_id, self._last[latest.trial_id])
        if latest.status == Trial.RUNNING:  # it may go on: choose() offers it
            latest.status = Trial.PENDING
        # Its own pause is no news.
        return [each for each in decisions if each != Decision(latest.trial_id, PAUSE)]

    def _wanted(self) -> list[Decision]:
        wanted, self._controller.wanted = self._controller.wanted, []
        for trial in self._controller.trials.values():
            kept = trial.run_metadata.checkpoint_manager
            latest = kept.latest_checkpoint_result
            source = None if latest is None else latest.checkpoint
            if source is not None and source != trial.trial_id and not trial.is_finished():
                wanted.append(Decision(trial.trial_id, EXPLOIT, source, dict(trial.config)))
                kept._latest_checkpoint_result = _TrainingResult(checkpoint=trial.trial_id, metrics=latest.metrics)
        return wanted

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        random.setstate(self._random)
        np.random.set_state(self._numpy)
        try:
            yield
        finally:
            self._random, self._numpy = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])
