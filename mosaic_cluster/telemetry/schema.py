"""The four tables: their columns, and the version that every file's footer names.

Rows carry where they came from: ``(run_id, attempt, offset)``, with ``offset`` the byte offset of the line in
the attempt's ``stdout.log``. That triple orders the rows and makes a replay recognisable.
"""

from __future__ import annotations

import pyarrow as pa

from mosaic_cluster.worker.errors import StorageError

SCHEMA_VERSION = 2
"""Version of the columns below. 2: all names are dictionaries (1: ``run_id``, ``event`` and ``name`` only)."""

OLDEST_VERSION = SCHEMA_VERSION - 1
"""Files of this version and of those since can be read."""

NAME = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("us", tz="UTC")

_ORIGIN = [
    pa.field("run_id", NAME),
    pa.field("attempt", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("ts", TIME),
]

LIFECYCLE = pa.schema(
    [
        *_ORIGIN,
        pa.field("event", NAME),
        pa.field("source", NAME),
        pa.field("payload", pa.string()),
    ]
)
STEPS = pa.schema(
    [
        *_ORIGIN,
        pa.field("episode", pa.int64()),
        pa.field("step", pa.int64()),
        pa.field("agent_id", NAME),
        pa.field("policy_label", NAME),
        pa.field("action", pa.string()),
        pa.field("observation", pa.string()),
        pa.field("reward", pa.float64()),
        pa.field("terminated", pa.bool_()),
        pa.field("truncated", pa.bool_()),
        pa.field("episode_seed", pa.int64()),
        pa.field("worker_id", NAME),
        pa.field("payload", pa.string()),
    ]
)
EPISODES = pa.schema(
    [
        *_ORIGIN,
        pa.field("episode", pa.int64()),
        pa.field("total_reward", pa.float64()),
        pa.field("steps", pa.int64()),
        pa.field("terminated", pa.bool_()),
        pa.field("truncated", pa.bool_()),
        pa.field("agent_id", NAME),
        pa.field("metadata", pa.string()),
        pa.field("payload", pa.string()),
    ]
)
METRICS = pa.schema(
    [
        *_ORIGIN,
        pa.field("name", NAME),
        pa.field("step", pa.int64()),
        pa.field("value", pa.float64()),
    ]
)

SCHEMAS: dict[str, pa.Schema] = {
    "lifecycle": LIFECYCLE,
    "steps": STEPS,
    "episodes": EPISODES,
    "metrics": METRICS,
}
TABLES = tuple(SCHEMAS)


def check_table(name: str, data: pa.Table | pa.RecordBatch) -> None:
    """Refuse rows that could not be written, before they sit among others that can.

    Raises:
        StorageError: there is no such table, or its columns differ.
    """
    schema = SCHEMAS.get(name)
    if schema is None:
        raise StorageError(f"there is no telemetry table {name!r}; there are {', '.join(TABLES)}")
    if not data.schema.equals(schema):
        raise StorageError(
            f"rows for the telemetry table {name} have the columns {data.schema.to_string()!r}, not those of "
            f"schema version {SCHEMA_VERSION}: producer and hub must run the same mosaic_cluster"
        )
