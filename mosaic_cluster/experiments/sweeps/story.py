"""The story of a sweep: asks the searcher, asks the scheduler, and makes the runs do what they say.

Each step is written into the journal before it is acted on, and every act is derived from the journal's state
again at each turn: what a driver decided and did not live to do, the next one does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ulid import ULID

from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.experiments.planning import Part, Prepared, run_plan
from mosaic_cluster.experiments.replay import reopen
from mosaic_cluster.experiments.states import FAILED as RUN_FAILED
from mosaic_cluster.experiments.states import PENDING as RUN_PENDING
from mosaic_cluster.experiments.sweeps import trials
from mosaic_cluster.experiments.sweeps.checking import config_of, setup_of
from mosaic_cluster.experiments.sweeps.ranking import summary
from mosaic_cluster.experiments.sweeps.trials import Book, Trial, score_of
from mosaic_cluster.runtime.backend import Backend, Origin, WatchOrder
from mosaic_cluster.runtime.copying import Copying
from mosaic_cluster.runtime.searching.protocols import (
    STOP,
    Decision,
    Scheduler,
    SchedulerSetup,
    Searcher,
)
from mosaic_cluster.specs import SweepSpec
from mosaic_cluster.specs.space import NoConfiguration, Space
from mosaic_cluster.telemetry.watch import Reading, Watched
from mosaic_cluster.worker.errors import StorageError

STOPPED_EARLY = "stopped_early"
TRIAL_OVER = "trial_over"
ADMITTED_AT_ONCE = 200

LOGGER = logging.getLogger(__name__)


def advisors(spec: SweepSpec, parts: Sequence[Part], backend: Backend) -> tuple[Searcher, Scheduler]:
    """The sweep's searcher and scheduler.

    Raises:
        BackendError: the backend has no such one.
    """
    options = spec.scheduler.model_dump(exclude={"kind"}, exclude_none=True)
    setup = SchedulerSetup(
        kind=spec.scheduler.kind,
        mode=spec.metric.mode,
        rungs=len(spec.metric.at or ()),
        options=options,
        space=parts[0].space if len(parts) == 1 else Space(()),
        seed=spec.search.seed,
    )
    return backend.searcher(setup_of(spec, parts)), backend.scheduler(setup)


class SweepStory:
    """See the module, and :class:`mosaic_cluster.experiments.conductor.Story`."""

    def __init__(self, prepared: Prepared, conductor: Conductor) -> None:
        assert isinstance(prepared.spec, SweepSpec)
        self.spec = prepared.spec
        self.parts = prepared.parts
        self.conductor = conductor
        self.rungs: tuple[int, ...] = tuple(self.spec.metric.at or ())
        self.book = Book(self.spec.scheduler.kind, self.spec.metric.name)
        self._searcher, self._scheduler = advisors(self.spec, self.parts, conductor.backend)
        self._exhausted = False
        self._note: str | None = None

    # ---- what the conductor asks ---------------------------------------------------------------------

    def turn(self) -> None:
        """See :class:`Story`."""
        for trial in self.book.live():
            self._look(trial)
        for trial in self.book.trials.values():
            self._enforce(trial)
        if not self.conductor.stopping and not self.conductor.paused:
            self._exploit()
            self._admit()

    def more(self) -> bool:
        """See :class:`Story`."""
        return not self._exhausted or bool(self.book.live())

    def state(self) -> str | None:
        """CANCELLED if a trial is left to do, FAILED if one failed, else COMPLETED: early stops are meant."""
        states = {trial.state for trial in self.book.trials.values()}
        if self.more() or trials.CANCELLED in states:
            return "CANCELLED"
        return "FAILED" if trials.FAILED in states or not states else "COMPLETED"

    def document(self) -> dict[str, Any]:
        """See :class:`Story`."""
        spec = self.spec
        entries = [self._entry(trial) for trial in self.book.trials.values()]
        about = {
            "metric": spec.metric.name,
            "mode": spec.metric.mode,
            "statistic": spec.metric.statistic,
            "rungs": list(self.rungs),
            "search": spec.search.kind,
            "scheduler": spec.scheduler.kind,
            "samples": spec.samples if spec.search.kind != "grid" else (len(entries) if self._exhausted else None),
            **summary(entries, spec.metric.mode),
        }
        if self._note:
            about["note"] = self._note
        return {"sweep": about, "trials": entries}

    def _entry(self, trial: Trial) -> dict[str, Any]:
        """As it stands: with the runs of an interrupted sweep, its trials are interrupted, too."""
        entry = trial.to_dict()
        lives = self._lives(trial)
        if not trial.over and self.conductor.stopping and all(life.ended for life in lives):
            entry |= {"state": trials.CANCELLED, "reason": f"{lives[0].reason}; a resume goes on with it"}
        return entry

    # ---- taking up a journal ---------------------------------------------------------------------------

    def replay(self, entry: Mapping[str, Any]) -> None:
        """Tell searcher and scheduler what they were told, and take over what was decided."""
        kind = entry["type"]
        if kind == trials.SUGGESTED:
            again = self._searcher.suggest(entry["trial"])
            self._compare(None if again is None else dict(again.params), dict(entry["params"]), entry)
        told = self._tell(entry)
        decided = [Decision.from_dict(each) for each in entry.get("decisions", ())]
        if kind in (trials.REPORTED, trials.ENDED):
            self._compare([each.to_dict() for each in told], [each.to_dict() for each in decided], entry)
        self._apply(entry)
        for decision in decided:
            self._note_stop(decision)

    def _compare(self, again: Any, before: Any, entry: Mapping[str, Any]) -> None:
        if again != before and self._note is None:
            self._note = (
                f"search or scheduler decides otherwise than before from journal entry {entry['entry']} on (another "
                "version of a library?); what was decided stands, what comes may differ"
            )
            LOGGER.warning("%s", self._note)

    def go_on(self, *, retry_failed: bool) -> None:
        """Once lost attempts are closed: reopen what is to go on."""
        for trial in list(self.book.trials.values()):
            again = trial.state == trials.CANCELLED or (trial.state == trials.FAILED and retry_failed)
            if again:
                self._record(trials.REOPENED, trial=trial.name)
            elif not trial.over:
                for life in self._lives(trial):
                    reopen(life, retry_failed=False, now=self.conductor.now())

    # ---- the journal, and what follows from an entry -----------------------------------------------------

    def _record(self, kind: str, **data: Any) -> None:
        self.conductor.journal.append(kind, **data)
        self._apply({"type": kind, **data})

    def _apply(self, entry: Mapping[str, Any]) -> None:
        self.book.apply(entry)
        if entry["type"] == trials.SUGGESTED:
            self._make_lives(self.book.trials[entry["trial"]])
            self._scheduler.add(entry["trial"], entry["params"])
        elif entry["type"] == trials.REOPENED:
            trial = self.book.trials[entry["trial"]]
            self._scheduler.add(trial.name, trial.params)
            for life in self._lives(trial):
                if life.code != STOPPED_EARLY:
                    reopen(life, retry_failed=True, now=self.conductor.now())
        elif entry["type"] == trials.STARTED:
            self._scheduler.started(entry["trial"])
        elif entry["type"] == trials.EXPLOITED and not entry.get("skipped"):
            self._redirect(self.book.trials[entry["trial"]], entry["runs"], int(entry["at"]))

    def _tell(self, entry: Mapping[str, Any]) -> list[Decision]:
        """What the scheduler says to a report or an end. Told once an entry, live and on resume alike."""
        name = entry.get("trial", "")
        if entry["type"] == trials.REPORTED:
            score = entry["score"]
            if score is None:
                self._searcher.complete(name, None, failed=True)
                return [Decision(name, STOP), *self._scheduler.fail(name)]
            self._searcher.report(name, entry["rung"], score)
            return self._scheduler.report(name, entry["rung"], score)
        if entry["type"] == trials.ENDED:
            score = entry["score"] if entry["state"] == trials.COMPLETED else None
            self._searcher.complete(name, score, failed=score is None)
            return self._scheduler.complete(name, score)
        return []

    def _note_stop(self, decision: Decision) -> None:
        """The searcher hears of a trial that was stopped early as of one that is over, as from Tune's runner."""
        if decision.action == STOP:
            score = self.book.trials[decision.trial].score
            if score is not None:
                self._searcher.complete(decision.trial, score)

    def _decided(self, kind: str, **data: Any) -> None:
        decisions = self._tell({"type": kind, **data})
        self._record(kind, **data, decisions=[each.to_dict() for each in decisions])
        for decision in decisions:
            self._note_stop(decision)

    # ---- looking at runs ---------------------------------------------------------------------------------

    def _lives(self, trial: Trial) -> list[RunLife]:
        return [self.conductor.lives[run_id] for run_id in trial.run_ids]

    def _look(self, trial: Trial) -> None:
        """Take what a trial's runs have come to."""
        if trial.over:  # since this turn began, by a decision about another one
            return
        lives = self._lives(trial)
        failed = next((life for life in lives if life.state == RUN_FAILED), None)
        if failed is not None:
            self._end(trial, trials.FAILED, f"its run with seed {failed.plan.seed} failed: {failed.reason}")
            return
        if self.conductor.stopping:
            return
        stopped = next((life for life in lives if life.ended and life.state != "COMPLETED"), None)
        if stopped is not None:
            self._end(trial, trials.CANCELLED, f"its run with seed {stopped.plan.seed} was stopped: {stopped.reason}")
            return
        if trial.state == trials.RUNNING:
            self._rungs(trial, lives)
        if trial.state == trials.RUNNING and all(life.ended for life in lives):
            self._complete(trial, lives)

    def _rungs(self, trial: Trial, lives: list[RunLife]) -> None:
        """Report every rung but the last that all seeds have passed; the last is the trial's end."""
        while trial.state == trials.RUNNING and trial.rung < len(self.rungs) - 1:
            at = self.rungs[trial.rung]
            readings = [reading_at(life, at) for life in lives]
            if all(life.ended and reading is None for life, reading in zip(lives, readings, strict=True)):
                return  # nothing was ever reported: the end says so
            if any(reading is None for reading in readings):
                return
            found = {life.run_id: reading for life, reading in zip(lives, readings, strict=True) if reading}
            values = [value for _, value in found.values()]
            self._decided(
                trials.REPORTED,
                trial=trial.name,
                rung=trial.rung + 1,
                at=at,
                readings={run: [step, plain(value)] for run, (step, value) in found.items()},
                score=score_of(values, self.spec.metric.statistic),
            )

    def _complete(self, trial: Trial, lives: list[RunLife]) -> None:
        last = self.rungs[-1] if self.rungs else None
        readings = [life.watched.last if last is None else reading_at(life, last) for life in lives]
        silent = next((life for life, reading in zip(lives, readings, strict=True) if reading is None), None)
        if silent is not None:
            names = ", ".join(silent.watched.names) or "nothing"
            why = f"its run with seed {silent.plan.seed} never reported {self.spec.metric.name}; it reported {names}"
            self._end(trial, trials.FAILED, why)
            return
        values = [value for _, value in (reading for reading in readings if reading is not None)]
        score = score_of(values, self.spec.metric.statistic)
        seeds = f"{self.spec.metric.statistic} over {len(values)} seed" + ("s" if len(values) > 1 else "")
        if score is None:
            reason = f"{self.spec.metric.name} is no finite number at the end"
        else:
            reason = f"{self.spec.metric.name} {score:.5g}, {seeds}"
        self._end(trial, trials.COMPLETED, reason, score, [plain(value) for value in values])

    def _end(
        self,
        trial: Trial,
        state: str,
        reason: str,
        score: float | None = None,
        values: Sequence[float | None] = (),
    ) -> None:
        self._decided(trials.ENDED, trial=trial.name, state=state, reason=reason, score=score, values=list(values))

    # ---- acting on runs ------------------------------------------------------------------------------------

    def _enforce(self, trial: Trial) -> None:
        """Make the runs agree with the trial's state; safe to do again and again."""
        for life in self._lives(trial):
            if life.ended:
                continue
            if trial.over:
                if life.stop_requested is None:
                    code = STOPPED_EARLY if trial.state == trials.STOPPED else TRIAL_OVER
                    self.conductor.stop_run(life, code, trial.reason)
            elif trial.state != trials.RUNNING:
                self.conductor.hold_back(life, trial.reason)
            elif (why := self._makes_way(trial, life)) is not None:
                self.conductor.hold_back(life, why)
            else:
                self.conductor.let_go(life)

    def _makes_way(self, trial: Trial, life: RunLife) -> str | None:
        """Seeds that do not all fit at once take turns, rung by rung: none runs on to where it may not be wanted."""
        if self.spec.scheduler.kind == "none" or trial.rung >= len(self.rungs) - 1:
            return None
        at = self.rungs[trial.rung]
        if reading_at(life, at) is None or not life.plan.worker.supports_pause_resume:
            return None
        for other in self._lives(trial):
            if other is not life and not other.ended and other.state == RUN_PENDING and reading_at(other, at) is None:
                return f"makes way for seed {other.plan.seed} of its trial until rung {at:,}"
        return life.held_back if any(
            reading_at(other, at) is None and not other.ended for other in self._lives(trial)
        ) else None  # fmt: skip

    def _exploit(self) -> None:
        """Copy checkpoints where that was decided, once the runs of both sides are at rest."""
        for trial in self.book.live():
            decision = trial.exploit
            if decision is None or decision.source is None:
                continue
            source = self.book.trials[decision.source]
            sides = [*self._lives(trial), *self._lives(source)]
            if any(life.handle is not None for life in sides):
                continue
            self._copy(trial, source, decision)

    def _copy(self, trial: Trial, source: Trial, decision: Decision) -> None:
        if any(life.ended for life in self._lives(trial)):
            why = f"a run was over before it could go on from {source.name}'s checkpoint"
            self._record(trials.EXPLOITED, trial=trial.name, skipped=why)
            return
        runs: dict[str, Any] = {}
        copying = Copying(self.conductor.home.storage)
        at = trial.reports[-1].at if trial.reports else 0
        for life, from_life in zip(self._lives(trial), self._lives(source), strict=True):
            # What it had at the rung, where it saved that; it has trained on until it paused.
            found = copying.find(from_life.run_id, from_life.attempt + 1, at, from_life.origin)
            if found is None and from_life.origin is None:
                why = f"goes on as it was: {source.name} has no checkpoint that could be copied"
                self._record(trials.EXPLOITED, trial=trial.name, skipped=why)
                return
            step = found.step if found is not None else from_life.origin.step  # type: ignore[union-attr]
            label = f"from_{from_life.run_id[-6:].lower()}_{step}_{life.attempt + 1}"
            try:
                path = copying.copy(found, from_life.origin, from_life.run_id, life.run_id, label)
            except (OSError, StorageError) as error:
                why = f"goes on as it was: {source.name}'s checkpoint cannot be copied: {error}"
                self._record(trials.EXPLOITED, trial=trial.name, skipped=why)
                return
            runs[life.run_id] = {
                "path": path,
                "step": step,
                "run_id": from_life.run_id,
                "attempt": life.attempt + 1,
                "watched": from_life.watched.until(step).to_dict(),
            }
        self._record(
            trials.EXPLOITED,
            trial=trial.name,
            source=source.name,
            at=at,
            before=trial.params,
            params=dict(decision.params),
            runs=runs,
        )

    def _redirect(self, trial: Trial, runs: Mapping[str, Mapping[str, Any]], at: int) -> None:
        config = config_of(self.parts[trial.part], trial.params)
        for life in self._lives(trial):
            made = runs[life.run_id]
            origin = Origin(made["path"], int(made["step"]), made["run_id"], int(made["attempt"]))
            life.redirect(origin, config, at, Watched.from_dict(made["watched"]))

    # ---- what comes next -------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Start trials while there is room for them; ask for new ones as late as possible."""
        if self._scheduler.eager:
            while self._suggest():
                pass
        most = self.spec.limits.max_concurrent_trials or math.inf
        for _ in range(ADMITTED_AT_ONCE):
            running = [trial for trial in self.book.live() if trial.state == trials.RUNNING]
            if len(running) >= most or any(life.waits for trial in running for life in self._lives(trial)):
                return
            name = self._scheduler.choose()
            if name is None:
                if not self._suggest():
                    return
                continue
            if not self._at_rest(self.book.trials[name]):
                return
            self._record(trials.STARTED, trial=name)
            self._enforce(self.book.trials[name])
            self.conductor.place()

    def _at_rest(self, trial: Trial) -> bool:
        """Whether nothing is still being done to it: its runs have paused, no checkpoint is being copied from it."""
        copied = any(other.exploit and other.exploit.source == trial.name for other in self.book.live())
        return trial.exploit is None and not copied and not any(life.pausing for life in self._lives(trial))

    def _suggest(self) -> bool:
        if self._exhausted:
            return False
        name = self.book.next_name()
        try:
            suggested = self._searcher.suggest(name)
        except NoConfiguration as error:
            self._note, suggested = str(error), None
        if suggested is None:
            self._exhausted = True
            return False
        self._record(
            trials.SUGGESTED,
            trial=name,
            part=suggested.part,
            worker=self.parts[suggested.part].worker.name,
            params=dict(suggested.params),
            runs=[{"run_id": str(ULID()), "seed": seed} for seed in self.spec.seeds],
        )
        return True

    def _make_lives(self, trial: Trial) -> None:
        part = self.parts[trial.part]
        watch = WatchOrder(self.spec.metric.name, self.rungs)
        config = config_of(part, trial.params)
        for run_id, seed in zip(trial.run_ids, trial.seeds, strict=True):
            plan = run_plan(self.spec, part.worker, run_id, config=config, seed=seed, watch=watch, trial=trial.name)
            life = RunLife(plan, since=self.conductor.now(), held_back=trial.reason, reason=trial.reason)
            self.conductor.adopt(life)


def reading_at(life: RunLife, at: int) -> Reading | None:
    """The first reading at or after ``at``; of a run that completed before, its last one."""
    found = life.watched.rungs.get(at)
    if found is None and life.state == "COMPLETED":
        return life.watched.last
    return found


def plain(value: float) -> float | None:
    """``None`` for what JSON cannot hold."""
    return value if math.isfinite(value) else None
