"""Latest values of running attempts, from the hub's memory to whoever looks.

A hub publishes what it holds as one small document in storage, a few times a second: watching needs no port, no
cluster, and takes nothing from the hub but that write.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import NotFound, StorageError

LIVE = "live"
MOST_METRICS = 200
"""Of each run; a worker that invents names must not fill the hub's memory."""


@dataclass
class LiveRun:
    """What was heard last of one run.

    Attributes:
        attempt: its number.
        step: largest environment step; ts: time of the last event, microseconds since 1970 UTC.
        events: telemetry lines of this attempt that this hub has taken.
        metrics: latest step and value of each metric.
    """

    attempt: int
    step: int | None = None
    ts: int | None = None
    events: int = 0
    metrics: dict[str, tuple[int | None, float]] = field(default_factory=dict)


class LiveValues:
    """Collects the latest values of all runs."""

    def __init__(self) -> None:
        self.runs: dict[str, LiveRun] = {}
        self.changed = False

    def take(
        self,
        run_id: str,
        attempt: int,
        step: int | None,
        ts: int | None,
        metrics: Mapping[str, tuple[int | None, float]],
        events: int,
    ) -> None:
        """What a batch said. An earlier attempt's tail, brought in late, changes nothing."""
        run = self.runs.get(run_id)
        if run is None or run.attempt < attempt:
            before = run.metrics if run is not None else {}
            run = self.runs[run_id] = LiveRun(attempt, metrics=dict(before))
        elif run.attempt > attempt:
            return
        run.step, run.ts = step, ts
        run.events += events
        for name, reading in metrics.items():
            if name in run.metrics or len(run.metrics) < MOST_METRICS:
                run.metrics[name] = reading
        self.changed = True

    def document(self, written_at: float) -> bytes:
        """What is published, as JSON; clears :attr:`changed`. Values that are no finite number are ``null``."""
        self.changed = False
        runs = {
            run_id: {
                "attempt": run.attempt,
                "step": run.step,
                "ts": run.ts,
                "events": run.events,
                "metrics": {
                    name: [step, value if math.isfinite(value) else None] for name, (step, value) in run.metrics.items()
                },
            }
            for run_id, run in self.runs.items()
        }
        return json.dumps({"written_at": written_at, "runs": runs}, separators=(",", ":")).encode()


def live_name(shard: int) -> str:
    """Where a hub publishes, below the telemetry folder."""
    return f"{LIVE}/{shard}.json"


def read_live(telemetry: Storage, shard: int | None = None) -> dict[str, LiveRun]:
    """What the hubs of an experiment, or one of them, published last, by run id; empty if they never did."""
    found: dict[str, LiveRun] = {}
    for name in telemetry.list(LIVE) if shard is None else [live_name(shard)]:
        for run_id, run in _runs(telemetry, name):
            found[run_id] = LiveRun(
                run["attempt"],
                run["step"],
                run["ts"],
                run["events"],
                {key: (step, math.nan if value is None else value) for key, (step, value) in run["metrics"].items()},
            )
    return found


def _runs(telemetry: Storage, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield from telemetry.get_json(name)["runs"].items()
    except (NotFound, StorageError):
        return  # not there any more, or not ours
