"""Our side of the telemetry benchmarks: the one place that makes a hub, and runs on the real path.

A measurement has its own experiment folder and its own hub actor, as `RayBackend.open` makes it; each worker process
has its supervisor and its worker actor, as `RayBackend.start` makes them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import ray
from telemetry_events import start_all

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptOrder, Handle, HubOrder, WorkerLaunch
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.runtime.ray_backend import RayBackend
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits

HERE = Path(__file__).parent
SECONDS = 300.0
RUN_PREFIX = "01ARZ3NDEKTSV4RRFFQ6"


def make_hub(folder: Path) -> HubService:
    """A hub in this process."""

    def fenced() -> None:
        raise SystemExit(f"another hub writes to {folder}")

    return HubService(Storage.open(folder), fenced)


def start_ray() -> RayBackend:
    """An embedded Ray whose workers find the modules of this folder. Close it at the end."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return RayBackend()


def run_id_of(number: int) -> str:
    """A valid run id for each number."""
    return f"{RUN_PREFIX}{number:06d}"


@dataclass(frozen=True)
class Flow:
    """What one measurement saw.

    Attributes:
        seconds: from the first worker's first write until the last event's row was committed and acknowledged.
        printing: of these, until the last worker had printed all.
        cpu: seconds of CPU by kind of process, where it was asked for.
    """

    events: int
    rows: int
    seconds: float
    printing: float
    cpu: dict[str, float]


def flow(folder: Path, shape: str, producer: str, processes: int, events: int, *, watch_cpu: bool = False) -> Flow:
    """Worker processes print; measure until every row is committed and acknowledged."""
    experiment = folder / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "experiment.json").write_text("{}")
    experiment_id = f"bench-{time.time_ns()}"
    backend = RayBackend()  # shares the Ray that runs already
    try:
        backend.open(experiment_id, str(experiment), HubOrder())
        config = {"shape": shape, "producer": producer, "events": events // processes}
        command = (sys.executable, str(HERE / "telemetry_producer.py"))
        orders = [order_of(experiment_id, experiment, number, config, command) for number in range(processes)]
        handles = [backend.start(order) for order in orders]
        start_all([order.run_dir for order in orders])
        cpu = _Cpu() if watch_cpu else None
        ended = wait_for(handles, SECONDS, cpu)
    finally:
        backend.close()
    times = [json.loads((order.run_dir / "times.json").read_text()) for order in orders]
    began = min(each["began"] for each in times)
    return Flow(
        events=events // processes * processes,
        rows=_rows(experiment / "telemetry"),
        seconds=ended - began,
        printing=max(each["ended"] for each in times) - began,
        cpu=cpu.by_kind() if cpu else {},
    )


def order_of(
    experiment_id: str,
    experiment: Path,
    number: int,
    config: dict[str, Any],
    command: tuple[str, ...],
    cpus: float = 0.25,
) -> AttemptOrder:
    """The first attempt of a run of this command, on this node."""
    run_id = run_id_of(number)
    return AttemptOrder(
        experiment_id=experiment_id,
        experiment_dir=str(experiment),
        run_id=run_id,
        attempt=1,
        worker=WorkerLaunch("producer", "producer", False, command=command),
        config=config,
        seed=1,
        placement=Placement(run_id, ray.get_runtime_context().get_node_id(), "node", cpus),
        limits=Limits(),
    )


def wait_for(handles: list[Handle], seconds: float, cpu: _Cpu | None = None) -> float:
    """Time at which the last result came: a result says that all of a log is committed."""
    end = time.monotonic() + seconds
    results: list[Any] = [None] * len(handles)
    while any(result is None for result in results):
        ray.wait([h.result_ref for h, r in zip(handles, results, strict=True) if r is None], timeout=0.2)
        ended = time.time()
        results = [handle.poll() for handle in handles]
        if cpu is not None:
            cpu.look()
        if time.monotonic() > end:
            raise SystemExit(f"not done after {seconds:g} s")
    for result in results:
        if result.outcome.state != "COMPLETED" or result.committed != result.log_bytes:
            raise SystemExit(f"a run went wrong: {result}")
    return ended


def _rows(telemetry: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in telemetry.glob("*/*.parquet"))


class _Cpu:
    """Seconds of CPU of the processes below this one, by kind. Takes some itself: not for timed measurements."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}
        self._last: dict[int, tuple[str, float]] = {}
        self.look()
        self._first = {pid: seconds for pid, (_, seconds) in self._last.items()}

    def look(self) -> None:
        # A supervisor is a session of its own, and need not be below us: its command line names the run.
        below = {process.pid for process in psutil.Process().children(recursive=True)}
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                if process.pid in below or RUN_PREFIX in words:
                    used = process.cpu_times()
                    self._last[process.pid] = (_kind(words), used.user + used.system)
            except psutil.Error:
                continue

    def by_kind(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for pid, (kind, seconds) in self._last.items():
            found[kind] = found.get(kind, 0.0) + seconds - self._first.get(pid, 0.0)
        return found


def _kind(words: str) -> str:
    kinds = {
        "ray::HubActor": "hub",
        "ray::WorkerActor": "worker actor",
        "mosaic_cluster.supervision": "supervisor",
        "telemetry_producer": "worker",
    }
    return next((kind for part, kind in kinds.items() if part in words), "ray itself")
