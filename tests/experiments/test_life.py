"""What each outcome means for a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mosaic_cluster.experiments.life import RunLife, RunPlan
from mosaic_cluster.placement import Placement, Request
from mosaic_cluster.runtime.backend import AttemptResult, RunProgress, WorkerLaunch
from mosaic_cluster.supervision import Limits, Outcome

NOW = 1000.0


def make_life(*, max_failures: int = 1, checkpoints: bool = True) -> RunLife:
    plan = RunPlan(
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        worker=WorkerLaunch("w", "w", True, supports_checkpointing=checkpoints),
        config={},
        seed=1,
        request=Request(run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        limits=Limits(),
        grace=1.0,
        max_failures=max_failures,
    )
    return RunLife(plan, since=NOW)


def result(state: str, *, retryable: bool = True, **more: Any) -> AttemptResult:
    outcome = Outcome(
        state=state,
        code="exit_code",
        message=f"it was {state}",
        exit_code=1,
        signal=None,
        started_at=NOW,
        ended_at=NOW + 5,
        duration=5.0,
        peak_rss=7,
        cpu_seconds=1.0,
        last_step=128,
        stderr_tail=[],
        retryable=retryable,
    )
    return AttemptResult(outcome=outcome, node="n", **more)


class FakeHandle:
    order: Any = None


def begin(life: RunLife) -> None:
    order = life.next_order("e", "/tmp/e", Placement(life.run_id, "id", "node-a", 1.0))
    life.started(order, FakeHandle(), NOW)  # type: ignore[arg-type]


def test_completes() -> None:
    life = make_life()
    begin(life)
    assert (life.state, life.attempt) == ("STARTING", 1)
    life.observe(RunProgress("RUNNING", 1, step=10), NOW + 1)
    assert (life.state, life.since) == ("RUNNING", NOW + 1)
    life.attempt_ended(result("COMPLETED"), NOW + 5)
    assert life.ended
    assert (life.state, life.failures, life.elapsed) == ("COMPLETED", 0, 5.0)
    assert life.to_dict()["step"] == 128  # its result knows more than what was last heard of it


def test_a_long_start_says_why() -> None:
    life = make_life()
    begin(life)
    assert life.reason == "attempt 1 on node-a"
    life.observe(RunProgress("STARTING", 1, starting="builds the environment of w: step 1 of 2, x (3s)"), NOW + 3)
    assert (life.state, life.since) == ("STARTING", NOW)
    assert life.reason == "attempt 1 on node-a: builds the environment of w: step 1 of 2, x (3s)"
    life.observe(RunProgress("RUNNING", 1), NOW + 9)
    assert (life.state, life.reason) == ("RUNNING", "attempt 1 on node-a")


def test_restarts_until_max_failures() -> None:
    life = make_life(max_failures=1)
    begin(life)
    life.attempt_ended(result("FAILED"), NOW)
    assert life.state == "PENDING"
    assert life.not_before > NOW
    assert life.reason == "restarts from its last checkpoint in 1s: it was FAILED"
    begin(life)
    assert life.order is not None
    assert (life.order.attempt, life.order.elapsed_before) == (2, 5.0)
    life.attempt_ended(result("FAILED"), NOW)
    assert life.state == "FAILED"
    assert life.reason == "it was FAILED (attempt 2; limits.max_failures: 1)"


def test_says_that_a_restart_begins_again() -> None:
    life = make_life(checkpoints=False)
    begin(life)
    life.attempt_ended(result("FAILED"), NOW)
    assert "from the beginning (this worker keeps no checkpoints)" in life.reason


def test_what_cannot_be_retried_ends_at_once() -> None:
    life = make_life(max_failures=5)
    begin(life)
    life.attempt_ended(result("FAILED", retryable=False), NOW)
    assert (life.state, life.attempt) == ("FAILED", 1)


def test_a_lost_driver_is_not_the_runs_failure() -> None:
    life = make_life(max_failures=0)
    begin(life)
    life.attempt_ended(result("FAILED"), NOW, counts=False)
    assert (life.state, life.failures) == ("PENDING", 0)


def test_a_failure_while_stopping_is_a_cancellation() -> None:
    life = make_life()
    begin(life)
    life.stop_requested = ("cancelled", "stopped by ada@lab")
    life.attempt_ended(result("FAILED"), NOW)
    assert (life.state, life.reason) == ("CANCELLED", "stopped by ada@lab")


def test_pause_frees_resources_and_keeps_the_count() -> None:
    life = make_life()
    begin(life)
    life.attempt_ended(result("PAUSED"), NOW)
    assert (life.state, life.handle, life.failures) == ("PAUSED", None, 0)
    begin(life)
    assert life.attempt == 2


def test_frozen_runs_keep_their_handle() -> None:
    life = make_life()
    begin(life)
    life.observe(RunProgress("RUNNING", 1), NOW)
    life.observe(RunProgress("PAUSED", 1), NOW)
    assert life.state == "PAUSED"
    assert life.handle is not None
    life.observe(RunProgress("RUNNING", 1), NOW)
    assert life.state == "RUNNING"


def test_news_of_an_earlier_attempt_is_ignored() -> None:
    life = make_life()
    begin(life)
    life.attempt_ended(result("FAILED"), NOW)
    begin(life)
    life.observe(RunProgress("RUNNING", 1, step=5), NOW)
    assert life.state == "STARTING"


@pytest.mark.parametrize(("committed", "left"), [(10, 0), (9, 1)])
def test_a_tail_that_did_not_reach_parquet_is_remembered(committed: int, left: int) -> None:
    life = make_life()
    begin(life)
    life.attempt_ended(result("COMPLETED", committed=committed, log_bytes=10), NOW)
    assert len(life.undrained) == left


def test_standing_still_is_said_while_it_lasts() -> None:
    life = make_life()
    begin(life)
    life.observe(RunProgress("RUNNING", 1, step=1), NOW)
    why = "stands still: 260MiB of telemetry wait for storage"
    life.observe(RunProgress("RUNNING", 1, step=1, stands_still=why, held=0.1), NOW + 1)
    assert (life.state, life.reason, life.since) == ("RUNNING", why, NOW)
    life.observe(RunProgress("RUNNING", 1, step=1, stands_still=why, held=5.0), NOW + 6)
    assert life.to_dict()["stood_still"] == 5.0
    life.observe(RunProgress("PAUSED", 1, step=1, stands_still=why, held=5.0), NOW + 7)
    assert life.reason.startswith("paused")
    life.observe(RunProgress("RUNNING", 1, step=1, stands_still=why, held=5.0), NOW + 8)
    assert life.reason == why
    life.observe(RunProgress("RUNNING", 1, step=2, held=6.0), NOW + 9)
    assert life.reason == "attempt 1 on node-a"
    life.observe(RunProgress("RUNNING", 1, step=2, held=6.0, released=7), NOW + 10)
    assert life.reason == "attempt 1 on node-a; the middle of its log is let go (telemetry.keep_log)"
    ended = result("COMPLETED")
    life.attempt_ended(replace(ended, outcome=replace(ended.outcome, held=6.5)), NOW + 11)
    assert life.to_dict()["stood_still"] == 6.5


def test_what_was_asked_for_is_not_said_over() -> None:
    life = make_life()
    begin(life)
    life.observe(RunProgress("RUNNING", 1), NOW)
    life.stop_requested, life.reason = ("cancelled", "enough"), "is stopping"
    life.observe(RunProgress("RUNNING", 1, stands_still="stands still"), NOW + 1)
    assert life.reason == "is stopping"


def test_a_run_that_is_told_to_stop_before_it_was_seen_running_says_so() -> None:
    life = make_life()
    begin(life)
    life.stop_requested, life.reason = ("cancelled", "enough"), "is stopping"
    life.observe(RunProgress("RUNNING", 1), NOW)
    assert (life.state, life.reason) == ("RUNNING", "is stopping")
