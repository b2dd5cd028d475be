"""Is what the workers printed in Parquet, once and in order?

Reads the record that each thread of the chaos worker keeps of what it printed, and the Parquet files through a plain
glob. Knows nothing of mosaic_cluster: neither its logs, nor the footers of its files, nor its code.

Of each thread of each attempt it must find the events 0, 1, 2, ... up to what the thread recorded when its last
write had returned, or up to some event of the one write that was under way when it died; each unchanged, in the
table where it belongs, once, in the order of their offsets and in the order of the files; with its metrics; and
nothing else.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TABLES = ("lifecycle", "steps", "episodes", "metrics")
BY_SUPERVISOR = frozenset({"attempt_started", "run_started", "run_completed", "run_failed", "run_cancelled"})
BY_WORKER = frozenset({"run_started", "run_completed", "heartbeat", "checkpoint_saved", "checkpoint_loaded"})
RECORD = re.compile(r"(?P<run>[0-9A-Z]{26})\.(?P<attempt>\d+)\.(?P<thread>t\d+)")
BROKEN = re.compile(r'(\{.*), "cut":\s*', re.DOTALL)
NOTES = 40

Row = dict[str, Any]
Thread = tuple[str, int, str]
"""Run id, attempt, name of the thread."""


@dataclass
class Findings:
    """What was counted, and what is wrong.

    Attributes:
        workers: runs that printed; attempts: of theirs, all together.
        events: numbered events in Parquet; recorded: those that the workers know of.
        rows: of all tables.
        lost, duplicated, reordered: rows that are missing, there again, or out of order.
        changed: rows that say something else than was printed.
        unknown: rows and records that nobody can account for.
        torn: lines that a kill cut in the middle of their write; that is allowed.
        notes: the first of what is wrong, one sentence each.
    """

    workers: int = 0
    attempts: int = 0
    events: int = 0
    recorded: int = 0
    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    changed: int = 0
    unknown: int = 0
    torn: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """0 if all is well."""
        return self.lost + self.duplicated + self.reordered + self.changed + self.unknown

    def add(self, what: str, count: int, where: str) -> None:
        """Count something that is wrong."""
        if count:
            setattr(self, what, getattr(self, what) + count)
            if len(self.notes) < NOTES:
                self.notes.append(f"{what} ({count}): {where}")


@dataclass(frozen=True)
class Event:
    """A numbered event as its row tells it.

    Attributes:
        metrics: what must stand in the table of metrics for it: name to step and value.
    """

    offset: int
    thread: str
    number: int
    metrics: dict[str, tuple[int, float]]


def check(truth: Path, telemetry: Path) -> Findings:
    """Compare ``truth``, the folder of the workers' records, with the tables below ``telemetry``."""
    found = Findings()
    records = _records(truth, found)
    tables = {name: _read(telemetry / name) for name in TABLES}
    found.rows = sum(table.num_rows for table in tables.values())
    runs = {run for run, _, _ in records}
    for table in tables.values():
        runs.update(pc.unique(table["run_id"]).to_pylist())
    found.workers = len({run for run, _, _ in records})
    found.attempts = len({key[:2] for key in records})
    found.recorded = sum(count for count, _ in records.values())
    for run in sorted(runs):
        _check_run(run, tables, records, found)
    return found


def _records(truth: Path, found: Findings) -> dict[Thread, tuple[int, int]]:
    """By thread: events of writes that returned, and those together with the write that had begun."""
    records = {}
    for path in sorted(truth.iterdir()):
        if path.name == "stop":
            continue
        name = RECORD.fullmatch(path.name)
        if name is None:
            found.add("unknown", 1, f"{path.name} is no thread's record")
            continue
        # Killed between creating it and filling it, a thread leaves it short, and has printed nothing.
        written, begun = struct.unpack("=qq", path.read_bytes()[:16].ljust(16, b"\0"))
        records[name["run"], int(name["attempt"]), name["thread"]] = written, max(written, begun)
    return records


def _read(folder: Path) -> pa.Table:
    """All rows, in the order of the files' names."""
    parts = []
    for path in sorted(folder.glob("*.parquet")):
        part = pq.read_table(path, partitioning=None).replace_schema_metadata(None)
        part = part.drop_columns(["ts"])  # slow to take up, and no number of ours stands in it
        plain = [
            pa.field(each.name, pa.string()) if pa.types.is_dictionary(each.type) else each for each in part.schema
        ]
        parts.append(part.cast(pa.schema(plain)))
    if not parts:
        return pa.table({"run_id": pa.array([], pa.string())})
    return pa.concat_tables(parts)


