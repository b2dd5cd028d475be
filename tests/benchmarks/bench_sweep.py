"""What a sweep costs beside its runs: trials a second, with runs that end at once.

The peer is Ray Tune with a trainable that does nothing, without and with actor reuse. On our side a run is one call
of a warm Ray actor that answers at once, so that both sides pay for one round trip through Ray a trial; everything
else is as always: searcher, journal, placement, status, manifests. The last line is the same sweep with real worker
processes, each with its supervisor, log and telemetry.

``python tests/benchmarks/bench_sweep.py [--json] [--trials N]``
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.launching import launch, prepare
from mosaic_cluster.placement import Answer, ClusterView, NodeView, Request, plan
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, RunProgress
from mosaic_cluster.runtime.ray_backend import RayBackend
from mosaic_cluster.supervision import Outcome
from mosaic_cluster.telemetry import Watched

ROOT = Path(__file__).parents[1]
SLOTS = 8


@ray.remote(num_cpus=0)
class Warm:
    """Answers at once."""

    def run(self, quality: float) -> AttemptResult:
        outcome = Outcome("COMPLETED", "completed", "done", last_step=1)
        return AttemptResult(outcome, watched=Watched({}, (1, quality), ("score",)))


class NoopHandle:
    """One call of a warm actor."""

    def __init__(self, order: AttemptOrder, actor: Any) -> None:
        self.order = order
        self.result_ref = actor.run.remote(order.config["quality"])

    def poll(self) -> AttemptResult | None:
        ready, _ = ray.wait([self.result_ref], timeout=0)
        return ray.get(self.result_ref) if ready else None

    def waiting_reason(self) -> str | None:
        return None


class NoopBackend(RayBackend):
    """The Ray backend with warm actors for runs, and a node with room for eight of them."""

    def __init__(self) -> None:
        super().__init__()
        self.actors = [Warm.remote() for _ in range(SLOTS)]  # type: ignore[attr-defined]
        ray.get([actor.run.remote(0.0) for actor in self.actors])
        self.busy: dict[str, NoopHandle] = {}

    def view(self) -> ClusterView:
        self.busy = {run: handle for run, handle in self.busy.items() if handle.poll() is None}
        node = NodeView("n", "n", True, False, float(SLOTS), float(SLOTS - len(self.busy)), 1 << 40, 1 << 40)
        return ClusterView((node,), time.time())

    def allocate(
        self, requests: Sequence[Request], *, quarantine: Mapping[str, str] | None = None
    ) -> dict[str, Answer]:
        return {answer.run_id: answer for answer in plan(requests, self.view()).answers} if requests else {}

    def draining(self) -> dict[str, float | None]:
        return {}

    def start(self, order: AttemptOrder) -> Any:
        handle = NoopHandle(order, self.actors[len(self.busy) % SLOTS])
        self.busy[order.run_id] = handle
        return handle

    def progress(self) -> dict[str, RunProgress]:
        return {}

    def wait(self, handles: list[Any], timeout: float) -> None:
        if handles:
            ray.wait([handle.result_ref for handle in handles], timeout=timeout)
        else:
            time.sleep(timeout)


def spec(storage: str, samples: int) -> dict[str, Any]:
    return {
        "kind": "sweep", "name": "noop", "worker": "curves", "config": {"steps": 1},
        "space": {"quality": {"uniform": [0, 10]}}, "samples": samples, "seeds": [1],
        "metric": {"name": "score"}, "storage": storage,
    }  # fmt: skip


def ours(backend: Any, samples: int) -> float:
    """Trials a second."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(spec(folder, samples), Catalog())
        begun = time.perf_counter()
        conductor = launch(prepared, backend)
        assert conductor.run_to_end() == "COMPLETED"
        assert len(conductor.lives) == samples
        return samples / (time.perf_counter() - begun)


def noop(config: dict[str, Any]) -> None:
    tune.report({"score": config["quality"]})


def tunes(samples: int, reuse: bool) -> float:
    """Trials a second."""
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(noop, {"CPU": 1}),
            param_space={"quality": tune.uniform(0, 10)},
            tune_config=tune.TuneConfig(num_samples=samples, metric="score", mode="max", reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        begun = time.perf_counter()
        assert len(tuner.fit()) == samples
        return samples / (time.perf_counter() - begun)


def measure(trials: int) -> dict[str, Any]:
    """All on one embedded Ray, in turn."""
    logging.disable(logging.WARNING)
    os.environ["PYTHONPATH"] = str(ROOT / "fixtures" / "workers")
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    with tempfile.TemporaryDirectory() as packages:
        sys.path[:0] = [str(ROOT), packages]
        from support import register

        register(Path(packages), "curves_worker", {"curves": "curves_worker:get_worker_metadata"})
        os.environ["PYTHONPATH"] += os.pathsep + packages
        backend = NoopBackend()
        ours(backend, 20)
        found = {"benchmark": "sweep", "trials": trials, "mosaic_per_s": ours(backend, trials)}
        found["tune_reuse_per_s"] = tunes(trials, reuse=True)
        found["tune_plain_per_s"] = tunes(max(10, trials // 4), reuse=False)
        backend.close()
        real = RayBackend()
        found["real_runs_per_s"] = ours(real, max(10, trials // 10))
        real.close()
    found["times_plain"] = found["mosaic_per_s"] / found["tune_plain_per_s"]
    found["times_reuse"] = found["mosaic_per_s"] / found["tune_reuse_per_s"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What a sweep costs beside its runs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--trials", type=int, default=200, help="trials of ours, and of Tune (default: %(default)s)")
    args = parser.parse_args()
    found = measure(args.trials)
    if args.json:
        print(json.dumps(found))
        return
    print("no-op trials a second, on one embedded Ray")
    print(f"{'Tune, plain':34}{found['tune_plain_per_s']:>8.2f}")
    print(f"{'Tune, actors reused':34}{found['tune_reuse_per_s']:>8.2f}")
    print(f"{'mosaic sweep':34}{found['mosaic_per_s']:>8.2f}  {found['times_plain']:.1f} x plain, "
          f"{found['times_reuse']:.2f} x reused")  # fmt: skip
    print(f"{'mosaic sweep, real processes':34}{found['real_runs_per_s']:>8.2f}")


if __name__ == "__main__":
    main()
