"""What a later attempt did again is hidden in the view, and kept in the tables."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TABLES, Batch, HubCore, TelemetryReader, parse
from mosaic_cluster.telemetry.reading import Visible
from mosaic_cluster.telemetry.sql import query
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


V1 = Path(__file__).parents[1] / "fixtures" / "telemetry_v1"
V1_RUNS = ("01JV1AAAAAAAAAAAAAAAAAAAAA", "01JV1BBBBBBBBBBBBBBBBBBBBB")


def test_the_version_before_is_read(tmp_path: Path) -> None:
    """Files that version 1 wrote, kept as they were; a new hub goes on beside them."""
    shutil.copytree(V1, tmp_path / "telemetry")
    reader = TelemetryReader(tmp_path / "telemetry")
    step = reader.table("steps", run_id=V1_RUNS[0]).to_pylist()[0]
    assert (step["agent_id"], step["policy_label"], step["worker_id"], step["reward"]) == ("left", "p0", "w", 1.5)
    assert reader.metric("loss", V1_RUNS[1]).to_pylist()[0]["value"] == 0.5
    assert set(reader.table("lifecycle")["source"].to_pylist()) == {"supervisor", "worker"}
    hub = HubCore(Storage.open(tmp_path / "telemetry"))
    known = hub.watermark(V1_RUNS[0], 1)
    assert known.committed == known.accepted > 0
    line = json.dumps({"event": "heartbeat", "payload": {"step": 11, "loss": 0.25}, "timestamp": 1e9}).encode()
    parsed = parse([(known.accepted, line)], V1_RUNS[0], 1, last_step=known.last_step, last_ts=known.last_ts)
    hub.append(Batch(V1_RUNS[0], 1, known.accepted, known.accepted + len(line) + 1, parsed.tables, 11, None))
    hub.commit()
    assert reader.metric("loss", V1_RUNS[0])["value"].to_pylist() == [0.5, 0.25]
    rows = query(tmp_path / "telemetry", "select count(*) as n, count(distinct agent_id) as agents from episodes")
    assert rows.to_pylist() == [{"n": 2, "agents": 1}]
    rows = query(tmp_path / "telemetry", "select count(*) as n from metrics_all where name = 'loss'")
    assert rows.to_pylist() == [{"n": 3}]


def test_what_is_too_old_is_refused(tmp_path: Path) -> None:
    shutil.copytree(V1, tmp_path / "telemetry")
    target = tmp_path / "telemetry" / "metrics" / "0-00000000.parquet"
    table = pq.read_table(target)
    footer = json.loads(table.schema.metadata[b"mosaic_cluster"])
    table = table.replace_schema_metadata({b"mosaic_cluster": json.dumps({**footer, "schema_version": 0})})
    pq.write_table(table, target)
    with pytest.raises(StorageError, match="schema version 0, this mosaic_cluster reads 1 to 2"):
        TelemetryReader(tmp_path / "telemetry").table("metrics")


def test_rows_are_sorted_and_groups_are_passed_over(tmp_path: Path) -> None:
    """Runs that came in any order lie one after the other, and statistics tell which row groups hold one."""
    hub = HubCore(Storage.open(tmp_path / "telemetry"))
    runs = [f"run{number:03d}" for number in range(700)]
    random.Random(1).shuffle(runs)
    line = json.dumps({"event": "heartbeat", "payload": {"step": 1, "x": 1.0}, "timestamp": 1e9}).encode()
    for turn in range(3):
        lines = [(turn * 100_000 + 1000 * number, line) for number in range(70)]
        for run in runs:
            parsed = parse(lines, run, 1)
            hub.append(Batch(run, 1, turn * 100_000, (turn + 1) * 100_000, parsed.tables, None, None))
    hub.commit()
    (file,) = (tmp_path / "telemetry" / "metrics").iterdir()
    table = pq.read_table(file, partitioning=None)
    keys = list(zip(table["run_id"].to_pylist(), table["offset"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 700 * 3 * 70
    parquet = pq.ParquetFile(file)
    bounds = [parquet.metadata.row_group(index).column(0).statistics for index in range(parquet.num_row_groups)]
    hit = [each for each in bounds if each.min <= "run350" <= each.max]
    assert len(bounds) >= 3
    assert len(hit) <= 1
    types = {field.name: field.type for field in pq.read_schema(file)}
    assert pa.types.is_dictionary(types["run_id"])
    assert pa.types.is_dictionary(types["name"])
    assert types["ts"] == pa.timestamp("us", tz="UTC")
    assert types["step"] == pa.int64()
    assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
