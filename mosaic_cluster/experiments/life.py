"""One run's life: its attempts, its state, and what each outcome means for it. Pure: no I/O, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mosaic_cluster.experiments.growing import Grown, Growth, grow, suggested
from mosaic_cluster.experiments.states import CANCELLED, FAILED, PAUSED, PENDING, RUNNING, STARTING, TERMINAL
from mosaic_cluster.placement import Placement, Request
from mosaic_cluster.runtime.backend import (
    AttemptOrder,
    AttemptResult,
    Handle,
    Origin,
    RunProgress,
    WatchOrder,
    WorkerLaunch,
)
from mosaic_cluster.supervision import Limits, Outcome, Room
from mosaic_cluster.telemetry import Watched
from mosaic_cluster.units import format_duration

RESTART_DELAY = 1.0


@dataclass(frozen=True)
class RunPlan:
    """One run as it was decided: what, with which config and seed, on what terms.

    Attributes:
        request: what it needs of a node.
        max_failures: failures after which the run is FAILED: 0 means the first one is the last.
        watch: the metric it is judged by, where somebody judges it on the way.
        trial: the trial it belongs to.
        room: what its output may take.
        on_oom: what it gets when it ran out of memory; ``None``: it has FAILED.
    """

    run_id: str
    worker: WorkerLaunch
    config: Mapping[str, Any]
    seed: int | None
    request: Request
    limits: Limits
    grace: float
    max_failures: int
    environment: Mapping[str, str] = field(default_factory=dict)
    watch: WatchOrder | None = None
    trial: str | None = None
    room: Room = field(default_factory=Room)
    on_oom: Growth | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the journal keeps of it; the rest follows from the spec."""
        return {"run_id": self.run_id, "worker": self.worker.name, "config": dict(self.config), "seed": self.seed}


