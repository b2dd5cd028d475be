"""How long a mean curve over many runs takes: `mosaic_cluster.telemetry.sql.query` beside plain DuckDB.

The tables are made by a real hub from real lines, parsed: 1,000 runs of 1,000 heartbeats with five metrics each, which
is 5 million rows, arriving a few at a time from all runs in turn. Both ask the same question; ours through the view
`metrics`, which leaves out what a later attempt did again, the peer on the files with a plain glob.

*cold* is a process of its own after the files were put out of the page cache; *warm* the same process asking again.

``python tests/benchmarks/bench_query.py [--json] [--runs N] [--events N] [--repeats N]``
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from reporting import arguments, report, spread
from telemetry_events import SHAPES
from telemetry_ours import make_hub, run_id_of

from mosaic_cluster.telemetry import Batch, parse
from mosaic_cluster.telemetry.sql import query

BATCH = 100
"""Heartbeats of a batch: what a run at 200 a second sends at a time."""

QUESTIONS = {
    "mean curve, 100 bins": (
        "select step // {bin} as bin, avg(value) as mean, count(*) as n from {metrics} "
        "where name = 'loss' group by bin order by bin"
    ),
    "mean curve, each step": (
        "select step, avg(value) as mean, stddev(value) as spread from {metrics} "
        "where name = 'loss' group by step order by step"
    ),
    "all five metrics, 100 bins": (
        "select name, step // {bin} as bin, avg(value) as mean from {metrics} group by name, bin order by name, bin"
    ),
    "last value of each run": (
        "select run_id, arg_max(value, step) as last from {metrics} where name = 'episodic_return' group by run_id "
        "order by run_id"
    ),
}


def fill(folder: Path, runs: int, events: int) -> int:
    """Make the tables; returns rows of metrics."""
    hub = make_hub(folder)
    ends = dict.fromkeys(range(runs), 0)
    rows = 0
    for first in range(0, events, BATCH):
        for run in range(runs):
            run_id, begin = run_id_of(run), ends[run]
            lines, offset = [], begin
            texts = [_heartbeat(run, number) for number in range(first, min(first + BATCH, events))]
            if first == 0:
                texts.insert(0, _started(run_id))
            for text in texts:
                lines.append((offset, text[:-1]))
                offset += len(text)
            tables = parse(lines, run_id, 1).tables
            rows += tables["metrics"].num_rows
            batch = Batch(run_id, 1, begin, offset, tables)
            while hub.append(batch).accepted != offset:
                time.sleep(0.002)
            ends[run] = offset
    hub.close()
    return rows


def _heartbeat(run: int, number: int) -> bytes:
    payload = SHAPES["five"](number)
    payload["loss"] += run * 1e-3
    event = {"event": "heartbeat", "payload": payload, "run_id": run_id_of(run), "timestamp": 1e9 + number}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _started(run_id: str) -> bytes:
    payload = {"attempt": 1, "resumed_from_step": None, "resumed_from_attempt": None, "resumed_from_offset": None}
    event = {"event": "attempt_started", "payload": payload, "run_id": run_id, "source": "supervisor", "timestamp": 1e9}
    return json.dumps(event).encode() + b"\n"


def ask(side: str, folder: Path, question: str, width: int) -> tuple[float, list[Any]]:
    """Seconds, and the answer."""
    text = QUESTIONS[question]
    begun = time.perf_counter()
    if side == "mosaic":
        table = query(folder, text.format(metrics="metrics", bin=width))
    else:
        with duckdb.connect() as connection:
            source = f"read_parquet('{folder}/metrics/*.parquet')"
            table = connection.sql(text.format(metrics=source, bin=width)).to_arrow_table()
    return time.perf_counter() - begun, table.to_pylist()


def cold(side: str, folder: Path, question: str, width: int) -> float:
    """Seconds in a process of its own, its imports left out, with nothing of the files in the page cache."""
    for path in folder.glob("*/*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    command = [sys.executable, __file__, "--ask", side, str(folder), question, str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(runs: int, events: int, repeats: int) -> dict[str, Any]:
    """All questions, both sides in turn."""
    width = max(1, events // 100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        rows = fill(folder, runs, events)
        filled = time.perf_counter() - begun
        files = list(folder.glob("metrics/*.parquet"))
        found: dict[str, Any] = {
            "benchmark": "query", "runs": runs, "rows": rows, "fill_s": filled, "files": len(files),
            "bytes": sum(path.stat().st_size for path in files), "questions": [],
        }  # fmt: skip
        for question in QUESTIONS:
            times: dict[str, list[float]] = {"mosaic": [], "mosaic_cold": [], "duckdb": [], "duckdb_cold": []}
            answers = {side: ask(side, folder, question, width)[1] for side in ("mosaic", "duckdb")}
            if not _alike(answers["mosaic"], answers["duckdb"]):
                raise SystemExit(f"two answers to {question!r}")
            for repeat in range(repeats):
                for side in ("mosaic", "duckdb") if repeat % 2 else ("duckdb", "mosaic"):
                    times[side].append(ask(side, folder, question, width)[0])
                    times[f"{side}_cold"].append(cold(side, folder, question, width))
            ratios = [mine / theirs for mine, theirs in zip(times["mosaic"], times["duckdb"], strict=True)]
            row = {"name": question, "ratio": spread(ratios), **{key: spread(value) for key, value in times.items()}}
            found["questions"].append(row)
    return found


def _alike(ours: list[Any], theirs: list[Any]) -> bool:
    """The same, but for the last digits of sums in another order."""
    if len(ours) != len(theirs):
        return False
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a.values(), b.values(), strict=True)]
    return all(math.isclose(a, b, rel_tol=1e-9) if isinstance(a, float) else a == b for a, b in pairs)


def show(found: dict[str, Any]) -> None:
    print(f"{found['runs']:,} runs, {found['rows']:,} rows of metrics in {found['files']} files, "
          f"{found['bytes'] / 1e6:.0f} MB; seconds, median (min to max)")  # fmt: skip
    print(f"{'':28}{'mosaic, warm':>24}{'cold':>8}{'DuckDB, warm':>14}{'cold':>8}{'ratio':>7}")
    for row in found["questions"]:
        warm = row["mosaic"]
        text = f"{warm['median']:.2f} ({warm['min']:.2f} to {warm['max']:.2f})"
        print(f"{row['name']:28}{text:>24}{row['mosaic_cold']['median']:>8.2f}{row['duckdb']['median']:>14.2f}"
              f"{row['duckdb_cold']['median']:>8.2f}{row['ratio']['median']:>7.2f}")  # fmt: skip


def main() -> None:
    parser = arguments("How long a mean curve over many runs takes.")
    parser.add_argument("--runs", type=int, default=1_000, help="default: %(default)s")
    parser.add_argument("--events", type=int, default=1_000, help="heartbeats of each, five rows each")
    parser.add_argument("--repeats", type=int, default=7, help="of each question (default: %(default)s)")
    parser.add_argument("--ask", nargs=4, help="SIDE FOLDER QUESTION WIDTH: ask once, print the seconds")
    args = parser.parse_args()
    if args.ask:
        side, folder, question, width = args.ask
        print(ask(side, Path(folder), question, int(width))[0])
        return
    report(args, measure(args.runs, args.events, args.repeats), show)


if __name__ == "__main__":
    main()
