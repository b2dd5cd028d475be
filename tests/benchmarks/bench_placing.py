"""Time to place and start runs on a cluster of many nodes, beside bare Ray actors with fractions set by hand.

A simulated cluster of four nodes with two GPUs of 40 GiB each. Ours: a sweep of runs that ask for 5 GiB of GPU memory
and end at once, through the allocator, with journal, status and manifests as always; only the worker's own process is
left out. The peer: as many Ray actors with ``num_gpus=0.125``, called once and killed, all asked for at once, which Ray
starts as there is room.

``python tests/benchmarks/bench_placing.py [--json] [--runs N]``
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import arguments, report

ROOT = Path(__file__).parents[1]
NODES = "4x(8cpu,2xA100-40GB,name=node)"
SHARE = {"cpus": 0.5, "memory": "50MiB", "gpu_memory": "5GiB"}


def ours(address: str, runs: int) -> dict[str, float]:
    """Seconds until all have ended, and until the median one has."""
    import ray

    from mosaic_cluster.catalog import Catalog
    from mosaic_cluster.experiments.launching import launch, prepare
    from mosaic_cluster.runtime import ray_backend
    from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
    from mosaic_cluster.supervision import Outcome
    from mosaic_cluster.telemetry import Watched

    @ray.remote
    class Noop:
        """In place of a worker actor: no process, and done at once."""

        def run(self, order: AttemptOrder, shards: int, lease: dict[str, Any]) -> AttemptResult:
            self._lease = lease
            now = time.time()
            outcome = Outcome("COMPLETED", "completed", "done", started_at=now, ended_at=now, last_step=1)
            return AttemptResult(outcome, watched=Watched({}, (1, 1.0), ("score",)))

        def progress(self, key: Any) -> RunProgress | None:
            return None

        def lease(self) -> dict[str, Any]:
            return self._lease

    ray_backend.WorkerActor = Noop
    backend = ray_backend.RayBackend(address)
    with tempfile.TemporaryDirectory() as folder:
        document = {
            "kind": "sweep", "name": "noop", "worker": "curves", "config": {"steps": 1}, "search": "grid",
            "space": {"quality": {"choice": [1]}}, "seeds": list(range(runs)), "metric": {"name": "score"},
            "storage": folder, "resources": SHARE, "telemetry": {"bridges": {"tensorboard": False}},
        }  # fmt: skip
        prepared = prepare(document, Catalog())
        conductor = launch(prepared, backend)
        begun = time.time()
        state = conductor.run_to_end()
        took = time.time() - begun
        assert state == "COMPLETED", state
        entries = conductor.journal.entries()
        backend.close()
    ended = [entry["at"] - begun for entry in entries if entry["type"] == "attempt_ended"]
    assert len(ended) == runs
    return {"seconds": took, "median": statistics.median(ended)}


def bare(address: str, runs: int) -> dict[str, float]:
    """The same with plain actors."""
    import ray

    @ray.remote(num_cpus=0.5, num_gpus=0.125, memory=50 << 20)
    class Bare:
        def run(self) -> int:
            return 1

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    begun = time.time()
    actors = {}
    for _ in range(runs):
        actor = Bare.remote()
        actors[actor.run.remote()] = actor
    waiting, times = list(actors), []
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        for reference in ready:
            times.append(time.time() - begun)
            ray.kill(actors.pop(reference))
    ray.shutdown()
    return {"seconds": max(times), "median": statistics.median(times)}


def measure(runs: int) -> dict[str, Any]:
    """Both, in turn, each in a process of its own: a process joins one cluster."""
    import subprocess

    sys.path[:0] = [str(ROOT)]
    from clusters import simulated_cluster
    from support import register

    with tempfile.TemporaryDirectory() as packages:
        register(Path(packages), "curves_worker", {"curves": "curves_worker:get_worker_metadata"})
        with simulated_cluster(NODES, ROOT / "fixtures" / "workers", Path(packages)) as cluster:
            found: dict[str, Any] = {"benchmark": "placing", "runs": runs}
            for name in ("bare", "ours"):
                done = subprocess.run(
                    [sys.executable, __file__, "--one", name, "--runs", str(runs)],
                    env={**cluster.env, "BENCH_ADDRESS": cluster.address, "PYTHONWARNINGS": "ignore"},
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found[name] = json.loads(done.stdout.splitlines()[-1])
    found["ratio"] = found["ours"]["seconds"] / found["bare"]["seconds"]
    return found


def show(found: dict[str, Any]) -> None:
    print(f"{found['runs']} runs of 1/8 GPU on 8 simulated GPUs, until all have started and ended")
    print(f"{'':34}{'all':>10}{'median run':>14}")
    for name, what in (("bare", "Ray actors, num_gpus=0.125"), ("ours", "mosaic, gpu_memory: 5GiB")):
        print(f"{what:34}{found[name]['seconds']:>8.1f} s{found[name]['median']:>12.1f} s")
    print(f"ours / bare: {found['ratio']:.2f}")


def main() -> None:
    parser = arguments("Time to place and start runs.")
    parser.add_argument("--runs", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--one", choices=("bare", "ours"), help="only this one, on $BENCH_ADDRESS (for itself)")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.one:
        print(json.dumps({"bare": bare, "ours": ours}[args.one](os.environ["BENCH_ADDRESS"], args.runs)))
        return
    report(args, measure(args.runs), show)


if __name__ == "__main__":
    main()