def _check_run(
    run: str, tables: dict[str, pa.Table], records: dict[Thread, tuple[int, int]], found: Findings
) -> None:
    """All attempts of one run."""
    rows: dict[str, dict[int, list[Row]]] = {}
    for name, table in tables.items():
        rows[name] = defaultdict(list)
        for row in table.filter(pc.equal(table["run_id"], run)).to_pylist():
            rows[name][row["attempt"]].append(row)
    attempts = {attempt for by_attempt in rows.values() for attempt in by_attempt}
    attempts.update(attempt for of, attempt, _ in records if of == run)
    for attempt in sorted(attempts):
        mine = {key[2]: counts for key, counts in records.items() if key[:2] == (run, attempt)}
        _check_attempt(run, attempt, {name: rows[name].get(attempt, []) for name in TABLES}, mine, found)


def _check_attempt(
    run: str, attempt: int, rows: dict[str, list[Row]], records: dict[str, tuple[int, int]], found: Findings
) -> None:
    where = f"run {run}, attempt {attempt}"
    for name in TABLES:
        offsets = [row["offset"] for row in rows[name]]
        found.add("reordered", _descents(offsets), f"{where}: rows of {name}, in the order of the files")
        keys = Counter((row["offset"], row.get("name") if name == "metrics" else None) for row in rows[name])
        for (offset, _), count in keys.items():
            found.add("duplicated", count - 1, f"{where}: {name} at offset {offset}")
    cut: list[int] = []
    events = [
        *_lifecycle(run, attempt, _once(rows["lifecycle"]), cut, found),
        *_typed(run, attempt, "step", _once(rows["steps"]), found),
        *_typed(run, attempt, "episode", _once(rows["episodes"]), found),
    ]
    events.sort(key=lambda event: event.offset)
    # Only the last write of all can have been cut.
    good = len(cut) == 1 and (not events or cut[0] > events[-1].offset)
    found.torn += len(cut) if good else 0
    found.add("unknown", 0 if good else len(cut), f"{where}: unparsed lines at {cut[:5]}")
    found.events += len(events)
    # An attempt whose actor or driver died before it had begun has no such line; one that printed has.
    begun = any(row["event"] == "attempt_started" for row in rows["lifecycle"])
    found.add("lost", not begun and bool(records), f"{where}: attempt_started")
    by_thread = defaultdict(list)
    for event in events:
        by_thread[event.thread].append(event.number)
    for thread in sorted({*by_thread, *records}):
        _check_thread(f"{where}, thread {thread}", by_thread[thread], records.get(thread), found)
    _check_metrics(where, events, rows["metrics"], found)


def _once(rows: Iterable[Row]) -> list[Row]:
    """Rows by their offsets; what is there again has been counted."""
    return list({row["offset"]: row for row in reversed(list(rows))}.values())


def _descents(values: list[int]) -> int:
    """How many come after a larger one."""
    highest, count = -1, 0
    for value in values:
        count += value < highest
        highest = max(highest, value)
    return count


def _check_thread(where: str, numbers: list[int], record: tuple[int, int] | None, found: Findings) -> None:
    """``numbers``: of the thread's events, in the order of their offsets."""
    if record is None:
        found.add("unknown", len(numbers), f"{where}: events of a thread that left no record")
        return
    written, begun = record
    there = Counter(numbers)
    found.add("duplicated", len(numbers) - len(there), f"{where}: numbers that come again")
    found.add("unknown", sum(1 for number in there if not 0 <= number < begun), f"{where}: never printed")
    upto = max(written, max(there, default=-1) + 1)
    missing = [number for number in range(upto) if number not in there]
    found.add("lost", len(missing), f"{where}: {missing[:5]} ... of {written} recorded, {begun} begun")
    found.add("reordered", _descents(list(there)), f"{where}: numbers do not rise with the offsets")


def _lifecycle(run: str, attempt: int, rows: list[Row], cut: list[int], found: Findings) -> Iterator[Event]:
    """``cut`` gets the offsets of lines that are no whole JSON, and were not meant to be such."""
    where = f"run {run}, attempt {attempt}"
    supervisors: Counter[str] = Counter()
    for row in rows:
        event, at = row["event"], f"{where}: {row['event']} at offset {row['offset']}"
        if row["source"] == "supervisor":
            supervisors[event] += 1
            found.add("unknown", event not in BY_SUPERVISOR, f"{at}, from the supervisor")
        elif event == "unparsed" and (whole := BROKEN.fullmatch(row["payload"])):
            yield from _event(run, attempt, "broken", row["offset"], _loads(whole[1] + "}"), found)
        elif event == "unparsed":
            cut.append(row["offset"])
        elif event == "chaos_note":
            yield from _event(run, attempt, event, row["offset"], _loads(row["payload"]).get("payload"), found)
        elif event in BY_WORKER:
            yield from _event(run, attempt, event, row["offset"], _loads(row["payload"]), found)
        else:
            found.add("unknown", 1, at)
    for event, count in supervisors.items():
        found.add("duplicated", count - 1, f"{where}: {event} from the supervisor")


