"""SQL over an experiment: its telemetry, and how its runs and trials stand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.telemetry.sql import query

_RUNS = pa.schema([
    ("run_id", pa.string()), ("trial", pa.string()), ("worker", pa.string()), ("seed", pa.int64()),
    ("state", pa.string()), ("reason", pa.string()), ("code", pa.string()), ("attempt", pa.int32()),
    ("failures", pa.int32()), ("node", pa.string()), ("step", pa.int64()), ("elapsed", pa.float64()),
    ("peak_rss", pa.int64()), ("params", pa.string()),
])  # fmt: skip
_TRIALS = pa.schema([
    ("trial", pa.string()), ("worker", pa.string()), ("state", pa.string()), ("reason", pa.string()),
    ("rung", pa.int32()), ("score", pa.float64()), ("params", pa.string()),
])  # fmt: skip


def query_experiment(home: ExperimentHome, sql: str) -> pa.Table:
    """The answer to a query over ``runs``, ``trials`` and the views of :func:`mosaic_cluster.telemetry.sql.query`.

    ``params`` is JSON text: ``params->>'learning_rate'`` takes a setting out of it.

    Raises:
        InvalidInput: DuckDB refuses the query.
    """
    status = read_status(home)
    trials = status.get("trials", ())
    params = {run_id: json.dumps(trial["params"]) for trial in trials for run_id in trial["runs"]}
    runs = [{**run, "params": params.get(run["run_id"])} for run in status["runs"]]
    told = [{**trial, "params": json.dumps(trial["params"])} for trial in trials]
    tables = {"runs": _table(runs, _RUNS), "trials": _table(told, _TRIALS)}
    return query(home.storage.at("telemetry"), sql, tables)


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
