"""Nodes that fail, and nodes that go away."""

from __future__ import annotations

from typing import Any

import pytest
from simulation import SimBackend

from .conftest import Sweeps

IMPORT = "the worker exited with code 1; it said: ModuleNotFoundError: No module named 'nle'"


def runs_of(sweeps: Sweeps) -> list[dict[str, Any]]:
    assert sweeps.conductor is not None
    runs: list[dict[str, Any]] = sweeps.conductor.status_document()["runs"]
    return runs


FULL = "attempt 1 on node worse cannot be run: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("words", "why"),
    [(IMPORT, "something is missing there"), (FULL, "its disk is full")],
    ids=["it fails", "it does not even start"],
)
def test_a_node_that_breaks_runs_is_kept_off_and_costs_them_nothing(words: str, why: str, sweeps: Sweeps) -> None:
    def arrange(backend: SimBackend) -> None:
        backend.nodes, backend.broken = ("good", "worse"), {"worse": words}

    conductor = sweeps.run(arrange=arrange, slots=3, limits={"max_failures": 0})
    assert conductor.state() == "COMPLETED"
    (kept,) = conductor.status_document()["quarantine"]
    assert kept["node"] == "node-worse"
    assert kept["reason"] == f"{why}: {words}"
    assert all(run["failures"] == 0 for run in runs_of(sweeps))
    assert any(run["attempt"] == 2 for run in runs_of(sweeps)), "nothing was started on it"
    # What was on it already may fail there, too; nothing new is put on it.
    assert sweeps.backend.started.count("worse") <= 3


def test_what_fails_everywhere_fails(sweeps: Sweeps) -> None:
    def arrange(backend: SimBackend) -> None:
        backend.nodes, backend.broken = ("one", "two"), {"one": IMPORT, "two": IMPORT}

    conductor = sweeps.run(arrange=arrange, space={"quality": {"choice": [1]}}, seeds=[1], limits={"max_failures": 1})
    assert conductor.state() == "FAILED"
    assert conductor.status_document()["quarantine"] == []
    (run,) = runs_of(sweeps)
    assert (run["failures"], run["attempt"]) == (2, 3)
    assert set(sweeps.backend.started) == {"one", "two"}


def test_one_node_alone_is_never_kept_off(sweeps: Sweeps) -> None:
    def arrange(backend: SimBackend) -> None:
        backend.broken = {"n": IMPORT}

    conductor = sweeps.run(arrange=arrange, space={"quality": {"choice": [1]}}, seeds=[1], limits={"max_failures": 1})
    assert conductor.state() == "FAILED"
    (run,) = runs_of(sweeps)
    assert run["attempt"] == 2


def test_a_bad_node_is_better_than_none(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = SimBackend.wait

    def losing(backend: SimBackend, handles: Any, timeout: float) -> None:
        if sweeps.conductor is not None and sweeps.conductor.nodes.quarantine.nodes:
            # The good one is gone for new runs, and what broke the other has been mended.
            backend.nodes, backend.broken = ("worse",), {}
        wait(backend, handles, timeout)

    monkeypatch.setattr(SimBackend, "wait", losing)

    def arrange(backend: SimBackend) -> None:
        backend.nodes, backend.broken = ("good", "worse"), {"worse": IMPORT}

    conductor = sweeps.run(arrange=arrange, slots=1, limits={"max_failures": 0})
    assert conductor.state() == "COMPLETED"
    assert conductor.status_document()["quarantine"] == []
    assert sweeps.backend.started.count("worse") > 3


def test_runs_leave_a_node_that_is_drained(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = SimBackend.wait
    turns = 0

    def draining(backend: SimBackend, handles: Any, timeout: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            backend.leaving = {"first": None}
        wait(backend, handles, timeout)

    monkeypatch.setattr(SimBackend, "wait", draining)

    def arrange(backend: SimBackend) -> None:
        backend.nodes = ("first", "second")

    conductor = sweeps.run(
        arrange=arrange,
        space={"quality": {"choice": [1, 2]}},
        seeds=[1],
        config={"steps": 40},
        metric={"name": "score"},
    )
    assert conductor.state() == "COMPLETED"
    assert sweeps.backend.started == ["first", "first", "second", "second"]
    for life in conductor.lives.values():
        assert life.failures == 0
        assert [each["outcome"]["state"] for each in life.attempts] == ["PAUSED", "COMPLETED"]
        assert life.attempts[0]["outcome"]["message"] == "node node-first is being drained"
        # It went on from where it was.
        assert life.attempts[1]["resumed_from_step"] > 0


def test_a_worker_without_checkpoints_stays_to_the_end(sweeps: Sweeps) -> None:
    sweeps.catalog = type(sweeps.catalog)(supports_checkpointing=False, supports_pause_resume=False)

    def arrange(backend: SimBackend) -> None:
        backend.nodes = ("first", "second")
        allocate = backend.allocate

        def then_drain(requests: Any, **more: Any) -> Any:
            answers = allocate(requests, **more)
            if answers:
                backend.leaving = {"first": None}
            return answers

        backend.allocate = then_drain  # type: ignore[method-assign]

    conductor = sweeps.run(arrange=arrange, space={"quality": {"choice": [1]}}, seeds=[1], metric={"name": "score"})
    assert conductor.state() == "COMPLETED"
    assert sweeps.backend.started == ["first"]
