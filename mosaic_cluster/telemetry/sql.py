"""SQL over an experiment's telemetry, with DuckDB: views over the Parquet files as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.files import data_files
from mosaic_cluster.telemetry.reading import ATTEMPT_STARTED, REQUESTS, plain, visible_parts
from mosaic_cluster.telemetry.schema import SCHEMAS, TABLES
from mosaic_cluster.worker.errors import InvalidInput, Problem

_VISIBLE = pa.schema([("run_id", pa.string()), ("attempt", pa.int32()), ("upto", pa.int64())])


def query(folder: str | Path | Storage, sql: str, more: Mapping[str, pa.Table] | None = None) -> pa.Table:
    """The answer to a query.

    ``lifecycle``, ``steps``, ``episodes`` and ``metrics`` are what counts: rows that a later attempt did again are
    left out, as in :class:`mosaic_cluster.telemetry.TelemetryReader`. With ``_all`` behind the name they are every
    row there is.

    Args:
        folder: the experiment's ``telemetry`` folder: a path, a URI, or a storage.
        more: further tables, by name.

    Raises:
        InvalidInput: DuckDB refuses the query; says which views there are.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in (more or {}).items():
            connection.register(name, table)
        _add_views(connection, Storage.open(folder))
        try:
            answer = connection.sql(sql)
            return pa.table({}) if answer is None else answer.to_arrow_table()
        except duckdb.Error as error:
            names = ", ".join([*(more or {}), *TABLES, *(f"{name}_all" for name in TABLES)])
            raise InvalidInput([Problem("SQL", f"{str(error).strip()}\nthere are the views {names}")]) from error


def _add_views(connection: Any, storage: Storage) -> None:
    for name in TABLES:
        files = list(data_files(storage, name))
        if not files:
            connection.register(f"{name}_all", SCHEMAS[name].empty_table())
        elif storage.is_local:
            listed = ", ".join("'" + str(storage.path(file)).replace("'", "''") + "'" for file in files)
            connection.execute(f"CREATE VIEW {name}_all AS SELECT * FROM read_parquet([{listed}])")
        else:
            connection.register(f"{name}_all", _dataset(storage, files, SCHEMAS[name]))
    connection.register("_visible", _visible(connection))
    for name in TABLES:
        # A run without a word about its attempts is seen whole.
        connection.execute(
            f"CREATE VIEW {name} AS SELECT r.* FROM {name}_all r LEFT JOIN _visible v USING (run_id, attempt) "
            "WHERE CASE WHEN v.attempt IS NULL THEN r.run_id NOT IN (SELECT run_id FROM _visible) "
            'ELSE v.upto IS NULL OR r."offset" <= v.upto END'
        )


def _dataset(storage: Storage, files: list[str], schema: pa.Schema) -> ds.Dataset:
    """A table's files of an object store. DuckDB's own client for these is not in it, and would be downloaded."""
    form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
    with ThreadPoolExecutor(REQUESTS) as pool:
        parts = list(pool.map(lambda file: form.make_fragment(storage.open_input(file)), files))
    return ds.FileSystemDataset(parts, plain(schema), form)


def _visible(connection: Any) -> pa.Table:
    """Which attempts of each run count, and how far."""
    rows = connection.execute(
        "SELECT run_id, attempt, payload->>'resumed_from_attempt', payload->>'resumed_from_offset' "
        "FROM lifecycle_all WHERE event = $event",
        {"event": ATTEMPT_STARTED},
    ).fetchall()
    starts: dict[str, dict[int, dict[str, Any]]] = {}
    for run_id, attempt, earlier, offset in rows:
        payload = {"resumed_from_attempt": _int(earlier), "resumed_from_offset": _int(offset)}
        starts.setdefault(run_id, {})[attempt] = payload
    found = [
        {"run_id": run_id, "attempt": part.attempt, "upto": part.upto}
        for run_id, attempts in starts.items()
        for part in visible_parts(attempts)
    ]
    return pa.Table.from_pylist(found, schema=_VISIBLE)


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
