"""A hub's health as Ray metrics, which every node exports to Prometheus."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

COMMIT_BOUNDARIES = [0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]
"""Seconds."""


class HubMetrics:
    """Reports one hub; the names get ``ray_`` in front when they are exported."""

    def __init__(self, experiment_id: str, shard: int) -> None:
        tags = {"experiment": experiment_id, "shard": str(shard)}
        keys = tuple(tags)
        self._events = Counter("mosaic_hub_events", "Telemetry lines taken", tag_keys=keys)
        self._rows = Counter("mosaic_hub_rows", "Rows committed to Parquet", tag_keys=keys)
        self._pending = Gauge("mosaic_hub_pending_bytes", "Bytes taken and not committed yet", tag_keys=keys)
        self._unread = Gauge("mosaic_hub_unread_bytes", "Bytes of logs that were not sent yet", tag_keys=keys)
        self._oldest = Gauge("mosaic_hub_commit_age_seconds", "Age of what waits to be committed", tag_keys=keys)
        self._commits = Histogram(
            "mosaic_hub_commit_seconds", "Time a commit took", boundaries=COMMIT_BOUNDARIES, tag_keys=keys
        )
        for metric in vars(self).values():
            metric.set_default_tags(tags)
        self._before = {"events": 0, "rows": 0, "commits": 0}

    def report(self, stats: dict[str, Any]) -> None:
        """Tell what :meth:`HubCore.stats` says."""
        self._pending.set(stats["pending_bytes"])
        self._unread.set(stats["unread"])
        self._oldest.set(stats["oldest"])
        for name, counter in (("events", self._events), ("rows", self._rows)):
            if stats[name] > self._before[name]:
                counter.inc(stats[name] - self._before[name])
        if stats["commits"] > self._before["commits"]:
            self._commits.observe(stats["commit_seconds"])
        self._before = {name: stats[name] for name in self._before}
