"""Closing an attempt: its log gets whole lines and a whole lifecycle, then one outcome is written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mosaic_cluster.logs import RELEASED, Released, read_released
from mosaic_cluster.supervision.outcome import OUTCOME, Outcome, last_lines, read_outcome, write_json
from mosaic_cluster.supervision.tree import find, sweep
from mosaic_cluster.supervision.watching import LogWatch

ENDING_OF = {
    "COMPLETED": "run_completed",
    "FAILED": "run_failed",
    "CANCELLED": "run_cancelled",
    "PAUSED": "run_cancelled",
}
LIVING_SUPERVISOR_SECONDS = 5.0


def seal(attempt_dir: str | Path, run_id: str, outcome: Outcome, watch: LogWatch | None = None) -> Outcome:
    """Close an attempt. Sealing again changes nothing.

    The log's last line is ended if it is not; lifecycle lines that the worker did not write are added, marked
    ``"source": "supervisor"``, so that the last ending in the log always agrees with the outcome. Where a part of
    its logs was let go, one line says so.

    Args:
        attempt_dir: its folder.
        run_id: whose attempt it is.
        outcome: how it ended.
        watch: what is known of its log; read anew by default.

    Returns:
        The outcome that stands: an earlier one, if there was one.
    """
    folder = Path(attempt_dir)
    earlier = read_outcome(folder)
    if earlier is not None:
        return earlier
    log = folder / "stdout.log"
    if watch is None:
        watch = LogWatch(log)
    watch.look(time.monotonic(), budget=1 << 62)
    lines = []
    if not watch.started:
        lines.append(_line("run_started", run_id, outcome.started_at, {}))
    let_go = _let_go(folder)
    if let_go and not watch.told:
        lines.append(_line("log_released", run_id, outcome.ended_at, let_go))
    if outcome.warnings:
        lines.append(_line("warned", run_id, outcome.ended_at, {"messages": outcome.warnings}))
    ending = ENDING_OF[outcome.state]
    if watch.ending != ending:
        payload = {"code": outcome.code, "message": outcome.message}
        lines.append(_line(ending, run_id, outcome.ended_at, payload))
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines.insert(0, b"\n")
        if lines:
            os.write(descriptor, b"".join(lines))
    finally:
        os.close(descriptor)
    write_json(folder / OUTCOME, outcome.to_dict())
    return outcome


def _let_go(folder: Path) -> dict[str, int]:
    """What of the logs was let go: bytes of each, and how many lines that were no telemetry; empty if nothing."""
    out, err = (read_released(folder / name) for name in ("stdout.log", "stderr.log"))
    found: dict[str, int] = {}
    if out is not None:
        found.update(bytes=out.size, log_lines=out.log_lines)
    if err is not None:
        found.update(stderr_bytes=err.size, stderr_lines=err.log_lines)
    return found


def _line(event: str, run_id: str, timestamp: float, payload: Mapping[str, Any]) -> bytes:
    document = {
        "event": event,
        "payload": dict(payload),
        "run_id": run_id,
        "source": "supervisor",
        "timestamp": timestamp,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def close_lost(attempt_dir: str | Path, run_id: str, attempt: int, code: str, message: str) -> Outcome:
    """Close an attempt whose owner is gone.

    A supervisor that still lives seals it itself, and is given a few seconds for that; then everything of the
    attempt that runs on this machine is killed.

    Args:
        attempt_dir: its folder; made if absent.
        run_id: whose attempt it is.
        attempt: its number.
        code: of the outcome, if nobody else writes one; message: likewise.
    """
    folder = Path(attempt_dir)
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + LIVING_SUPERVISOR_SECONDS
    while read_outcome(folder) is None and find(run_id, attempt) and time.monotonic() < end:
        time.sleep(0.05)
    sweep(run_id, attempt)
    return seal(folder, run_id, lost(folder, code, message))


def close_without_log(
    attempt_dir: str | Path,
    run_id: str,
    attempt: int,
    message: str,
    committed: int,
    *,
    first: bytes = b"",
    last_step: int | None = None,
    last_seen: float | None = None,
) -> Outcome:
    """Close an attempt whose log is gone with its node's disk.

    What is committed of the log stands in for it: a file of that size, all of which was let go, to which the end
    is added as to any other.

    Args:
        attempt_dir: its folder on this machine, with what storage has of its records.
        message: of the outcome, whose code is ``node_lost``.
        committed: byte up to which the log is in Parquet.
        first: the line that it began with, which is written again if nothing is committed.
        last_step: last environment step in there; last_seen: unix time of the last line in there.
    """
    folder = Path(attempt_dir)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(run_id, attempt)
    log = folder / "stdout.log"
    if committed:
        gap = Released(0, committed, started=True, last_step=last_step)
        write_json(folder / RELEASED, {log.name: gap.to_dict()})
    with log.open("ab") as stream:
        stream.truncate(committed)
        stream.write(b"" if committed else first)
    outcome = replace(lost(folder, "node_lost", message, last_seen), telemetry_lost_from=committed)
    watch = LogWatch(log)
    watch.told = True  # by the outcome: what is missing here was not let go
    return seal(folder, run_id, outcome, watch)


def lost(folder: Path, code: str, message: str, last_seen: float | None = None) -> Outcome:
    """The outcome of an attempt that nobody saw end, from what it left in its folder.

    Args:
        last_seen: unix time when it was known to run; by default, when it last wrote something.
    """
    watch = LogWatch(folder / "stdout.log")
    watch.look(time.monotonic(), budget=1 << 62)
    now = time.time()
    started = _started_at(folder) or now
    return Outcome(
        state="FAILED",
        code=code,
        message=message,
        started_at=started,
        ended_at=now,
        duration=max(0.0, (last_seen or _last_written(folder, started)) - started),
        last_step=watch.last_step,
        stderr_tail=last_lines(folder / "stderr.log"),
        retryable=True,
    )


def _started_at(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / "launch.json").read_text(encoding="utf-8"))["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _last_written(folder: Path, started: float) -> float:
    """When it was last heard of: it did not run until somebody came to close it."""
    times = [started]
    for name in ("stdout.log", "stderr.log"):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)
