"""Whole objects in a bucket of an S3-compatible object store, through ``obstore``.

The credential and the endpoint come from the environment alone, when the first request is made. ``obstore`` makes
single requests here, and what is tried again is decided in this file: only so is it known whether a conditional
write may have been done already when it is repeated.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from mosaic_cluster.storage.faults import Kind, brief, denied, kind_of, lasting
from mosaic_cluster.storage.local import partial
from mosaic_cluster.storage.objects import RETRY_SECONDS, Names, Storage
from mosaic_cluster.storage.uris import bucket_and_prefix
from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError, StorageUnavailable

CHUNK = 8 << 20
REQUEST_SECONDS = 60.0
FIRST_WAIT, LAST_WAIT = 0.1, 5.0
TOKEN = "mosaic-create"
# Without one of these, asking for a credential would mean asking the network of a cloud, for a long time.
SOURCES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_METADATA_ENDPOINT", "AWS_SKIP_SIGNATURE")  # fmt: skip

T = TypeVar("T")


class S3Storage(Storage):
    """A prefix in a bucket.

    Args:
        location: ``s3://bucket/prefix``.
        retry_seconds: for how long an operation is tried again after transient faults; one request may take
            as long again, at most a minute.
    """

    def __init__(self, location: str, retry_seconds: float = RETRY_SECONDS) -> None:
        try:
            self._bucket, self._prefix = bucket_and_prefix(location)
        except ValueError as error:
            raise StorageError(f"storage: {error}") from None
        self._retry_seconds = retry_seconds
        self._opened: dict[bool, S3Store] = {}
        self._bucket_seen = False

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def is_local(self) -> bool:
        return False

    def __reduce__(self) -> Any:
        return (S3Storage, (self.location, self._retry_seconds))

    def at(self, prefix: str) -> Storage:
        return S3Storage(f"{self.location}/{prefix}", self._retry_seconds)

    def _put(self, name: str, data: bytes) -> None:
        if len(data) > 2 * CHUNK:
            self._in_parts(name, data, len(data), f"write {name}")
            return
        self._do(
            f"write {name}",
            lambda: obstore.put(self._store(), name, data, mode="overwrite", use_multipart=False),
        )

    def _create(self, name: str, data: bytes) -> None:
        # An answer that got lost leaves open whether the object was written, and the next try finds one there. The
        # token says whose it is; equal bytes would not, as two writers may have the same to say.
        token, unsure = uuid.uuid4().hex, False

        def once() -> None:
            nonlocal unsure
            try:
                obstore.put(self._store(), name, data, mode="create", use_multipart=False, attributes={TOKEN: token})
            except BaseError as error:
                kind = kind_of(error)
                if kind is Kind.EXISTS and unsure and self._token(name) == token:
                    return
                unsure = unsure or kind is Kind.TRANSIENT
                raise

        self._do(f"create {name}", once)

    def _get(self, name: str) -> bytes:
        return self._do(f"read {name}", lambda: bytes(obstore.get(self._store(), name).bytes()), name)

    def exists(self, name: str) -> bool:
        try:
            self._head(name)
        except NotFound:
            return False
        return True

    def size(self, name: str) -> int:
        return int(self._head(name)["size"])

    def modified(self, name: str) -> float:
        return float(self._head(name)["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        try:
            self._do(f"delete {name}", lambda: obstore.delete(self._store(), name), name)
        except NotFound:
            return

    def list(self, prefix: str = "", after: str | None = None) -> Names:
        found = self._do(
            f"list {prefix or self.location}",
            lambda: obstore.list(self._store(), prefix=prefix or None, offset=after).collect(),
        )
        return sorted(item["path"] for item in found)

    def folders(self, prefix: str = "") -> Names:
        found = self._do(
            f"list {prefix or self.location}",
            lambda: obstore.list_with_delimiter(self._store(), prefix=prefix or None)["common_prefixes"],
        )
        return sorted(each.rstrip("/").rpartition("/")[2] for each in found)

    def _upload(self, name: str, path: Path) -> None:
        action = f"write {name} from {path}"
        try:
            size = path.stat().st_size
        except OSError as error:
            raise StorageError(f"{self.location}: cannot {action}: {error}") from error
        self._in_parts(name, path, size, action)

    def download(self, name: str, path: Path) -> None:
        while True:
            try:
                with self.open_ranges(name) as source, partial(path) as staged, open(staged, "wb") as target:
                    while part := source.read(CHUNK):
                        target.write(part)
                return
            except Replaced:  # in the middle of it; once more, so that no file has halves of two objects
                continue
            except OSError as error:
                if isinstance(error, StorageError):
                    raise
                raise StorageError(f"{self.location}: cannot copy {name} to {path}: {error}") from error

    def open_input(self, name: str) -> Any:
        import pyarrow as pa

        return pa.PythonFile(self.open_ranges(name), mode="r")

    def open_ranges(self, name: str) -> Any:
        """The object as a binary file that fetches what is read of it."""
        from mosaic_cluster.storage.ranged import RangedFile

        return RangedFile(lambda wanted, tag: self._range(name, wanted, tag), lambda: self._head(name))

    def _range(self, name: str, wanted: Any, tag: str | None) -> tuple[bytes, Any]:
        def once() -> tuple[bytes, Any]:
            options: Any = {"range": wanted, **({"if_match": tag} if tag else {})}
            found = obstore.get(self._store(), name, options=options)
            return bytes(found.bytes()), found.meta

        return self._do(f"read {name}", once, name)

    def _head(self, name: str) -> Any:
        def once() -> Any:
            try:
                return obstore.head(self._store(), name)
            except BaseError as error:
                if "status 400" not in brief(error):
                    raise
            # Such as an expired token, which only the body of an answer tells; one to HEAD has none.
            return obstore.get(self._store(), name, options={"range": (0, 1)}).meta

        return self._do(f"look at {name}", once, name)

    def _token(self, name: str) -> str | None:
        try:
            return obstore.get(self._store(), name, options={"head": True}).attributes.get(TOKEN)
        except FileNotFoundError:  # it was there, and is gone since: whose it was cannot be known any more
            return None

    def _in_parts(self, name: str, source: Any, size: int, action: str) -> None:
        """Write what may be large. A part that fails is sent again by ``obstore``; nothing is seen before the end."""
        chunk = max(CHUNK, -(-size // 9000))  # a store takes 10,000 parts
        self._do(
            action,
            lambda: obstore.put(self._store(patient=True), name, source, chunk_size=chunk, max_concurrency=4),
        )

    def _do(self, action: str, operation: Callable[[], T], name: str | None = None) -> T:
        """Do it; after transient faults again, with growing pauses, until it is given up."""
        self._check_credential(action)
        end, wait, tries = time.monotonic() + self._retry_seconds, FIRST_WAIT, 0
        while True:
            tries += 1
            try:
                answer = operation()
            except (BaseError, FileNotFoundError, ValueError) as error:
                kind = kind_of(error)
                if kind is not Kind.TRANSIENT:
                    # From none: what obstore says holds bodies of answers, and those may hold a key's id.
                    raise self._meaning(error, kind, action, name) from None
                pause = wait * random.uniform(0.5, 1.0)
                if time.monotonic() + pause > end:
                    raise StorageUnavailable(
                        f"{self.location}: cannot {action}: {brief(error)}, {tries} times in "
                        f"{self._retry_seconds:g} s; check that {_endpoint()} can be reached from this "
                        "machine and is well, then try again"
                    ) from None
            else:
                self._bucket_seen = True
                return answer
            time.sleep(pause)
            wait = min(2 * wait, LAST_WAIT)

    def _meaning(self, error: BaseException, kind: Kind, action: str, name: str | None) -> StorageError:
        if kind is Kind.EXISTS:
            return AlreadyExists(f"{self.location}: cannot {action}: it exists already")
        if kind is Kind.CHANGED:
            return Replaced(f"{self.location}: cannot {action}: it was replaced while it was read; read it again")
        if kind is Kind.MISSING and name is not None:
            if not self._bucket_seen and "NoSuchKey" not in str(error):
                self.list(name)  # an answer to HEAD has no body, which would tell a missing bucket from an object
            return NotFound(f"{self.location}: no object {name}")
        return lasting(error, self.location, self._bucket, action)

    def _check_credential(self, action: str) -> None:
        if self._opened:
            return
        missing = [each for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not os.environ.get(each)]
        if missing and not any(os.environ.get(each) for each in SOURCES):
            why = f"no credential was sent, as {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
            raise denied(self.location, self._bucket, action, why)

    def _store(self, patient: bool = False) -> S3Store:
        """The client; a patient one repeats single requests by itself."""
        if patient not in self._opened:
            endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
            if endpoint.username or endpoint.password:
                raise StorageError(
                    "AWS_ENDPOINT_URL holds credentials; leave them out, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                    "are for these"
                )
            seconds = timedelta(seconds=min(REQUEST_SECONDS, max(1.0, self._retry_seconds)))
            self._opened[patient] = S3Store(
                self._bucket,
                prefix=self._prefix or None,
                client_options={"allow_http": endpoint.scheme == "http", "timeout": seconds},
                retry_config={
                    "max_retries": 10_000 if patient else 0,
                    "retry_timeout": timedelta(seconds=self._retry_seconds),
                    "backoff": {"max_backoff": timedelta(seconds=LAST_WAIT)},
                },
                disable_bulk_delete=True,  # not every store knows it
            )
        return self._opened[patient]


class Replaced(StorageError):
    """The object was replaced while it was read."""


def _endpoint() -> str:
    """Where requests go, for messages."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    return f"AWS_ENDPOINT_URL ({endpoint.scheme}://{endpoint.netloc})" if endpoint.netloc else "Amazon S3"
