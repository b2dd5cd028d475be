"""The hub alone: fed with batches that were parsed before, and with how many runs it keeps up."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import ray
from telemetry_events import line
from telemetry_ours import make_hub, run_id_of

from mosaic_cluster.runtime.backend import HubOrder
from mosaic_cluster.runtime.hubs import NAMESPACE, hub_client, hub_name
from mosaic_cluster.runtime.ray_backend import RayBackend
from mosaic_cluster.telemetry import Ack, Batch, Pump, parse

RUNS = 64
THREADS = 8
KEEPS_UP_SECONDS = 0.5
LADDER = (50, 100, 200, 400, 800, 1600)


def batches_of(runs: int, events: int, rounds: int) -> list[Batch]:
    """``rounds`` batches of each run, of so many five-scalar heartbeats each; the runs take turns."""
    found: list[list[Batch]] = []
    for run in range(runs):
        run_id = run_id_of(run)
        lines, offset = [], 0
        for number in range(events):
            text = line("five", number, run_id)
            lines.append((offset, text[:-1]))
            offset += len(text)
        first = Batch(run_id, 1, 0, offset, parse(lines, run_id, 1).tables)
        found.append([_moved(first, number * offset) for number in range(rounds)])
    return [found[run][number] for number in range(rounds) for run in range(runs)]


def only_metrics(batches: list[Batch]) -> list[Batch]:
    """The same without the rows of other tables."""
    return [replace(batch, tables={"metrics": batch.tables["metrics"]}) for batch in batches]


def _moved(batch: Batch, by: int) -> Batch:
    """The same rows further on in the log."""
    tables = {}
    for name, rows in batch.tables.items():
        at = rows.schema.get_field_index("offset")
        columns = [*rows.columns]
        columns[at] = pc.add(columns[at], pa.scalar(by, pa.int64()))
        tables[name] = pa.RecordBatch.from_arrays(columns, schema=rows.schema)
    return replace(batch, first=batch.first + by, last=batch.last + by, tables=tables)


@dataclass(frozen=True)
class Fed:
    """What feeding took: rows, seconds on the clock, and seconds of CPU of all threads."""

    rows: int
    wall: float
    cpu: float


def feed(batches: list[Batch]) -> Fed:
    """From the first batch until the last row is committed, to a folder on the disk."""
    rows = sum(table.num_rows for batch in batches for table in batch.tables.values())
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        hub = make_hub(Path(folder))
        for batch in batches:
            while hub.append(batch).accepted != batch.last:
                time.sleep(0.002)  # it has enough waiting to be written
        hub.close()
        fed = Fed(rows, time.perf_counter() - wall, time.process_time() - cpu)
        if hub.stats()["rows"] != rows:
            raise SystemExit(f"the hub wrote {hub.stats()['rows']} rows of {rows}")
    return fed


class _Timed:
    """The hub's client, with a stop-watch."""

    def __init__(self, experiment_id: str, times: list[float]) -> None:
        self._client = hub_client(experiment_id, 1)
        self._times = times

    def append(self, batch: Batch) -> Ack:
        begun = time.perf_counter()
        ack = self._client.append(batch)
        self._times.append(time.perf_counter() - begun)
        return ack

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        self._client.flush(run_id, attempt, upto)

    def watermark(self, run_id: str, attempt: int) -> Ack:
        return self._client.watermark(run_id, attempt)


@dataclass
class _Log:
    """One simulated run: its log, the pump that reads it, and what of it is due."""

    run_id: str
    descriptor: int
    pump: Pump
    written: int = 0
    size: int = 0


