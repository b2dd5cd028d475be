"""What starting a run costs, beside a bare Ray actor that starts the same process.

Both on one embedded Ray, in turn. The process is the standard-library worker of the tests, told to count to one.

- *to first line*: from asking for the actor until the worker has printed its first telemetry line;
- *to result*: from asking for the actor until the result is with the driver; for us that includes every event in
  Parquet.

``python tests/benchmarks/bench_launch.py [--json] [--pairs N]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptOrder, HubOrder, WorkerLaunch
from mosaic_cluster.runtime.ray_backend import RayBackend
from mosaic_cluster.supervision import Limits

FIXTURES = Path(__file__).parents[1] / "fixtures" / "workers"
CONFIG = {"steps": 1, "pause": 0.0}


@ray.remote(num_cpus=1)
class Bare:
    """Starts a process and waits for it."""

    def run(self, folder: str, command: list[str], environment: dict[str, str]) -> int:
        with open(Path(folder, "stdout.log"), "w") as out:
            return subprocess.run(command, cwd=folder, env=environment, stdout=out, check=False).returncode


def first_line(log: Path, begun: float) -> float:
    """Seconds until the worker's own first line, as that line says."""
    for text in log.read_text().splitlines():
        line = json.loads(text)
        if line["event"] == "run_started":
            return float(line["timestamp"]) - begun
    raise SystemExit(f"{log} has no run_started")


def bare(folder: Path) -> tuple[float, float]:
    """Through a bare actor."""
    from mosaic_cluster.catalog import worker_environment

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"run_id": folder.name, "seed": 1, **CONFIG}))
    command = [sys.executable, "-m", "scripted_worker.cli", "--config", str(folder / "config.json")]
    environment = worker_environment(os.environ)
    begun = time.time()
    actor = Bare.remote()  # type: ignore[attr-defined]
    assert ray.get(actor.run.remote(str(folder), command, environment)) == 0
    total = time.time() - begun
    ray.kill(actor)
    return first_line(folder / "stdout.log", begun), total


def ours(backend: RayBackend, experiment: Path, node: str, number: int) -> tuple[float, float]:
    """Through the backend, as the driver does it."""
    run_id = f"01ARZ3NDEKTSV4RRFFQ69G5F{number:02d}"
    order = AttemptOrder(
        experiment_id="bench",
        experiment_dir=str(experiment),
        run_id=run_id,
        attempt=1,
        worker=WorkerLaunch("scripted", "scripted_worker", True),
        config=CONFIG,
        seed=1,
        placement=Placement(run_id, node, "node", 1.0),
        limits=Limits(),
    )
    begun = time.time()
    handle = backend.start(order)
    result = handle.poll()
    while result is None:
        backend.wait([handle], 0.2)
        result = handle.poll()
    total = time.time() - begun
    assert result.outcome.state == "COMPLETED", result
    assert result.committed == result.log_bytes
    return first_line(order.attempt_dir() / "stdout.log", begun), total


def measure(pairs: int) -> dict[str, Any]:
    """All pairs on one embedded Ray."""
    os.environ["PYTHONPATH"] = str(FIXTURES)
    backend = RayBackend()
    rows: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        experiment = Path(name, "experiment")
        experiment.mkdir()
        (experiment / "experiment.json").write_text("{}")
        backend.open("bench", str(experiment), HubOrder())
        node = ray.get_runtime_context().get_node_id()
        for number in range(pairs + 1):
            if number % 2:
                theirs = bare(Path(name, f"bare-{number}"))
                mine = ours(backend, experiment, node, number)
            else:
                mine = ours(backend, experiment, node, number)
                theirs = bare(Path(name, f"bare-{number}"))
            rows.append((theirs, mine))
        backend.close()
    rows = rows[1:]  # the first of each also imports
    return {
        "benchmark": "launch",
        "peer": "a bare Ray actor that starts the same process",
        "pairs": pairs,
        "peer_first_line_s": statistics.median(theirs[0] for theirs, _ in rows),
        "mosaic_first_line_s": statistics.median(mine[0] for _, mine in rows),
        "first_line_overhead_s": statistics.median(mine[0] - theirs[0] for theirs, mine in rows),
        "peer_result_s": statistics.median(theirs[1] for theirs, _ in rows),
        "mosaic_result_s": statistics.median(mine[1] for _, mine in rows),
        "result_overhead_s": statistics.median(mine[1] - theirs[1] for theirs, mine in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What starting a run costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of launches (default: %(default)s)")
    args = parser.parse_args()
    found = measure(args.pairs)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{args.pairs} pairs of launches, medians in seconds")
    print(f"{'':16}{'bare actor':>12}{'mosaic':>10}{'more':>10}")
    for name, text in (("first_line", "to first line"), ("result", "to result")):
        peer, mine, more = found[f"peer_{name}_s"], found[f"mosaic_{name}_s"], found[f"{name}_overhead_s"]
        print(f"{text:16}{peer:>12.3f}{mine:>10.3f}{more:>10.3f}")


if __name__ == "__main__":
    main()
