from __future__ import annotations

from pathlib import Path

import pytest

from mosaic_cluster.experiments import control
from mosaic_cluster.experiments.changes import accepted, changes, wanted
from mosaic_cluster.experiments.home import ExperimentHome, experiments_in, find_experiment, new_experiment_id
from mosaic_cluster.experiments.journal import Journal
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.specs import parse
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import AlreadyExists, Fenced, InvalidInput


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path / "results")


def make(storage: Storage, name: str) -> ExperimentHome:
    return ExperimentHome.create(storage, name, {"kind": "run", "name": name, "created_at": 1.0})


def test_ids_are_readable_and_differ() -> None:
    ids = {new_experiment_id("cartpole", 0.0) for _ in range(50)}
    assert len(ids) > 45
    assert all(one.startswith("cartpole-19700101-000000-") for one in ids)


def test_find_experiment(storage: Storage) -> None:
    first, second = make(storage, "a-1-xyz"), make(storage, "a-2-uvw")
    assert experiments_in(storage) == [first, second]
    assert find_experiment(storage, "latest") == second
    assert find_experiment(storage, "xyz") == first
    assert find_experiment(storage, "a-2") == second
    assert find_experiment(storage, str(first.path)).path == first.path
    with pytest.raises(InvalidInput, match="it fits 2 experiments: a-1-xyz, a-2-uvw"):
        find_experiment(storage, "a-")
    with pytest.raises(InvalidInput, match="no such experiment in .*; there is a-2-uvw"):
        find_experiment(storage, "a-2-uvv")


def test_find_in_an_empty_storage(storage: Storage) -> None:
    with pytest.raises(InvalidInput, match="there is no experiment in .*; say where with --storage"):
        find_experiment(storage, "latest")
    assert not storage.local_path.exists()


def test_an_experiment_is_made_once(storage: Storage) -> None:
    make(storage, "a")
    with pytest.raises(AlreadyExists):
        make(storage, "a")


def test_journal_in_order_and_fenced(storage: Storage) -> None:
    home = make(storage, "a")
    mine = Journal(home.storage, clock=lambda: 5.0)
    mine.append("run_planned", run_id="r")
    theirs = Journal(home.storage)
    theirs.append("driver_started")
    with pytest.raises(Fenced, match="another driver has taken over"):
        mine.append("attempt_started")
    assert [entry["type"] for entry in theirs.entries()] == ["run_planned", "driver_started"]
    assert theirs.entries()[0] == {"entry": 1, "type": "run_planned", "at": 5.0, "run_id": "r"}


def test_what_has_been_added_to_specs_since_is_no_edit() -> None:
    document = {"kind": "run", "name": "x", "worker": "w", "seed": 1, "storage": "/tmp"}
    spec, _ = parse(document)
    assert spec is not None
    now = spec.to_document()
    before = {name: value for name, value in now.items() if name not in ("priority", "weight")}
    record = {"spec": before}
    assert changes(accepted(record, []), wanted(record, [], None)) == []
    (found,) = changes(accepted(record, []), wanted(record, [], {**document, "priority": 3}))
    assert (found.path, found.before, found.after) == ("priority", 0, 3)
    assert found.effect == "holds for runs that are placed from now on"


def test_requests_wait_until_taken(storage: Storage) -> None:
    home = make(storage, "a")
    control.send(home.storage, "pause", ["r1"])
    control.send(home.storage, "stop")
    first, second = control.waiting(home.storage)
    assert (first.verb, first.runs, second.verb, second.runs) == ("pause", ("r1",), "stop", ())
    control.taken(home.storage, first)
    assert control.waiting(home.storage) == [second]


def test_an_experiment_without_a_driver_is_lost(storage: Storage) -> None:
    home = make(storage, "a")
    status = read_status(home)
    assert status["state"] == "LOST"
    assert "`mosaic resume` continues it" in status["reason"]


@pytest.mark.parametrize(
    ("host", "updated", "state"), [("elsewhere", 95.0, "RUNNING"), ("elsewhere", 60.0, "LOST"), (None, 99.0, "LOST")]
)
def test_who_still_drives(storage: Storage, host: str | None, updated: float, state: str) -> None:
    import socket

    home = make(storage, "a")
    home.storage.put_json(
        "status.json",
        {
            "experiment_id": "a",
            "state": "RUNNING",
            "updated_at": updated,
            # No such process on this host: pids end at 4 million.
            "driver": {"host": host or socket.gethostname(), "pid": 4_999_999, "process_started": 0.0},
            "runs": [{"run_id": "r", "state": "RUNNING", "reason": ""}, {"run_id": "s", "state": "COMPLETED"}],
        },
    )
    status = read_status(home, now=100.0)
    assert status["state"] == state
    assert [run["state"] for run in status["runs"]] == [state, "COMPLETED"]
