"""The Parquet files of telemetry: their names, and what their footers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.schema import OLDEST_VERSION, SCHEMA_VERSION
from mosaic_cluster.worker.errors import StorageError

FOOTER = b"mosaic_cluster"
_NAME = re.compile(r"(\d+)-(\d{8,})\.parquet")


def file_name(table: str, shard: int, number: int) -> str:
    """Name of a data file, relative to the telemetry folder."""
    return f"{table}/{shard}-{number:08d}.parquet"


def file_number(name: str) -> tuple[int, int] | None:
    """Shard and number of a data file; ``None`` for whatever else lies there."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return None if found is None else (int(found[1]), int(found[2]))


def data_files(storage: Storage, table: str, shard: int | None = None) -> Iterator[str]:
    """Names of a table's files, of one shard or of all, oldest first within a shard."""
    for name in storage.list(table):
        found = file_number(name)
        if found is not None and shard in (None, found[0]):
            yield name


def next_number(storage: Storage, table: str, shard: int) -> int:
    """The number after the largest one that is taken."""
    taken = [found[1] for name in data_files(storage, table, shard) if (found := file_number(name))]
    return max(taken, default=-1) + 1


def read_footer(storage: Storage, name: str) -> dict[str, Any]:
    """What a telemetry file says of itself: ``schema_version``, ``complete``, ``ranges``, ``hub`` and ``commit``.

    Raises:
        StorageError: it is not one of ours, or of a version that this one does not read.
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
    version = footer["schema_version"]
    if not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        which = "a newer one" if version > SCHEMA_VERSION else "one that is not much newer"
        raise StorageError(
            f"{where} is of schema version {version}, this mosaic_cluster reads {OLDEST_VERSION} to {SCHEMA_VERSION}: "
            f"read it with the version that wrote it, or {which}"
        )
    return footer