@ray.remote(num_cpus=0, max_concurrency=2)
class Crowd:
    """Many runs: one thread writes their logs at a rate, some others step their pumps as an attempt does."""

    def __init__(self, experiment_id: str, folder: str, numbers: range) -> None:
        self._times: list[float] = []
        client = _Timed(experiment_id, self._times)
        self._logs = []
        for number in numbers:
            path, run_id = Path(folder, f"{number}.log"), run_id_of(number)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._logs.append(_Log(run_id, descriptor, Pump(path, run_id, 1, client)))
        self._stop = threading.Event()

    def go(self, rate: float, warm: float, seconds: float) -> dict[str, Any]:
        """Write and pump for so long. Returns append times, how far behind runs were, and what was written."""
        threads = [threading.Thread(target=self._pump, args=(part,)) for part in range(THREADS)]
        threads.append(threading.Thread(target=self._write, args=(rate,)))
        for thread in threads:
            thread.start()
        time.sleep(warm)
        self._times.clear()
        before, begun = sum(log.written for log in self._logs), time.monotonic()
        early = self._behind(rate, seconds / 2)
        late = self._behind(rate, seconds / 2)
        written, took = sum(log.written for log in self._logs) - before, time.monotonic() - begun
        self._stop.set()
        for thread in threads:
            thread.join()
        for log in self._logs:
            os.close(log.descriptor)
        return {"times": self._times, "early": early, "late": late, "rate": written / took / len(self._logs)}

    def _behind(self, rate: float, seconds: float) -> float:
        """Mean over some time of the seconds that an average run's unread tail stands for."""
        found, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
            unread = sum(log.pump.progress.unread / max(1.0, log.size / max(1, log.written)) for log in self._logs)
            found.append(unread / len(self._logs) / rate)
        return statistics.fmean(found)

    def _write(self, rate: float) -> None:
        """Each log gets a line when it is due; the runs are spread over the interval."""
        begun = time.monotonic()
        while not self._stop.wait(0.02):
            now = time.monotonic() - begun
            for index, log in enumerate(self._logs):
                due = int(now * rate + index / len(self._logs))
                if due > log.written:
                    text = b"".join(line("small", number, log.run_id) for number in range(log.written, due))
                    os.write(log.descriptor, text)
                    log.written, log.size = due, log.size + len(text)

    def _pump(self, part: int) -> None:
        logs = self._logs[part::THREADS]
        while not self._stop.is_set():
            begun = time.monotonic()
            for log in logs:
                log.pump.step()
            self._stop.wait(max(0.0, 0.1 - (time.monotonic() - begun)))


@dataclass(frozen=True)
class Level:
    """So many runs at once, and how the hub did.

    Attributes:
        p95: of the time of an append, in seconds, over Ray and back.
        behind: how many seconds of events an average run had unread; early: half the measurement before.
        wrote: events a second of each run that the simulation really wrote.
        hub_cpu: CPUs that the hub's process took.
    """

    runs: int
    rate: float
    p95: float
    early: float
    behind: float
    wrote: float
    hub_cpu: float

    @property
    def keeps_up(self) -> bool:
        return self.p95 < KEEPS_UP_SECONDS and self.behind < self.early + 0.25 and self.behind < 1.5

    @property
    def simulated(self) -> bool:
        """Whether the simulation itself could write at this rate."""
        return self.wrote > 0.95 * self.rate


def crowd(runs: int, rate: float, seconds: float) -> Level:
    """So many runs, each with so many events a second, at one hub actor."""
    experiment_id = f"bench-{time.time_ns()}"
    backend = RayBackend()  # shares the Ray that runs already
    actors: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            backend.open(experiment_id, folder, HubOrder())
            hub = psutil.Process(ray.get(ray.get_actor(hub_name(experiment_id, 0), NAMESPACE).pid.remote()))
            half = runs // 2
            for numbers in (range(half), range(half, runs)):
                actors.append(Crowd.remote(experiment_id, folder, numbers))  # type: ignore[attr-defined]
            answers = [actor.go.remote(rate, 2.0, seconds) for actor in actors]
            time.sleep(2.0)
            before, begun = sum(hub.cpu_times()[:2]), time.monotonic()
            found = ray.get(answers, timeout=120)
            used = (sum(hub.cpu_times()[:2]) - before) / (time.monotonic() - begun)
        finally:
            for actor in actors:
                ray.kill(actor)
            backend.close()
    times = sorted(value for each in found for value in each["times"])
    return Level(
        runs=runs,
        rate=rate,
        p95=times[int(len(times) * 0.95)] if times else float("inf"),
        early=max(each["early"] for each in found),
        behind=max(each["late"] for each in found),
        wrote=min(each["rate"] for each in found),
        hub_cpu=used,
    )


def climb(rate: float, seconds: float) -> Iterator[Level]:
    """More and more runs, until the hub or the simulation does not keep up."""
    for runs in LADDER:
        level = crowd(runs, rate, seconds)
        yield level
        if not level.keeps_up or not level.simulated:
            return
