"""What a run gets after it ran out of memory, and what is suggested once its use was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from hypothesis import given
from hypothesis import strategies as st

from mosaic_cluster.app.progress import Progress, memory_lines
from mosaic_cluster.experiments.growing import Grown, Growth, grow, nice, suggested
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.life import RunLife, RunPlan
from mosaic_cluster.experiments.replay import Replay
from mosaic_cluster.placement import Placement, Request
from mosaic_cluster.runtime.backend import AttemptResult, RunProgress, WorkerLaunch
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits, Outcome
from mosaic_cluster.units import format_bytes, parse_bytes

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = 1000.0
GIB = 1 << 30


def oom(exhausted: str | None = "memory", **more: Any) -> Outcome:
    settings: dict[str, Any] = {"peak_rss": 11 * GIB, "peak_gpu_memory": 21 * GIB, "duration": 5.0, **more}
    return Outcome("FAILED", "out_of_memory", "it ran out", exhausted=exhausted, **settings)


def make_life(*, on_oom: Growth | None = Growth(1.5, 2), max_failures: int = 0, **request: Any) -> RunLife:  # noqa: B008
    plan = RunPlan(
        run_id=RUN,
        worker=WorkerLaunch("w", "w", True, supports_checkpointing=True),
        config={},
        seed=1,
        request=Request(RUN, **{"memory": 10 * GIB, **request}),
        limits=Limits(memory=10 * GIB),
        grace=1.0,
        max_failures=max_failures,
        on_oom=on_oom,
    )
    return RunLife(plan, since=NOW)


class FakeHandle:
    order: Any = None


def attempt(life: RunLife, outcome: Outcome) -> None:
    request = life.plan.request
    place = Placement(RUN, "id", "node-a", 1.0, memory=request.memory, gpu_memory=request.gpu_memory)
    life.started(life.next_order("e", "/tmp/e", place), FakeHandle(), NOW)  # type: ignore[arg-type]
    life.attempt_ended(AttemptResult(outcome=outcome, node="node-a"), NOW)


def test_a_run_out_of_memory_restarts_with_more_and_never_with_the_same() -> None:
    life = make_life()
    attempt(life, oom())
    assert (life.state, life.failures, life.growths) == ("PENDING", 0, 1)
    assert life.reason == "restarts from its last checkpoint with 15GiB instead of 10GiB of memory: it ran out"
    assert (life.plan.request.memory, life.plan.limits.memory) == (15 * GIB, 15 * GIB)
    attempt(life, oom())
    assert (life.state, life.plan.request.memory) == ("PENDING", int(22.5 * GIB))
    attempt(life, oom())
    assert (life.state, life.attempt) == ("FAILED", 3)
    assert life.reason == "it ran out (it got more 2 times already; on_oom.max: 2)"


def test_without_on_oom_it_has_failed() -> None:
    life = make_life(on_oom=None, max_failures=5)
    attempt(life, oom())
    assert (life.state, life.reason, life.attempt) == ("FAILED", "it ran out", 1)


def test_only_the_gpu_memory_grows_if_that_ran_out() -> None:
    life = make_life(gpus=1, gpu_memory=20 * GIB)
    attempt(life, oom("gpu_memory"))
    assert "with 30GiB instead of 20GiB of GPU memory" in life.reason
    assert (life.plan.request.gpu_memory, life.plan.request.memory) == (30 * GIB, 10 * GIB)
    assert (life.plan.limits.expected_gpu_memory, life.plan.limits.gpu_memory) == (30 * GIB, None)


def test_other_failures_still_count() -> None:
    life = make_life(max_failures=1)
    attempt(life, Outcome("FAILED", "exit_code", "bad luck", retryable=True))
    attempt(life, oom())
    assert (life.failures, life.growths, life.state) == (1, 1, "PENDING")
    attempt(life, Outcome("FAILED", "exit_code", "bad luck", retryable=True))
    assert life.state == "FAILED"


def test_a_grown_request_that_fits_nowhere_fails_with_both_reasons() -> None:
    life = make_life()
    assert not life.cannot_grow(["no node has 10GiB"], NOW)
    attempt(life, oom())
    assert life.cannot_grow(["memory 15GiB: the largest node has 12GiB"], NOW)
    assert (life.state, life.code) == ("FAILED", "out_of_memory")
    assert life.reason == (
        "it ran out; with 15GiB instead of 10GiB of memory it can never run on this cluster: "
        "memory 15GiB: the largest node has 12GiB"
    )


def test_one_that_runs_with_more_only_waits_later() -> None:
    life = make_life()
    attempt(life, oom())
    attempt(life, Outcome("PAUSED", "paused", "paused"))
    assert life.where() == "attempt 2 on node-a with 15GiB instead of 10GiB of memory"
    assert not life.cannot_grow(["its node is away"], NOW)
    assert life.plan.request.memory == 15 * GIB


def test_stopped_and_paused_while_it_ran_out() -> None:
    life = make_life()
    life.stop_requested = ("cancelled", "enough")
    attempt(life, oom())
    assert (life.state, life.growths) == ("CANCELLED", 0)
    life = make_life()
    life.paused_by = "ada"
    attempt(life, oom())
    assert (life.state, life.plan.request.memory) == ("PAUSED", 15 * GIB)


def test_a_replay_grows_alike(tmp_path: Path) -> None:
    live = make_life()
    attempt(live, oom())
    attempt(live, oom())
    home = ExperimentHome.create(Storage.open(tmp_path), "e", {})
    replay = Replay(home, NOW)
    replay.lives[RUN] = make_life()
    for number, had in enumerate((10 * GIB, 15 * GIB), 1):
        place = Placement(RUN, "id", "node-a", 1.0, memory=had).to_dict()
        result = AttemptResult(outcome=oom(), node="node-a").to_dict()
        for entry in (
            {"type": "attempt_started", "run_id": RUN, "attempt": number, "placement": place},
            {"type": "attempt_ended", "run_id": RUN, "attempt": number, **result},
        ):
            replay.take(json.loads(json.dumps(entry)))
    again = replay.lives[RUN]
    assert again.plan == live.plan
    assert (again.growths, again.state, again.outgrown) == (live.growths, live.state, live.outgrown)


@pytest.mark.parametrize(
    ("request_", "outcome", "expected"),
    [
        (Request(RUN, memory=None), oom(), "17GiB instead of 11GiB of memory"),
        (Request(RUN, gpus=1, whole_gpus=True), oom("gpu_memory"), "32GiB instead of 21GiB of GPU memory"),
        (Request(RUN, memory=40 * GIB), oom(), "40GiB instead of 10GiB of memory"),
        (Request(RUN), oom("gpu_memory"), "it has no GPU that it could have more of"),
        (Request(RUN), oom(peak_rss=0), "nothing says how much memory it had: give resources.memory"),
        (Request(RUN, memory=GIB), oom(None), None),
        (Request(RUN, memory=GIB), Outcome("FAILED", "exit_code", "x", exhausted="memory"), None),
    ],
)
def test_what_it_gets(request_: Request, outcome: Outcome, expected: str | None) -> None:
    # The spec may ask for more by now than the attempt had.
    had = Placement(RUN, "id", "node", 1.0, memory=10 * GIB if request_.memory == 40 * GIB else None)
    found = grow(request_, Limits(), had, outcome, Growth(1.5, 1))
    assert (found.words if isinstance(found, Grown) else found) == expected
    if isinstance(found, Grown):
        assert replace(found.request, memory=None, gpu_memory=None) == replace(request_, memory=None, gpu_memory=None)


@pytest.mark.parametrize(
    ("peak", "expected"),
    [("1B", "64MiB"), ("300MiB", "384MiB"), ("3.1GiB", "3.75GiB"), ("22.3GiB", "27GiB"), ("70GiB", "84GiB")],
)
def test_suggestions(peak: str, expected: str) -> None:
    assert format_bytes(suggested(parse_bytes(peak))) == expected


@given(st.integers(1, 1 << 45))
def test_a_suggestion_is_enough_and_not_much_more(peak: int) -> None:
    found = suggested(peak)
    assert peak * 1.2 <= found <= max(128 << 20, peak * 1.2 * 1.51)
    assert nice(found) == found


def test_the_status_shows_use_beside_what_is_declared() -> None:
    life = make_life(gpus=1, gpu_memory=20 * GIB)
    attempt(life, oom("gpu_memory", peak_rss=2 * GIB))
    attempt(life, replace(oom(), state="COMPLETED", code="completed", peak_rss=GIB, warnings=["used more"]))
    entry = life.to_dict()
    assert entry["memory"] == {
        "peak": {"memory": 2 * GIB, "gpu_memory": 21 * GIB},
        "declared": {"memory": 10 * GIB, "gpu_memory": 30 * GIB},
        "suggested": {"memory": parse_bytes("2.5GiB"), "gpu_memory": 26 * GIB},
    }
    assert (entry["growths"], entry["warnings"]) == (1, ["used more"])
    status = {"experiment_id": "e", "state": "COMPLETED", "runs": [entry]}
    assert memory_lines(status) == [
        "w: memory: 2GiB used at most, 10GiB declared; suggested: memory: 2.5GiB",
        "w: GPU memory: 21GiB used at most, 30GiB declared; suggested: gpu_memory: 26GiB",
    ]
    (row,) = Progress.from_status(status, NOW).rows
    assert row.peak_memory == "2GiB + 21GiB GPU"
    assert row.words.endswith("(used more)")


def test_nothing_is_suggested_by_a_run_that_goes_on_or_failed_at_once() -> None:
    life = make_life()
    place = Placement(RUN, "id", "node-a", 1.0)
    life.started(life.next_order("e", "/tmp/e", place), FakeHandle(), NOW)  # type: ignore[arg-type]
    life.observe(RunProgress("RUNNING", 1, peak_rss=GIB, warnings=("used more",)), NOW)
    entry = life.to_dict()
    assert (entry["memory"]["peak"]["memory"], entry["memory"]["suggested"]) == (GIB, {})
    assert entry["warnings"] == ["used more"]
    life.attempt_ended(AttemptResult(Outcome("FAILED", "exit_code", "no module", peak_rss=GIB), node="n"), NOW)
    assert (life.state, life.memory()["suggested"]) == ("FAILED", {})
    assert memory_lines({"runs": [life.to_dict()]}) == []


HUNGRY = """
import json, os, sys, time
held = bytearray(int(200e6))
for at in range(0, len(held), 4096):
    held[at] = 1
