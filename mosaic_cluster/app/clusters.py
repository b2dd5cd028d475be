"""Looking at clusters and pretending them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mosaic_cluster.app.backends import make_backend
from mosaic_cluster.inventory import read_cluster
from mosaic_cluster.placement import ClusterView
from mosaic_cluster.worker.errors import BackendError

LOOK_SECONDS = 0.2


def cluster_view(on: str | None, address: str | None) -> ClusterView:
    """A cluster as it is described, or as it is now.

    Args:
        on: a cluster file or a nodes table; ``None``: the live one.
        address: of the live Ray cluster; ``None``: an embedded one, which is this machine.

    Raises:
        InvalidInput: the description is wrong; carries every problem.
        BackendError: the cluster cannot be reached.
    """
    if on is not None:
        return read_cluster(on)
    backend = make_backend("ray", address)
    try:
        return backend.view()
    finally:
        backend.close()


@contextmanager
def simulated(cluster: str) -> Iterator[Any]:
    """A simulated cluster on this machine: a :class:`mosaic_cluster.runtime.simulating.SimulatedCluster`.

    Args:
        cluster: a nodes table, or a cluster file.

    Raises:
        InvalidInput: the description is wrong, or cannot be pretended.
        BackendError: Ray is not installed, or does not start.
    """
    view = read_cluster(cluster)
    try:
        module = import_module("mosaic_cluster.runtime.simulating")
        running = module.SimulatedCluster(view)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise BackendError("Ray is not installed here: `pip install 'mosaic-cluster[cluster]'`") from error
    with running:
        yield running


def simulate(cluster: str, started: Callable[[Any], None]) -> None:
    """Keep a simulated cluster up until Ctrl-C or SIGTERM, then end all of it.

    Args:
        cluster: a nodes table, or a cluster file.
        started: called with the cluster once its nodes answer.
    """
    # Ray puts handlers of its own, which drain nodes first: ours stand before and after it.
    handlers = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with simulated(cluster) as running:
            for number in handlers:
                signal.signal(number, _leave)
            started(running)
            while True:
                running.look_after()
                time.sleep(LOOK_SECONDS)
    except _Left:
        return
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Left(BaseException):
    """Somebody wants it to end."""


def _leave(number: int, frame: Any) -> None:
    del frame
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # nothing may interrupt the cleaning up
    raise _Left(number)
