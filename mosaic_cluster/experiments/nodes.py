"""What an experiment makes of its nodes: it leaves those that are drained, and keeps off those that break its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mosaic_cluster.experiments.journal import Journal
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.experiments.quarantine import EARLY_SECONDS, QUARANTINED, RELEASED, Failure, Quarantine
from mosaic_cluster.experiments.states import FAILED, RUNNING
from mosaic_cluster.placement import Infeasible, plan
from mosaic_cluster.runtime.backend import AttemptResult, Backend


class Nodes:
    """The nodes that the runs of one experiment are on.

    Args:
        lives: its runs, by id.
        clock: unix time in seconds.
    """

    def __init__(
        self, backend: Backend, journal: Journal, lives: Mapping[str, RunLife], clock: Callable[[], float]
    ) -> None:
        self.quarantine = Quarantine()
        self._backend = backend
        self._journal = journal
        self._lives = lives
        self._clock = clock

    def leave_draining(self) -> None:
        """Runs on nodes that are about to go save their work while they can, and go on elsewhere."""
        running = [life for life in self._lives.values() if life.handle is not None]
        draining = self._backend.draining() if running else {}
        for life in running:
            if life.order is None or life.order.placement.node_id not in draining:
                continue
            if life.leaving is None and life.stop_requested is None and life.handle is not None:
                life.leaving = f"node {life.order.placement.node_name} is being drained"
                if life.plan.worker.supports_checkpointing:
                    life.handle.stop("paused", life.leaving)
                    life.reason = f"saves its work and moves: {life.leaving}"
                else:
                    life.reason = f"{life.leaving}; this worker keeps no checkpoints, so it runs on until the node goes"

    def blamed_for(self, life: RunLife, result: AttemptResult) -> bool:
        """Whether an attempt failed for its node's sake, and not its own; the node may be kept off from now on."""
        outcome, order = result.outcome, life.order
        if order is None:
            return False
        if outcome.code == "node_lost":
            return True
        node_id = order.placement.node_id
        if outcome.state != FAILED:
            self.quarantine.went_well(node_id)
            return False
        if not outcome.retryable and outcome.code not in ("start_failed", "environment_failed"):
            return False
        if outcome.duration >= EARLY_SECONDS or self._others_live_on(node_id):
            self.quarantine.went_well(node_id)
        now = self._clock()
        failure = Failure.of(life.run_id, life.plan.worker.name, node_id, order.placement.node_name, outcome, now)
        verdict = self.quarantine.failed(failure, elsewhere=self._fits_elsewhere(life, node_id))
        for each in verdict.released:
            self._journal.append(RELEASED, node_id=each.node_id, reason="the same failure came on another node")
        if verdict.kept is not None:
            # This failure is not counted in the first place, what it did to earlier attempts is taken back.
            forgiven = {**verdict.kept.forgiven, life.run_id: verdict.kept.forgiven[life.run_id] - 1}
            self._journal.append(QUARANTINED, **verdict.kept.to_dict(), forgiven=forgiven)
            for run_id, count in forgiven.items():
                self._lives[run_id].forgive(count)
        return verdict.blamed

    def relents(self, life: RunLife) -> bool:
        """Use the nodes that are kept off again, if only they could hold a run: better a bad node than none."""
        kept = list(self.quarantine.nodes)
        request = replace(life.plan.request, gang="")
        if not kept or isinstance(plan([request], self._backend.view()).answers[0], Infeasible):
            return False
        for node_id in kept:
            self.quarantine.release(node_id)
            self._journal.append(RELEASED, node_id=node_id, reason="no other node is left that could hold a run")
        return True

    def _others_live_on(self, node_id: str) -> bool:
        """Whether a run on a node has got beyond its first minute."""
        now = self._clock()
        on_it = [life for life in self._lives.values() if life.order and life.order.placement.node_id == node_id]
        return any(life.state == RUNNING and now - life.since >= EARLY_SECONDS for life in on_it)

    def _fits_elsewhere(self, life: RunLife, node_id: str) -> bool:
        """Whether a run could ever run on a node that is not kept off, and is not this one."""
        request = replace(life.plan.request, gang="", avoid=(*self.quarantine.nodes, node_id))
        return not isinstance(plan([request], self._backend.view()).answers[0], Infeasible)