print(json.dumps({"event": "heartbeat", "payload": {"step": 1}}), flush=True)
time.sleep(100 if int(os.environ["MOSAIC_ATTEMPT"]) < 3 else 0)
"""


def test_a_real_worker_grows_until_it_fits(inline: Lab, tmp_path: Path) -> None:
    script = tmp_path / "hungry.py"
    script.write_text(HUNGRY)
    done = inline.run(
        command=["python3", str(script)],
        resources={"memory": "120MB"},
        on_oom={"grow": 1.5, "max": 2},
        limits={"max_failures": 0, "grace": "1s"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = inline.experiment
    assert [experiment.outcome(number)["code"] for number in experiment.attempts()] == [
        "out_of_memory", "out_of_memory", "completed",
    ]  # fmt: skip
    status = experiment.status()
    assert (status["growths"], status["failures"]) == (2, 0)
    assert status["memory"]["declared"]["memory"] == 270_000_000
    entries = [json.loads(path.read_text()) for path in sorted((experiment.path / "journal").iterdir())]
    places = [entry["placement"]["memory"] for entry in entries if entry["type"] == "attempt_started"]
    assert places == [120_000_000, 180_000_000, 270_000_000]
    assert "with 171.66MiB instead of 114.44MiB of memory: used" in done.stdout
    shown = inline.mosaic("status")
    assert "used at most, 257.49MiB declared; suggested: memory: " in shown.stdout
