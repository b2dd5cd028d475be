"""A backend whose runs take no time: the real conductor, journal, searchers and schedulers, and simulated processes.

Its runs follow the same known curve as the curves worker. They write real logs and checkpoints, so that what reads
these is tested with them. Time passes only while somebody waits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_cluster.placement import Answer, ClusterView, NodeView, Request, plan
from mosaic_cluster.runtime.attempt import _goes_on_from, _watched
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, HubOrder, RunProgress
from mosaic_cluster.runtime.searching.tune_schedulers import make_scheduler
from mosaic_cluster.runtime.searching.tune_search import make_searcher
from mosaic_cluster.runtime.workfolder import work_folder_of
from mosaic_cluster.supervision import Outcome
from mosaic_cluster.telemetry import Watch
from mosaic_cluster.telemetry.parse import parse


class Clock:
    """Unix time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class SimHandle:
    """One simulated attempt."""

    def __init__(self, order: AttemptOrder, clock: Clock, broken: Mapping[str, str]) -> None:
        self.order = order
        self.clock = clock
        self.broken = broken
        self.begun = clock()
        self.result: AttemptResult | None = None
        self.asked: tuple[str, str] | None = None
        self.saving = 0
        self.step, self.score = 0, 0.0
        assert order.watch is not None
        self.watch = Watch(order.watch.metric, order.watch.rungs)
        self.log = order.attempt_dir() / "stdout.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        resumed = _goes_on_from(order, work_folder_of(order))
        if resumed is not None:
            saved = json.loads(Path(resumed.path).read_text())
            self.step, self.score = saved["step"], saved["score"]
        start = {
            "resumed_from_attempt": resumed.attempt if resumed else None,
            "resumed_from_offset": resumed.offset if resumed else None,
            "resumed_from_step": resumed.step if resumed else None,
        }
        self._print("attempt_started", start)
        self.resumed_from_step = resumed.step if resumed else None

    def _print(self, event: str, payload: dict[str, Any]) -> None:
        line = {"event": event, "payload": payload, "run_id": self.order.run_id, "timestamp": self.clock()}
        text = json.dumps(line, separators=(",", ":"), sort_keys=True)
        with self.log.open("a") as log:
            log.write(text + "\n")
        self.watch.feed(parse([(0, text.encode())], self.order.run_id, self.order.attempt).tables)

    def advance(self) -> None:
        """One step of training, or the end."""
        config = self.order.config
        if self.order.placement.node_id in self.broken:
            said = self.broken[self.order.placement.node_id]
            code = "start_failed" if "cannot be run" in said else "exit_code"
            self._end("FAILED", code, said, retryable=code == "exit_code")
            return
        if self.order.seed == config.get("fail_seed") or config["quality"] == config.get("fail_quality"):
            self._end("FAILED", "exit_code", "the worker exited with code 1", retryable=True)
            return
        if self.asked is not None and self.saving > 0:
            self.saving -= 1
        elif self.asked is not None:
            self._save()
            code, message = self.asked
            self._end("PAUSED" if code == "paused" else "CANCELLED", code, message)
            return
        gain = config["quality"] + config.get("spread", 0.0) * ((self.order.seed or 0) % 3 - 1)
        while self.step < config["steps"]:
            self.step += 1
            self.score += gain
            broken = config["quality"] < config.get("nan_below", 0.0) or (
                config["quality"] == config.get("nan_quality") and self.step >= config["nan_from"]
            )
            value = math.nan if broken else self.score
            self._print("heartbeat", {"step": self.step, "score": value if math.isfinite(value) else "NaN"})
            if self.step % config.get("stride", 1) == 0:
                break
        self._save()
        if self.step >= config["steps"]:
            self._end("COMPLETED", "completed", "the worker exited with code 0")

    def _save(self) -> None:
        path = self.order.run_dir / "checkpoints" / f"{self.step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"step": self.step, "score": self.score}))
        self._print("checkpoint_saved", {"path": str(path), "step": self.step})

    def _end(self, state: str, code: str, message: str, *, retryable: bool = False) -> None:
        outcome = Outcome(
            state, code, message, started_at=self.begun, ended_at=self.clock(),
            duration=self.clock() - self.begun, last_step=self.step, retryable=retryable,
        )  # fmt: skip
        self.result = AttemptResult(outcome, resumed_from_step=self.resumed_from_step, watched=self.watch.seen())

    def poll(self) -> AttemptResult | None:
        return self.result

    def waiting_reason(self) -> str | None:
        return None

    def stop(self, code: str, message: str) -> None:
        # As a supervisor does: what was asked first is under way, and saving takes a while.
        if self.asked is None:
            self.asked = (code, message)
            self.saving = 2

    def pause(self) -> None:
        self.stop("paused", "frozen")

    def unpause(self) -> None:
        """Nothing is ever frozen here: like a supervisor's, it changes nothing then."""


