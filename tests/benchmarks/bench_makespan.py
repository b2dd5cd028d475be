"""How full a sweep keeps its slots: the time 64 sleeping runs of mixed length take, beside the ideal list schedule.

Real worker processes on an embedded Ray that is told it has eight CPUs (sleeping takes none). The ideal is Graham's
list schedule of the same lengths in the same order on eight machines, with nothing lost between two runs. A length is
what the worker sleeps: starting its process is ours to lose.

``python tests/benchmarks/bench_makespan.py [--json] [--runs N] [--shortest S] [--longest S]``
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.launching import launch, prepare
from mosaic_cluster.runtime.ray_backend import RayBackend

ROOT = Path(__file__).parents[1]
SLOTS = 8


def list_schedule(lengths: list[float], slots: int) -> float:
    """Makespan when each job, in order, goes to the machine that is free first (Graham 1969)."""
    free = [0.0] * slots
    for length in lengths:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


def measure(runs: int, shortest: float, longest: float) -> dict[str, Any]:
    """One sweep of sleeping runs."""
    logging.disable(logging.WARNING)
    rng = random.Random(0)
    lengths = [round(rng.uniform(shortest, longest), 2) for _ in range(runs)]
    sys.path[:0] = [str(ROOT)]
    from support import register

    with tempfile.TemporaryDirectory() as packages, tempfile.TemporaryDirectory() as folder:
        register(Path(packages), "curves_worker", {"curves": "curves_worker:get_worker_metadata"})
        sys.path[:0] = [packages]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "fixtures" / "workers"), packages])
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        backend = RayBackend()
        spec = {
            "kind": "sweep", "name": "makespan", "worker": "curves", "config": {"steps": 1},
            "space": {"pause": {"choice": lengths}}, "search": "grid", "seeds": [1],
            "metric": {"name": "score"}, "storage": folder,
        }  # fmt: skip
        prepared = prepare(spec, Catalog())
        begun = time.perf_counter()
        conductor = launch(prepared, backend)
        state = conductor.run_to_end()
        took = time.perf_counter() - begun
        assert state == "COMPLETED", conductor.status_document()
        backend.close()
        ray.shutdown()
    ideal = list_schedule(lengths, SLOTS)
    return {
        "benchmark": "makespan", "runs": runs, "slots": SLOTS, "peer": "the ideal list schedule",
        "ideal_s": ideal, "mosaic_s": took, "ratio": took / ideal, "lost_per_run_s": (took - ideal) * SLOTS / runs,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="How full a sweep keeps its slots.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--runs", type=int, default=64, help="runs (default: %(default)s)")
    parser.add_argument("--shortest", type=float, default=15.0, help="seconds (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=45.0, help="seconds (default: %(default)s)")
    args = parser.parse_args()
    found = measure(args.runs, args.shortest, args.longest)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{args.runs} sleeping runs of {args.shortest:g} to {args.longest:g} s in {SLOTS} slots")
    print(f"ideal list schedule {found['ideal_s']:.1f} s, mosaic sweep {found['mosaic_s']:.1f} s: "
          f"ratio {found['ratio']:.3f}, {found['lost_per_run_s']:.2f} s lost a run")  # fmt: skip


if __name__ == "__main__":
    main()
