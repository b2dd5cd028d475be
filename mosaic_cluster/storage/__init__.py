"""One small storage interface: whole objects, create-if-absent, listing.

Every object appears whole or not at all. What must not be taken twice (a telemetry file number, a
journal entry) goes through :meth:`Storage.create`. A storage is a folder on a file system that every node reaches,
or a prefix in a bucket of an S3-compatible object store; nothing outside this room knows the difference.
"""

from __future__ import annotations

from mosaic_cluster.storage.caching import cache_folder, work_folder
from mosaic_cluster.storage.objects import Storage, default_location

__all__ = ["Storage", "cache_folder", "default_location", "work_folder"]
