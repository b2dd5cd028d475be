"""The Parquet files of telemetry: their names, and what their footers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.schema import SCHEMA_VERSION
from mosaic_cluster.worker.errors import StorageError

SHARD = "0"
FOOTER = b"mosaic_cluster"


def read_footer(storage: Storage, name: str) -> dict[str, Any]:
    """What a telemetry file says of itself: ``schema_version``, ``complete`` and ``ranges``.

    Raises:
        StorageError: it is not one of ours, or of a newer version.
    """
    with opened(storage, name) as source:
        return footer_of(source, storage.describe(name))


@contextmanager
def opened(storage: Storage, name: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, of which no more is fetched than is read.

    Raises:
        StorageError: it cannot be read, or is no Parquet file.
    """
    try:
        with storage.open_input(name) as source, pq.ParquetFile(source, pre_buffer=True) as file:
            yield file
    except StorageError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{storage.describe(name)} is not a readable Parquet file: {error}") from error


def footer_of(file: pq.ParquetFile, where: str) -> dict[str, Any]:
    """What :func:`read_footer` gives, of an open file. ``where`` it is is for messages."""
    found = (file.metadata.metadata or {}).get(FOOTER)
    if found is None:
        raise StorageError(f"{where} was not written by mosaic_cluster; move it out of the telemetry folder")
    footer: dict[str, Any] = json.loads(found)
    if footer["schema_version"] > SCHEMA_VERSION:
        raise StorageError(
            f"{where} is of schema version {footer['schema_version']}, this mosaic_cluster reads up to "
            f"{SCHEMA_VERSION}: read it with the version that wrote it, or a newer one"
        )
    return footer


def data_files(storage: Storage, table: str) -> Iterator[str]:
    """Names of a table's files, oldest first."""
    for name in storage.list(table):
        if file_number(name) is not None:
            yield name


def file_number(name: str) -> int | None:
    """Number of a data file; ``None`` for whatever else lies there."""
    stem = name.rpartition("/")[2]
    shard, _, rest = stem.removesuffix(".parquet").partition("-")
    if not stem.endswith(".parquet") or shard != SHARD or not rest.isdigit():
        return None
    return int(rest)