@dataclass
class SimBackend:
    """Runs attempts in virtual time.

    Attributes:
        slots: CPUs of each node.
        steps: training steps simulated so far, over all runs.
        nodes: their ids.
        broken: nodes on which runs fail, and what they say then.
        leaving: nodes that are being drained.
        started: ids of the nodes that attempts were started on, in order.
    """

    clock: Clock
    slots: int = 4
    name: str = "simulated"
    steps: int = 0
    running: list[SimHandle] = field(default_factory=list)
    most_running: int = 0
    nodes: tuple[str, ...] = ("n",)
    broken: dict[str, str] = field(default_factory=dict)
    leaving: dict[str, float | None] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    searcher = staticmethod(make_searcher)
    scheduler = staticmethod(make_scheduler)

    def view(self) -> ClusterView:
        return ClusterView(tuple(self._node(node) for node in self.nodes), self.clock())

    def _node(self, node: str) -> NodeView:
        taken = sum(
            handle.order.placement.cpus for handle in self.running if handle.order.placement.node_id == node
        )
        return NodeView(
            node, f"node-{node}", draining=node in self.leaving, cpus=float(self.slots),
            cpus_free=float(self.slots - taken), memory=1 << 40, memory_free=1 << 40,
        )  # fmt: skip

    def allocate(
        self, requests: Sequence[Request], *, quarantine: Mapping[str, str] | None = None
    ) -> dict[str, Answer]:
        del quarantine
        answers = plan(requests, self.view()).answers if requests else ()
        return {request.run_id: answer for request, answer in zip(requests, answers, strict=True)}

    def draining(self) -> dict[str, float | None]:
        return dict(self.leaving)

    def open(self, experiment_id: str, experiment_dir: str, hubs: HubOrder) -> None:
        del experiment_id, experiment_dir

    def start(self, order: AttemptOrder) -> SimHandle:
        handle = SimHandle(order, self.clock, self.broken)
        self.started.append(order.placement.node_id)
        self.running.append(handle)
        self.most_running = max(self.most_running, len(self.running))
        return handle

    def finish(self, orders: Sequence[AttemptOrder]) -> list[AttemptResult]:
        outcome = Outcome("FAILED", "actor_lost", "lost with its driver", retryable=True)
        return [AttemptResult(outcome, watched=_watched(order, order.attempt)) for order in orders]

    def progress(self) -> dict[str, RunProgress]:
        return {
            handle.order.run_id: RunProgress(
                "RUNNING", handle.order.attempt, handle.step, watched=handle.watch.seen()
            )
            for handle in self.running
            if handle.result is None
        }

    def wait(self, handles: list[Any], timeout: float) -> None:
        del handles
        self.clock.now += timeout
        for handle in self.running:
            before = handle.step
            handle.advance()
            self.steps += handle.step - before
        self.running = [handle for handle in self.running if handle.result is None]

    def close(self) -> None:
        self.running.clear()
