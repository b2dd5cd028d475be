"""Requests to a running experiment (stop, pause, unpause), handed over through its storage.

Whoever reaches the storage reaches the driver, wherever it runs; nothing listens on a port.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ulid import ULID

from mosaic_cluster.storage import Storage

FOLDER = "control"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        verb: ``stop``, ``pause`` or ``unpause``.
        runs: run ids it is about; empty for all.
        by: who asked, as ``user@host``.
    """

    verb: str
    runs: tuple[str, ...]
    by: str
    name: str = ""


def send(storage: Storage, verb: str, runs: Sequence[str] = ()) -> str:
    """Leave a request for the experiment whose folder ``storage`` is; returns its object name."""
    name = f"{FOLDER}/{ULID()}.json"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    storage.create_json(
        name, {"verb": verb, "runs": list(runs), "by": f"{user}@{socket.gethostname()}", "at": time.time()}
    )
    return name


def waiting(storage: Storage) -> list[Request]:
    """Requests not yet taken, oldest first."""
    found = []
    for name in storage.list(FOLDER):
        document: dict[str, Any] = storage.get_json(name)
        found.append(
            Request(
                verb=str(document.get("verb")),
                runs=tuple(document.get("runs") or ()),
                by=str(document.get("by")),
                name=name,
            )
        )
    return found


def taken(storage: Storage, request: Request) -> None:
    """Remove a request that has been acted on."""
    storage.delete(request.name)