def _typed(run: str, attempt: int, kind: str, rows: list[Row], found: Findings) -> Iterator[Event]:
    """Events of the tables of steps and episodes, put together again from their columns."""
    for row in rows:
        facts = dict(_loads(row["payload"]))
        if kind == "step":
            facts["step_index"] = row["step"]
            facts["action"], facts["observation"] = json.loads(row["action"]), json.loads(row["observation"])
            taken = ("episode", "agent_id", "reward", "terminated", "truncated")
        else:
            facts["metadata"] = json.loads(row["metadata"])
            taken = ("episode", "total_reward", "steps", "terminated", "truncated")
        facts.update({name: row[name] for name in taken})
        yield from _event(run, attempt, kind, row["offset"], facts, found)


def _event(run: str, attempt: int, kind: str, offset: int, facts: Any, found: Findings) -> Iterator[Event]:
    """The event, if it can be known as one of ours."""
    where = f"run {run}, attempt {attempt}: {kind} at offset {offset}"
    if not isinstance(facts, dict) or not isinstance(facts.get("n"), int) or "thread" not in facts:
        found.add("unknown", 1, where)
        return
    said = {name: value for name, value in facts.items() if name != "check"}
    text = json.dumps([kind, run, attempt, said], sort_keys=True, separators=(",", ":"))
    found.add("changed", facts.get("check") != f"x{crc32(text.encode()):08x}", f"{where}: {str(facts)[:300]}")
    yield Event(offset, facts["thread"], facts["n"], _metrics(kind, facts))


def _metrics(kind: str, facts: Row) -> dict[str, tuple[int, float]]:
    if kind == "heartbeat":
        named = {"n": facts["n"], "score": facts["score"], "losses/policy": facts["losses"]["policy"]}
        step = facts["step"]
    elif kind == "episode":
        more = facts["metadata"]
        named = {"return": facts["total_reward"], "length": facts["steps"], "wins": more["wins"]}
        named = {f"episode/{name}": value for name, value in named.items()}
        step = more["global_step"]
    else:
        return {}
    return {name: (step, float(value)) for name, value in named.items()}


def _check_metrics(where: str, events: list[Event], rows: list[Row], found: Findings) -> None:
    expected = {(event.offset, name): item for event in events for name, item in event.metrics.items()}
    seen = set()
    for row in rows:
        key = row["offset"], row["name"]
        seen.add(key)
        at = f"{where}: metric {row['name']} at offset {row['offset']}"
        if key not in expected:
            found.add("unknown", 1, at)
        else:
            found.add("changed", (row["step"], row["value"]) != expected[key], at)
    missing = [key for key in expected if key not in seen]
    found.add("lost", len(missing), f"{where}: metrics, e.g. {missing[:3]}")


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return {}


def table(found: Findings, kills: Counter[str]) -> str:
    """The result, for people."""
    by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(kills.items()))
    lines = [
        ("workers", found.workers),
        ("attempts that printed", found.attempts),
        ("events recorded by the workers", found.recorded),
        ("events in Parquet", found.events),
        ("rows in Parquet, all tables", found.rows),
        ("kill -9", f"{sum(kills.values())}: {by_kind}"),
        ("lines cut by a kill, kept as such", found.torn),
        ("lost", found.lost),
        ("duplicated", found.duplicated),
        ("reordered", found.reordered),
        ("changed", found.changed),
        ("of unknown origin", found.unknown),
    ]
    width = max(len(name) for name, _ in lines)
    shown = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in lines]
    return "\n".join([*(f"{name:{width}}  {value}" for name, value in shown), *found.notes])


def kills_in(path: Path) -> Counter[str]:
    """Kills by kind, from the killer's own list."""
    entries = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return Counter(entry["kind"] for entry in entries if entry["signal"] == "SIGKILL")


def main(folder: str) -> int:
    """Check the folder that a chaos run left."""
    (telemetry,) = Path(folder, "results").glob("*/telemetry")
    found = check(Path(folder, "truth"), telemetry)
    print(table(found, kills_in(Path(folder, "kills.jsonl"))))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
