"""Telemetry in a bucket reads as it does on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from s3_server import S3

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TABLES, Batch, HubCore, TelemetryReader, parse
from mosaic_cluster.telemetry.files import data_files, read_footer
from mosaic_cluster.telemetry.sql import query
from mosaic_cluster.worker.errors import StorageDenied, StorageError

QUERIES = [
    *(f"select * from {table}{end} order by all" for table in TABLES for end in ("", "_all")),
    "select name, count(*) as n, max(value) from metrics where run_id = 'r' and value > 3 group by name order by name",
    "select m.step, e.total_reward from metrics m join episodes e using (run_id, attempt) "
    "join metrics_all o using (run_id, attempt, step) order by all",
    "select payload->>'attempt' as attempt from lifecycle where event = 'attempt_started' order by 1",
]


def lines(attempt: int, last: int) -> list[bytes]:
    started = {"attempt": attempt}
    if attempt > 1:
        started |= {"resumed_from_attempt": 1, "resumed_from_offset": 600}
    found: list[dict[str, Any]] = [{"timestamp": 1.0, "event": "attempt_started", "payload": started}]
    for step in range(1, last):
        found.append({"timestamp": step, "event": "heartbeat", "payload": {"step": step, "loss/ü": step + 0.25}})
        found.append({"timestamp": step, "type": "episode", "episode": step, "total_reward": 1.5 * step, "steps": 3})
        found.append({"timestamp": step, "type": "step", "episode": step, "step": step, "reward": 1, "action": [1]})
    return [json.dumps(line).encode() for line in found]


def write(storage: Storage) -> None:
    hub = HubCore(storage)
    for run_id, attempt in (("r", 1), ("q", 1), ("r", 2)):
        offset = 0
        for start in (0, 10, 20):
            numbered = []
            for line in lines(attempt, 9)[start : start + 10]:
                numbered.append((offset, line))
                offset += len(line) + 1
            parsed = parse(numbered, run_id, attempt)
            hub.append(Batch(run_id, attempt, numbered[0][0], offset, parsed.tables))
            hub.commit()


@pytest.fixture
def both(s3_server: S3, tmp_path: Path) -> tuple[Storage, Storage]:
    """The same telemetry on disk and in a bucket."""
    disk, store = Storage.open(tmp_path / "telemetry"), Storage.open(s3_server.uri).at("telemetry")
    write(disk)
    write(store)
    assert disk.list() == store.list()
    return disk, store


def test_tables_are_equal(both: tuple[Storage, Storage]) -> None:
    disk, store = both
    here, there = TelemetryReader(disk.local_path), TelemetryReader(store.location)
    for name in TABLES:
        for view in (True, False):
            for run_id in (None, "r", "none"):
                table = here.table(name, view=view, run_id=run_id)
                assert table.equals(there.table(name, view=view, run_id=run_id))
    assert here.table("metrics").num_rows < here.table("metrics", view=False).num_rows
    assert here.metric_names() == there.metric_names() != []
    assert here.visible("r") == there.visible("r") == TelemetryReader(store).visible("r")


@pytest.mark.parametrize("sql", QUERIES)
def test_queries_are_equal(both: tuple[Storage, Storage], sql: str) -> None:
    disk, store = both
    more = {"runs": pa.table({"run_id": ["r"]})}
    answer = query(disk.local_path, sql, more)
    found = query(store.location, sql, more)
    assert found.schema.equals(answer.schema)
    assert found.equals(answer)
    assert query(store, sql, more).equals(answer)
    assert answer.num_rows


def test_footers_are_equal_and_cost_one_request(both: tuple[Storage, Storage], s3_server: S3) -> None:
    disk, store = both
    for name in data_files(disk, "metrics"):
        before = len(s3_server.proxy.requests)
        footers = [{**read_footer(each, name), "hub": None} for each in (store, disk)]
        assert footers[0] == footers[1]
        assert len(s3_server.proxy.requests) == before + 1


def test_what_is_not_ours(both: tuple[Storage, Storage]) -> None:
    for storage in both:
        storage.put("metrics/0-99999999.parquet", b"PAR1 not really")
        with pytest.raises(StorageError, match=r"0-99999999\.parquet is not a readable Parquet file"):
            TelemetryReader(storage).table("metrics")


def test_a_bucket_that_refuses(both: tuple[Storage, Storage], s3_server: S3) -> None:
    s3_server.fail(1000, 403)
    with pytest.raises(StorageDenied, match="refused it"):
        TelemetryReader(both[1]).table("metrics")
    with pytest.raises(StorageDenied, match="refused it"):
        query(both[1], "select * from metrics")


def test_faults_on_the_way(both: tuple[Storage, Storage], s3_server: S3) -> None:
    disk, store = both
    s3_server.fail(3, 503)
    s3_server.lose_responses(3)
    assert TelemetryReader(store).table("metrics").equals(TelemetryReader(disk).table("metrics"))
    s3_server.fail(3, 503)
    sql = "select * from metrics order by all"
    assert query(store, sql).equals(query(disk, sql))


def test_nothing_there(s3_server: S3) -> None:
    for table in TABLES:
        assert TelemetryReader(s3_server.uri).table(table).num_rows == 0
        assert query(s3_server.uri, f"select * from {table}").num_rows == 0
