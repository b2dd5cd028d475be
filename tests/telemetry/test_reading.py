"""What a later attempt did again is hidden in the view, and kept in the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TABLES, Batch, HubCore, TelemetryReader, parse
from mosaic_cluster.telemetry.reading import Visible
from mosaic_cluster.worker.errors import StorageError


class Log:
    """Writes an attempt's lines, and knows their offsets."""

    def __init__(self, run_id: str, attempt: int, **resumed: Any) -> None:
        self.run_id, self.attempt = run_id, attempt
        self.lines: list[tuple[int, bytes]] = []
        self.size = 0
        self.add(event="attempt_started", payload={"attempt": attempt, **resumed}, source="supervisor")

    def add(self, **fields: Any) -> int:
        offset, text = self.size, json.dumps({"timestamp": 1.0, **fields}).encode()
        self.lines.append((offset, text))
        self.size += len(text) + 1
        return offset

    def train(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.add(event="heartbeat", payload={"step": step, "x": step})

    def save(self, step: int) -> dict[str, Any]:
        """Announce a checkpoint; what the next attempt says when it goes on from it."""
        offset = self.add(event="checkpoint_saved", payload={"path": "p", "step": step})
        return {"resumed_from_attempt": self.attempt, "resumed_from_offset": offset, "resumed_from_step": step}


def reader(folder: Path, *logs: Log) -> TelemetryReader:
    hub = HubCore(Storage.open(folder))
    for log in logs:
        parsed = parse(log.lines, log.run_id, log.attempt)
        hub.append(Batch(log.run_id, log.attempt, 0, log.size, parsed.tables))
        hub.commit()
    return TelemetryReader(folder)


def curve(found: TelemetryReader, run_id: str = "r", view: bool = True) -> list[int]:
    steps: list[int] = found.metric("x", run_id, view=view)["step"].to_pylist()
    return steps


def test_nothing_there(tmp_path: Path) -> None:
    found = TelemetryReader(tmp_path / "none")
    for table in TABLES:
        assert found.table(table).num_rows == 0
    assert found.metric_names() == []
    with pytest.raises(StorageError, match="no telemetry table 'stepz'"):
        found.table("stepz")


def test_what_was_trained_again_is_hidden(tmp_path: Path) -> None:
    first = Log("r", 1)
    first.train(1, 10)
    again = first.save(10)
    first.train(11, 15)
    second = Log("r", 2, **again)
    second.train(11, 20)
    found = reader(tmp_path, first, second)
    assert curve(found) == list(range(1, 21))
    assert curve(found, view=False) == [*range(1, 16), *range(11, 21)]
    assert found.visible("r") == [Visible(2, None), Visible(1, again["resumed_from_offset"])]


def test_an_attempt_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    first, second = Log("r", 1), Log("r", 2)
    first.train(1, 5)
    second.train(1, 3)
    assert curve(reader(tmp_path, first, second)) == [1, 2, 3]


def test_an_attempt_that_saved_nothing_is_skipped(tmp_path: Path) -> None:
    first = Log("r", 1)
    first.train(1, 4)
    again = first.save(4)
    second = Log("r", 2, **again)
    second.train(5, 7)
    third = Log("r", 3, **again)
    third.train(5, 9)
    assert curve(reader(tmp_path, first, second, third)) == list(range(1, 10))


def test_a_chain_of_three(tmp_path: Path) -> None:
    first = Log("r", 1)
    first.train(1, 4)
    to_second = first.save(4)
    first.train(5, 6)
    second = Log("r", 2, **to_second)
    second.train(5, 8)
    to_third = second.save(8)
    second.train(9, 9)
    third = Log("r", 3, **to_third)
    third.train(9, 10)
    assert curve(reader(tmp_path, first, second, third)) == list(range(1, 11))


def test_runs_do_not_hide_each_other(tmp_path: Path) -> None:
    one, other = Log("r", 1), Log("q", 1)
    one.train(1, 3)
    other.train(1, 2)
    again = Log("q", 2)
    again.train(1, 1)
    found = reader(tmp_path, one, other, again)
    assert curve(found, "r") == [1, 2, 3]
    assert curve(found, "q") == [1]
    assert found.table("metrics").num_rows == 4
    assert found.table("metrics", columns=["name"]).column_names == ["name"]