@dataclass
class RunLife:
    """State of one run.

    Attributes:
        state: PENDING, STARTING, RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED.
        reason: one sentence saying why it is in that state.
        since: unix time it entered the state, in seconds.
        attempt: number of the current or last attempt; 0 before the first.
        failures: failed attempts so far.
        elapsed: running seconds of all ended attempts.
        code: what ended it, in one word; see :class:`mosaic_cluster.supervision.Outcome`.
        held: paused with its processes frozen and its resources still taken.
        held_back: why it is not to run now although nobody paused it; ``None`` where it may.
        paused_by: who paused it.
        leaving: why it is to leave its node; ``None`` where it is not.
        not_before: unix time before which no new attempt is made.
        origin: another run's checkpoint that it goes on from.
        lineage: all such, in order, with its settings before and since.
        watched: what was seen of the metric it is judged by.
        metrics: latest value of each metric of the last attempt that ended; events: of that attempt.
        growths: how often it got more memory.
        more: what it got instead of what, the last time.
        outgrown: why it got more memory, until it runs with that; ``None``: it need not.
    """

    plan: RunPlan
    since: float
    state: str = PENDING
    reason: str = "waiting to be placed"
    attempt: int = 0
    failures: int = 0
    elapsed: float = 0.0
    code: str | None = None
    held: bool = False
    held_back: str | None = None
    pausing: bool = False
    paused_by: str | None = None
    leaving: str | None = None
    not_before: float = 0.0
    origin: Origin | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)
    watched: Watched = field(default_factory=Watched)
    metrics: Mapping[str, float] = field(default_factory=dict)
    events: int = 0
    growths: int = 0
    more: str = ""
    outgrown: str | None = None
    handle: Handle | None = None
    order: AttemptOrder | None = None
    progress: RunProgress | None = None
    stop_requested: tuple[str, str] | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    undrained: list[AttemptOrder] = field(default_factory=list)
    _watched_before: Watched = field(default_factory=Watched)

    @property
    def run_id(self) -> str:
        """ULID of the run."""
        return self.plan.run_id

    @property
    def ended(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state in TERMINAL

    @property
    def waits(self) -> bool:
        """Whether it waits for a place that it may take now."""
        return self.state == PENDING and self.held_back is None

    def move(self, state: str, reason: str, now: float) -> None:
        """Enter ``state``; staying in it keeps ``since``."""
        if state != self.state:
            self.since = now
        self.state, self.reason = state, reason

    def next_order(self, experiment_id: str, experiment_dir: str, placement: Placement) -> AttemptOrder:
        """The order for the next attempt. Does not change the life: the journal comes first."""
        return AttemptOrder(
            experiment_id=experiment_id,
            experiment_dir=experiment_dir,
            run_id=self.run_id,
            attempt=self.attempt + 1,
            worker=self.plan.worker,
            config=self.plan.config,
            seed=self.plan.seed,
            placement=placement,
            limits=self.plan.limits,
            grace=self.plan.grace,
            environment=self.plan.environment,
            elapsed_before=self.elapsed,
            watch=self.plan.watch,
            origin=self.origin,
            room=self.plan.room,
        )

    def redirect(self, origin: Origin, config: Mapping[str, Any], at: int, inherited: Watched) -> None:
        """Go on from another run's checkpoint, with other settings, from the next attempt on.

        Args:
            at: rung at which that was decided; what the run reached beyond it no longer counts.
            inherited: what the other run had reached up to that checkpoint, which does.
        """
        self.watched = self._watched_before = self.watched.upto(at).then(inherited)
        self.lineage.append({**asdict(origin), "before": dict(self.plan.config), "config": dict(config)})
        self.origin = origin
        self.plan = replace(self.plan, config=dict(config))

    def started(self, order: AttemptOrder, handle: Handle, now: float) -> None:
        """An attempt has been handed to the backend."""
        self.attempt, self.order, self.handle, self.progress = order.attempt, order, handle, None
        self._watched_before = self.watched
        self.outgrown = None
        self.move(STARTING, f"attempt {order.attempt} on {order.placement.node_name}", now)

    def observe(self, progress: RunProgress, now: float) -> None:
        """Take news of the running attempt."""
        if progress.attempt != self.attempt or self.handle is None:
            return
        before, self.progress = self.progress, progress
        if progress.watched is not None:
            self.watched = self._watched_before.then(progress.watched)
        if progress.state == PAUSED:
            self.held = True
            self.move(PAUSED, "paused: its processes are frozen and keep their resources", now)
        elif progress.state == RUNNING and self.state in (STARTING, PAUSED):
            self.held = False
            # A run that was told to stop before it was seen running says that it is stopping.
            stops = self.reason if self.stop_requested is not None else None
            self.move(RUNNING, stops or progress.stands_still or self.where(), now)
        elif progress.state == STARTING == self.state and self.stop_requested is None and progress.starting:
            self.reason = f"{self.where()}: {progress.starting}"
        elif self.state == RUNNING and self.stop_requested is None and before is not None and _news(before, progress):
            self.reason = progress.stands_still or self.where()

    def where(self) -> str:
        """Attempt and node, for people."""
        node = self.order.placement.node_name if self.order else "an unknown node"
        text = f"attempt {self.attempt} on {node}" + (f" with {self.more}" if self.more else "")
        if self.progress is not None and self.progress.resumed_from_step:
            text += f", continued from step {self.progress.resumed_from_step:,}"
        if self.progress is not None and self.progress.released:
            text += "; the middle of its log is let go (telemetry.keep_log)"
        return text

    def stood_still(self) -> float:
        """Seconds that its attempts stood still because their telemetry found no room."""
        now = self.progress.held if self.progress is not None and self.handle is not None else 0.0
        return now + sum(float(each["outcome"].get("held", 0.0)) for each in self.attempts)

    def attempt_ended(self, result: AttemptResult, now: float, *, counts: bool = True) -> None:
        """Take an attempt's result and decide what follows.

        Args:
            result: how it ended.
            now: unix time in seconds.
            counts: whether a failure counts against ``max_failures``.
        """
        outcome = result.outcome
        self.code = outcome.code
        self.metrics, self.events = dict(result.metrics), result.events
        if result.watched is not None:
            self.watched = self._watched_before.then(result.watched)
        self._watched_before = self.watched
        self.attempts.append({"attempt": self.attempt, **result.to_dict()})
        self.elapsed += outcome.duration
        if result.committed < result.log_bytes and self.order is not None:
            self.undrained.append(self.order)
        self.handle, self.held, self.pausing, self.outgrown = None, False, False, None
        if outcome.state == FAILED:
            self._failed(result, now, counts)
        elif outcome.state == PAUSED:
            why = self.held_back or "paused at its last checkpoint; its resources are free"
            self.move(PAUSED, why, now)
        else:
            self.move(outcome.state, outcome.message, now)

    def forgive(self, count: int) -> None:
        """Failures that were not its own do not count against ``max_failures``."""
        self.failures = max(0, self.failures - count)

    def tail_ended(self, attempt: int, result: AttemptResult) -> bool:
        """Take what closing an ended attempt once more found; whether that is news."""
        for each in self.attempts:
            if each["attempt"] == attempt:
                before = dict(each)
                each["committed"], each["log_bytes"] = result.committed, result.log_bytes
                each["outcome"] = result.outcome.to_dict()
                each["unsent"] = result.unsent
                return each != before
        return False

    def telemetry_lost(self) -> dict[int, int]:
        """For each attempt whose log is gone with its node's disk: from which byte on its telemetry is missing."""
        found = {each["attempt"]: each["outcome"].get("telemetry_lost_from") for each in self.attempts}
        return {attempt: at for attempt, at in found.items() if at is not None}

    def _failed(self, result: AttemptResult, now: float, counts: bool) -> None:
        outcome = result.outcome
        grown = self._grown(outcome) if self.stop_requested is None else None
        # One that gets more does not fail for the same reason again.
        self.failures += 1 if counts and not isinstance(grown, Grown) else 0
        if self.stop_requested is not None:
            self.move(CANCELLED, self.stop_requested[1], now)
        elif not outcome.retryable and not isinstance(grown, Grown):
            self.move(FAILED, f"{outcome.message} ({grown})" if grown else outcome.message, now)
        elif self.failures > self.plan.max_failures and not isinstance(grown, Grown):
            again = f" (attempt {self.attempt}; limits.max_failures: {self.plan.max_failures})"
            self.move(FAILED, outcome.message + again, now)
        elif self.paused_by is not None:
            why = f"paused by {self.paused_by}; its attempt failed meanwhile: {outcome.message}"
            self.move(PAUSED, why, now)
        else:
            how = (
                "from its last checkpoint"
                if self.plan.worker.supports_checkpointing
                else "from the beginning (this worker keeps no checkpoints)"
            )
            # Soon if it was not to blame, but not in a hurry if that goes on.
            often = self.failures if counts else min(len(self.attempts), 30)
            delay = RESTART_DELAY * (1 if isinstance(grown, Grown) else often)
            self.not_before = now + delay
            when = f"with {grown.words}" if isinstance(grown, Grown) else f"in {format_duration(delay)}"
            self.move(PENDING, f"restarts {how} {when}: {outcome.message}", now)

    def _grown(self, outcome: Outcome) -> Grown | str | None:
        """Take more memory, if that ran out; why not, if it may not have more."""
        growth = self.plan.on_oom
        if growth is None:
            return None
        had = self.order.placement if self.order is not None else None
        grown = grow(self.plan.request, self.plan.limits, had, outcome, growth)
        if isinstance(grown, Grown):
            if self.growths >= growth.most:
                return f"it got more {self.growths} times already; on_oom.max: {growth.most}"
            self.growths, self.more = self.growths + 1, grown.words
            self.plan = replace(self.plan, request=grown.request, limits=grown.limits)
            self.outgrown = f"{outcome.message}; with {grown.words}"
        return grown

    def cannot_grow(self, reasons: Sequence[str], now: float) -> bool:
        """Take that no node could ever run it. If that is so since it got more memory, it has FAILED.

        Args:
            reasons: why none could.

        Returns:
            Whether it has FAILED.
        """
        if self.outgrown is None:
            return False
        self.code = "out_of_memory"
        self.move(FAILED, f"{self.outgrown} it can never run on this cluster: {'; '.join(reasons)}", now)
        return True

    def peak(self, name: str) -> int | None:
        """Most that any of its attempts was seen to use: ``peak_rss`` or ``peak_gpu_memory``; ``None``: not known."""
        found = [each["outcome"].get(name) for each in self.attempts]
        if self.progress is not None and self.handle is not None:
            found.append(getattr(self.progress, name))
        return max((value for value in found if value is not None), default=None)

    def memory(self) -> dict[str, Any]:
        """Memory used at most, beside what is declared, and what to declare: bytes, by kind of memory."""
        peaks = {"memory": self.peak("peak_rss"), "gpu_memory": self.peak("peak_gpu_memory")}
        request = self.plan.request
        # One that failed for another reason may never have come to use what it needs.
        telling = self.ended and (self.state != FAILED or self.code == "out_of_memory")
        return {
            "peak": peaks,
            "declared": {"memory": request.memory, "gpu_memory": request.gpu_memory},
            "suggested": {name: suggested(peak) for name, peak in peaks.items() if peak and telling},
        }

    def warnings(self) -> list[str]:
        """What was noticed of the present attempt, or the last one, and changes nothing."""
        if self.handle is not None:
            return list(self.progress.warnings) if self.progress is not None else []
        return list(self.attempts[-1]["outcome"].get("warnings", ())) if self.attempts else []

    def to_dict(self) -> dict[str, Any]:
        """One entry of ``status.json``."""
        # Of an attempt that ended, its result knows more than what was last heard of it on the way.
        progress = self.progress if self.handle is not None or not self.attempts else None
        last = self.attempts[-1]["outcome"] if self.attempts else {}
        warnings = self.warnings()
        lost = {str(attempt): at for attempt, at in self.telemetry_lost().items()}
        unsent = sorted({name for each in self.attempts for name in each.get("unsent", ())})
        return {
            "run_id": self.run_id,
            "worker": self.plan.worker.name,
            "seed": self.plan.seed,
            **({} if self.plan.trial is None else {"trial": self.plan.trial}),
            "state": self.state,
            "reason": self.reason,
            "code": self.code if self.ended else None,
            "since": self.since,
            "attempt": self.attempt,
            "failures": self.failures,
            "node": self.order.placement.node_name if self.order else None,
            "step": progress.step if progress and progress.step is not None else last.get("last_step"),
            "metrics": _plain(progress.metrics if progress else self.metrics),
            "events": progress.events if progress else self.events,
            "peak_rss": self.peak("peak_rss") or 0,
            "memory": self.memory(),
            "elapsed": self.elapsed,
            "stood_still": round(self.stood_still(), 1),
            **({"growths": self.growths} if self.growths else {}),
            **({"warnings": warnings} if warnings else {}),
            **({"telemetry_lost_from": lost} if lost else {}),
            **({"unsent": unsent} if unsent else {}),
        }


def _news(before: RunProgress, now: RunProgress) -> bool:
    """Whether there is something else to say of a run that goes on."""
    return before.stands_still != now.stands_still or (before.released > 0) != (now.released > 0)


def _plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """``None`` for what JSON cannot hold."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
