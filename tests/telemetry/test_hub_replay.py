"""What a hub that died between two files of a commit left is not written again, however the replay is cut."""

from __future__ import annotations

import json
from pathlib import Path

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Batch, HubCore, TelemetryReader, parse


def batch(numbers: range, first: int, run_id: str = "r") -> Batch:
    """A heartbeat for each number, from byte ``first`` of the log on."""
    lines, offset = [], first
    for number in numbers:
        line = json.dumps({"event": "heartbeat", "payload": {"step": number, "x": 1.0}, "timestamp": 1.0}).encode()
        lines.append((offset, line))
        offset += len(line) + 1
    parsed = parse(lines, run_id, 1)
    return Batch(run_id, 1, first, offset, parsed.tables, parsed.last_step, parsed.last_ts)


def test_a_replay_in_smaller_commits_than_the_one_that_was_cut(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path / "telemetry")
    hub = HubCore(folder)
    hub.append(batch(range(10), 0))
    hub.commit()
    (last,) = (tmp_path / "telemetry" / "metrics").glob("*.parquet")
    last.unlink()  # killed when it had written lifecycle, and not yet metrics
    again = HubCore(folder)
    first = batch(range(5), 0)
    again.append(first)
    again.append(batch(range(3), 0, "another"))  # whose rows make this commit write every table
    again.commit()
    again.append(batch(range(5, 12), first.last))
    again.commit()
    reader = TelemetryReader(folder.location)
    for name in ("lifecycle", "metrics"):
        rows = reader.table(name, run_id="r", view=False).to_pylist()
        assert len(rows) == len({row["offset"] for row in rows}) == 12, name
