"""Columns of Python values into Arrow record batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mosaic_cluster.telemetry.schema import SCHEMAS, TIME


def spread(spans: list[tuple[int, int, int | None, int]]) -> tuple[list[int], list[int], list[int | None]]:
    """Offset, time and step of each line, repeated for each of its metrics."""
    offsets: list[int] = []
    times: list[int] = []
    steps: list[int | None] = []
    for offset, ts, step, count in spans:
        offsets += [offset] * count
        times += [ts] * count
        steps += [step] * count
    return offsets, times, steps


def record_batch(name: str, run_id: str, attempt: int, columns: Sequence[Any]) -> pa.RecordBatch:
    """Rows of one table. ``columns``: values from ``offset`` on, in the order of the schema."""
    schema = SCHEMAS[name]
    rows = len(columns[0])
    arrays = [
        pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([run_id], pa.string())),
        pa.repeat(pa.scalar(attempt, pa.int32()), rows),
    ]
    arrays += [_array(values, schema.field(2 + index).type) for index, values in enumerate(columns)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        return pa.array(values, pa.int64()).cast(TIME)
    if pa.types.is_dictionary(kind):
        return _texts(values).dictionary_encode()
    if kind == pa.string():
        return _texts(values)
    return pa.array(values, kind)


def _texts(values: Any) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # A lone surrogate, legal in a JSON string ("\ud800") but not in UTF-8.
        escaped = [text and text.encode("utf-8", "backslashreplace").decode() for text in values]
        return pa.array(escaped, pa.string())
