"""Drives the runs of one experiment against a backend: places, starts, follows, restarts, stops them.

Every kind of experiment uses it; its :class:`Story` says which runs there are and when no more will come.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import psutil

from mosaic_cluster.experiments import control
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.journal import Journal
from mosaic_cluster.experiments.life import RunLife, RunPlan
from mosaic_cluster.experiments.manifests import write_experiment_manifest, write_run_manifest
from mosaic_cluster.experiments.nodes import Nodes
from mosaic_cluster.experiments.states import CANCELLED, COMPLETED, FAILED, PAUSED, PENDING, RUNNING, STARTING, TERMINAL
from mosaic_cluster.placement import Infeasible, Placement, Request
from mosaic_cluster.runtime.backend import AttemptResult, Backend, HubOrder
from mosaic_cluster.units import format_duration
from mosaic_cluster.worker.errors import StorageError

STATUS = "status.json"
STATUS_SECONDS = 1.0
CONTROL_SECONDS = 0.5
REMOTE_STATUS_SECONDS, REMOTE_CONTROL_SECONDS = 5.0, 2.0
"""The same for an object store, where each look and each write is a request that may cost money."""
STEP_SECONDS = 0.2
PLACE_SECONDS = 0.5
AFTER_PAUSE = "waiting to be placed again after a pause"
MOST_ASKED = 512
"""Runs that a place is asked for at once; those behind them wait for these first."""

Listener = Callable[[dict[str, Any]], None]


class Story(Protocol):
    """What a kind of experiment adds to the runs that it is made of."""

    def turn(self) -> None:
        """Called at each turn of the loop: add runs, hold them back, stop them."""

    def more(self) -> bool:
        """Whether there is more to come once all present runs have ended."""

    def state(self) -> str | None:
        """The experiment's state once it is over; ``None``: what its runs' states make it."""

    def document(self) -> dict[str, Any]:
        """What the status document says beside the runs."""


class Unchanging:
    """The story of an experiment whose runs are all there from the beginning."""

    def turn(self) -> None:
        """Nothing to do."""

    def more(self) -> bool:
        """Never."""
        return False

    def state(self) -> str | None:
        """As the runs'."""
        return None

    def document(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class Conductor:
    """The driver's loop.

    Args:
        home: the experiment's folder.
        backend: opened by :meth:`begin`, closed by whoever made it.
        hubs: how the telemetry hubs are to be; may be set until :meth:`begin`.
        listener: called with the status document about once a second (every few, if storage is an object store) and
            at each change.
        clock: unix time in seconds.
    """

    def __init__(
        self,
        home: ExperimentHome,
        backend: Backend,
        *,
        hubs: HubOrder | None = None,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.home = home
        self.backend = backend
        self.hubs = hubs or HubOrder()
        self.journal = Journal(home.storage, clock)
        self.lives: dict[str, RunLife] = {}
        self.story: Story = Unchanging()
        self.nodes = Nodes(backend, self.journal, self.lives, clock)
        self.stopping = False
        self.paused = False
        self._listener = listener
        self._clock = clock
        self._record = home.record()
        self._begun = clock()
        local = home.storage.is_local
        self._status_seconds = STATUS_SECONDS if local else REMOTE_STATUS_SECONDS
        self._control_seconds = CONTROL_SECONDS if local else REMOTE_CONTROL_SECONDS
        self._due: dict[str, float] = {}
        self._shown: list[tuple[str, str, str]] = []
        self._stop: tuple[str, str] | None = None
        self._abandon = False
        self._changed = True

    def begin(self) -> None:
        """Say in the journal who drives the experiment, and open the backend for it.

        Raises:
            Fenced: somebody else has taken it up since the journal was looked at.
        """
        self.journal.append("driver_started", driver=driver_identity(), backend=self.backend.name)
        self.publish()
        self.backend.open(self.home.experiment_id, self.home.location, self.hubs)

    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock()

    def add(self, run: RunPlan) -> RunLife:
        """Take a new run."""
        self.journal.append("run_planned", **run.to_dict())
        life = RunLife(run, since=self._clock())
        self.lives[run.run_id] = life
        return life

    def adopt(self, life: RunLife) -> None:
        """Take a run that an earlier driver began."""
        self.lives[life.run_id] = life

    def close_lost_attempts(self, lives: Sequence[RunLife]) -> None:
        """Close the attempts that an earlier driver left open; their loss is not the runs' failure."""
        results = self.backend.finish([life.order for life in lives if life.order is not None])
        for life, result in zip(lives, results, strict=True):
            self._ended(life, result, counts=result.outcome.code not in ("actor_lost", "node_lost"))

    def request_stop(self, code: str, message: str) -> None:
        """Ask every run to stop. Safe to call from a signal handler."""
        self._stop = (code, message)

    def request_abandon(self) -> None:
        """Ask for an end without waiting for any process. Safe to call from a signal handler."""
        self._abandon = True

    def run_to_end(self) -> str:
        """Drive until every run has ended.

        Returns:
            The experiment's final state.

        Raises:
            KeyboardInterrupt: it was asked to be abandoned; :meth:`abandon` says what remains to be done.
        """
        while self._goes_on():
            if self._abandon:
                raise KeyboardInterrupt
            self.step()
        self._finish_tails()
        state = self.state()
        self.journal.append("experiment_ended", state=state)
        self.write_manifest(state)
        self.publish()
        return state

    def abandon(self, reason: str) -> str:
        """Give every run up at once, without waiting for its processes; returns the experiment's state.

        The backend has been closed before: supervisors end what is left and seal the logs.
        """
        self.stopping = True
        for life in self.lives.values():
            if not life.ended:
                life.handle = None
                self._cancel(life, "cancelled", reason)
        state = self.state()
        self.journal.append("experiment_ended", state=state)
        self.publish()
        return state

    def leave(self) -> None:
        """Say that nobody drives the experiment any more, as far as storage can still be reached."""
        try:
            self.journal.append("driver_left")
            self.home.storage.put_json(STATUS, {**self.status_document(), "driver": None})
        except StorageError as error:
            logging.getLogger(__name__).warning("the end of this driver is not on record: %s", error)

    def step(self) -> None:
        """One turn of the loop: at most ``STEP_SECONDS`` of waiting."""
        handles = [life.handle for life in self.lives.values() if life.handle is not None]
        if handles or not self._changed:
            self.backend.wait(handles, STEP_SECONDS)
        self._changed = False
        self._take_requests()
        for life in self.lives.values():
            result = life.handle.poll() if life.handle is not None else None
            if result is not None:
                self._ended(life, result)
        self._observe()
        self.story.turn()
        if self._changed or self._is_due("place", PLACE_SECONDS):
            self.place()
        if self._is_due("status", self._status_seconds) or self._states() != self._shown:
            self.publish()

    def _goes_on(self) -> bool:
        if not all(life.ended for life in self.lives.values()):
            return True
        return not self.stopping and self.story.more()

    def state(self) -> str:
        """The experiment's state, from its story or those of its runs."""
        states = {life.state for life in self.lives.values()}
        if states <= TERMINAL and not self._goes_on():
            told = self.story.state()
            if told is not None:
                return told
            for candidate in (FAILED, CANCELLED):
                if candidate in states:
                    return candidate
            return COMPLETED if states else CANCELLED
        for candidate in (RUNNING, STARTING, PENDING):
            if candidate in states:
                return candidate
        return PAUSED if PAUSED in states else PENDING

    def publish(self) -> None:
        """Write ``status.json`` and tell the listener."""
        self._due["status"] = self._clock()
        self._shown = self._states()
        document = self.status_document()
        self.home.storage.put_json(STATUS, document)
        if self._listener is not None:
            self._listener(document)

    def status_document(self) -> dict[str, Any]:
        """What ``status.json`` says."""
        state = self.state()
        return {
            "experiment_id": self.home.experiment_id,
            "kind": self._record.get("kind"),
            "name": self._record.get("name"),
            "state": state,
            "reason": self._why_cancelled() if state == CANCELLED else "",
            "created_at": self._record.get("created_at"),
            "updated_at": self._clock(),
            "driven_since": self._begun,
            "driver": None if state in TERMINAL else driver_identity(),
            "backend": self.backend.name,
            "quarantine": self.nodes.quarantine.told(),
            "runs": [life.to_dict() for life in self.lives.values()],
            **self.story.document(),
        }

    def _why_cancelled(self) -> str:
        asked = (life.reason for life in self.lives.values() if life.state == CANCELLED and life.code == "cancelled")
        return next(asked, "")

    def _ended(self, life: RunLife, result: AttemptResult, *, counts: bool = True) -> None:
        now = self._clock()
        self._changed = True
        if counts and self.nodes.blamed_for(life, result):
            # The node is to blame, not the run: elsewhere it may start even if here it never could.
            counts, result = False, replace(result, outcome=replace(result.outcome, retryable=True))
        self.journal.append(
            "attempt_ended", run_id=life.run_id, attempt=life.attempt, counts=counts, **result.to_dict()
        )
        left, life.leaving = life.leaving, None
        life.attempt_ended(result, now, counts=counts)
        if life.state == PAUSED and life.paused_by is None and life.held_back is None:
            life.move(PENDING, f"waits for another place: {left}" if left else AFTER_PAUSE, now)
        if life.ended:
            self._close_run(life)
        elif life.stop_requested is not None:  # told to stop while it was pausing or failing
            self._cancel(life, *life.stop_requested)

    def _close_run(self, life: RunLife) -> None:
        self.journal.append("run_ended", run_id=life.run_id, state=life.state, reason=life.reason, code=life.code)
        write_run_manifest(self.home, life)
        if self._is_due("manifest", 10.0):
            self.write_manifest()

    def write_manifest(self, state: str | None = None) -> None:
        """Write the experiment's index; ``state``: its state, where that is known."""
        state = self.state() if state is None else state
        lives = list(self.lives.values())
        write_experiment_manifest(self.home, self._record, lives, state, self.story.document())

    def _cancel(self, life: RunLife, code: str, reason: str) -> None:
        """End a run that has no process."""
        life.code = code
        life.move(CANCELLED, reason, self._clock())
        self._close_run(life)

    def _observe(self) -> None:
        now = self._clock()
        for run_id, progress in self.backend.progress().items():
            life = self.lives.get(run_id)
            if life is not None:
                life.observe(progress, now)
        for life in self.lives.values():
            why = life.handle.waiting_reason() if life.handle and life.state == STARTING else None
            if why:
                life.reason = why

    def place(self) -> None:
        """Start every run that waits for a place and gets one; the others learn why they wait."""
        now = self._clock()
        self._due["place"] = now
        self.nodes.leave_draining()
        ready = [life for life in self.lives.values() if life.waits and life.not_before <= now]
        asked, later = ready[:MOST_ASKED], ready[MOST_ASKED:]
        answers = self.backend.allocate(
            [self._request(life) for life in asked], quarantine=self.nodes.quarantine.reasons
        )
        for life in asked:
            answer = answers.get(life.run_id)
            if isinstance(answer, Placement):
                self._start(life, answer)
            elif answer is not None:
                life.reason = "; ".join(answer.reasons)
                never = isinstance(answer, Infeasible) and not self.nodes.relents(life)
                if never and life.cannot_grow(answer.reasons, now):
                    self._close_run(life)
        for life in later:
            life.reason = f"{MOST_ASKED} runs of this experiment wait before it"

    def _request(self, life: RunLife) -> Request:
        """What a run asks for now."""
        request = life.plan.request
        return replace(
            request,
            experiment=self.home.experiment_id,
            since=life.since,
            avoid=tuple(self.nodes.quarantine.nodes),
            # One that comes back does not wait for those that never went.
            gang="" if life.attempt else request.gang,
            duration=None if request.duration is None else max(0.0, request.duration - life.elapsed),
        )

    def _start(self, life: RunLife, placement: Placement) -> None:
        order = life.next_order(self.home.experiment_id, self.home.location, placement)
        self.journal.append(
            "attempt_started",
            run_id=life.run_id,
            attempt=order.attempt,
            placement=placement.to_dict(),
            elapsed_before=order.elapsed_before,
        )
        life.started(order, self.backend.start(order), self._clock())

    def _take_requests(self) -> None:
        if self._stop is not None:
            (code, message), self._stop = self._stop, None
            self.stopping = True
            for life in self.lives.values():
                self.stop_run(life, code, message)
        if not self._is_due("control", self._control_seconds):
            return
        for request in control.waiting(self.home.storage):
            self.journal.append("request", verb=request.verb, runs=list(request.runs), by=request.by)
            chosen = [life for life in self.lives.values() if not request.runs or life.run_id in request.runs]
            if not request.runs:
                self.stopping |= request.verb == "stop"
                self.paused = request.verb == "pause" or (self.paused and request.verb != "unpause")
            for life in chosen:
                self._obey(life, request)
            control.taken(self.home.storage, request)

    def _obey(self, life: RunLife, request: control.Request) -> None:
        if request.verb == "stop":
            self.stop_run(life, "cancelled", f"stopped by {request.by}")
        elif request.verb == "pause" and not life.ended:
            self._pause_run(life, request.by)
        elif request.verb == "unpause" and not life.ended:
            self._unpause_run(life)

    def stop_run(self, life: RunLife, code: str, message: str) -> None:
        """End one run: it is told to checkpoint and stop, and is CANCELLED for this reason."""
        if life.ended:
            return
        life.stop_requested = (code, message)
        if life.handle is None:
            self._cancel(life, code, message)
        else:
            life.handle.stop(code, message)
            life.reason = f"is stopping, with {format_duration(life.plan.grace)} to save its work: {message}"

    def _pause_run(self, life: RunLife, by: str) -> None:
        if life.paused_by is not None:
            return
        life.paused_by = by
        if life.handle is None:
            why = "before it was started" if life.attempt == 0 else "while it waited"
            life.move(PAUSED, f"paused by {by} {why}", self._clock())
        elif life.plan.worker.supports_pause_resume:
            life.handle.stop("paused", f"paused by {by}")
        else:
            life.handle.pause()

    def _unpause_run(self, life: RunLife) -> None:
        if life.paused_by is None:
            return
        life.paused_by = None
        if life.handle is not None:
            life.handle.unpause()  # one that is just saving its work goes on once that is done
        elif life.state == PAUSED:
            life.move(PENDING, life.held_back or AFTER_PAUSE, self._clock())

    def hold_back(self, life: RunLife, why: str) -> None:
        """Keep a run from running for the experiment's own reasons; one that runs saves its work and ends."""
        if life.ended or life.stop_requested is not None:
            return
        life.held_back = why
        if life.handle is not None and not life.pausing:
            life.pausing = True
            life.handle.stop("paused", why)
        elif life.handle is None and life.state == PENDING:
            life.reason = why

    def let_go(self, life: RunLife) -> None:
        """Take :meth:`hold_back` back. A run whose process is just ending goes on once it has."""
        if life.held_back is None or life.handle is not None:
            if not life.pausing:
                life.held_back = None
            return
        life.held_back = None
        if life.state == PAUSED and life.paused_by is None:
            life.move(PENDING, "waiting to be placed again", self._clock())

    def _finish_tails(self) -> None:
        """Bring to Parquet what the hub was away for when an attempt ended."""
        late = [(life, order) for life in self.lives.values() for order in life.undrained]
        results = self.backend.finish([order for _, order in late])
        for (life, order), result in zip(late, results, strict=True):
            if life.tail_ended(order.attempt, result) and life.ended:
                write_run_manifest(self.home, life)

    def _states(self) -> list[tuple[str, str, str]]:
        return [(life.run_id, life.state, life.reason) for life in self.lives.values()]

    def _is_due(self, what: str, seconds: float) -> bool:
        now = self._clock()
        if now - self._due.get(what, 0.0) < seconds:
            return False
        self._due[what] = now
        return True


def driver_identity() -> dict[str, Any]:
    """Host, process id and start time: enough to say later whether this very process still lives."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }
