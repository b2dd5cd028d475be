"""Where RLlib runs: in the run's placement group of a cluster, or on a Ray of the run's own.

Either way all of it stays in one placement group, which is the run's share of CPUs and GPUs.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
WAIT_SECONDS = 0.2
OBJECT_STORE = 256 << 20
START_TRIES = 3
_FOLDER = "mosaic-ray-"


@dataclass(frozen=True)
class Home:
    """What the run has.

    Attributes:
        group: Ray's placement group.
        gpus: GPUs in it, or the share of one; those of the first bundle are for the algorithm itself.
        first_gpu: of these, what lies in the first bundle.
        joined: whether it is a cluster's; else it is a Ray of the run's own.
    """

    group: Any
    gpus: float
    first_gpu: float
    joined: bool

    def strategy(self) -> Any:
        """Scheduling of the algorithm's actor: in the first bundle, with all that it starts within the group."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(
            self.group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )


@contextmanager
def home(environ: Mapping[str, str], cpus: int, stop: Any = None) -> Iterator[Home]:
    """Connect, or start a Ray; ends what was begun.

    Args:
        environ: ``MOSAIC_RAY_ADDRESS``, ``MOSAIC_RAY_NAMESPACE``, ``MOSAIC_RAY_NODE`` and ``MOSAIC_PLACEMENT_GROUP``
            say which cluster to join; without them it is a Ray of the run's own.
        cpus: of such a Ray.
        stop: if it has ``install()``, signals stay its own. Where it says yes before the group is ready, that is not
            waited for.

    Raises:
        ConnectionError: the cluster or the group is not there.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # RLlib leaves `exec` and old stacks behind by itself; what it says about them is no news to anyone.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    joined = bool(environ.get("MOSAIC_RAY_ADDRESS"))
    with _joined(environ, stop) if joined else _own(environ, cpus, stop) as group:
        specs = group.bundle_specs
        gpus = sum(float(bundle.get("GPU", 0)) for bundle in specs)
        yield Home(group, gpus, float(specs[0].get("GPU", 0)) if specs else 0.0, joined)


@contextmanager
def _joined(environ: Mapping[str, str], stop: Any) -> Iterator[Any]:
    import ray

    address = environ["MOSAIC_RAY_ADDRESS"]
    try:
        with _signals_stay(stop):
            ray.init(
                address=address,
                namespace=environ["MOSAIC_RAY_NAMESPACE"],
                _node_ip_address=environ.get("MOSAIC_RAY_NODE"),
                **_quiet(),
            )
    except Exception as error:
        raise ConnectionError(f"the Ray cluster at {address} cannot be joined: {error}") from error
    try:
        name = environ["MOSAIC_PLACEMENT_GROUP"]
        try:
            group = ray.util.get_placement_group(name)
        except ValueError as error:
            raise ConnectionError(f"the cluster at {address} has no placement group {name}: {error}") from error
        yield group
    finally:
        ray.shutdown()


@contextmanager
def _own(environ: Mapping[str, str], cpus: int, stop: Any) -> Iterator[Any]:
    if "RAY_AUTH_MODE" not in os.environ:
        # Ray then turns token authentication on; the token is this process tree's own.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    _remove_left()
    # Short: Ray's sockets lie in it, and their paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp")
    options: dict[str, Any] = {"num_cpus": cpus, "_temp_dir": folder}
    if "CUDA_VISIBLE_DEVICES" in environ:
        options["num_gpus"] = len([each for each in environ["CUDA_VISIBLE_DEVICES"].split(",") if each.strip()])
    try:
        with _signals_stay(stop):
            _start(options)
        bundles = [{"CPU": 1.0} for _ in range(cpus)]
        gpus = int(ray.cluster_resources().get("GPU", 0))
        for number in range(gpus):
            if number == len(bundles):
                bundles.append({})
            bundles[number]["GPU"] = 1.0
        group = ray.util.placement_group(bundles, strategy="STRICT_PACK")
        _wait_for(group, stop)
        yield group
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(group: Any, stop: Any) -> None:
    """Until a group is ready, or the run is to stop.

    Raises:
        ray.exceptions.GetTimeoutError: it does not get so.
    """
    import ray

    ready = group.ready()
    until = time.monotonic() + READY_SECONDS
    while not (stop is not None and stop()):
        if ray.wait([ready], timeout=WAIT_SECONDS)[0] or time.monotonic() > until:
            ray.get(ready, timeout=0)
            return


@contextmanager
def _signals_stay(stop: Any) -> Iterator[None]:
    """Ray begins its start, which takes seconds, with a handler of SIGTERM that ends the process: it is not put."""
    if not hasattr(stop, "install"):
        yield
        return
    utils: Any = import_module("ray._private.utils")  # there is no other way to tell it; Ray's version is pinned
    puts, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = puts
        stop.install()


def _start(options: dict[str, Any]) -> None:
    """Start a Ray. It gives itself half a minute for that, which a busy machine may not keep: several tries."""
    import ray

    for attempt in range(START_TRIES):
        try:
            ray.init(
                address="local",
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **options,
                **_quiet(),
            )
            return
        except ValueError:
            raise  # of what it was told
        except Exception:
            ray.shutdown()
            if attempt + 1 == START_TRIES:
                raise


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _remove_left() -> None:
    """Folders of runs that were killed."""
    for folder in Path("/tmp").glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with suppress(OSError):
                shutil.rmtree(folder)


__all__ = ["Home", "home"]
