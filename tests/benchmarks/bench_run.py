"""What the path costs the training: steps/s of `mosaic run` beside the bare worker CLI.

Pairs, in turn: `mosaic run` on an embedded Ray, and `python -m cleanrl_worker.cli` with the same config, seed and
thread count, its stdout in a file. The figure is the worker's own steps/s at its end, so that starting Ray and
importing torch do not count; what does count is all that runs beside the training: supervisor, tail, hub, driver.

``python tests/benchmarks/bench_run.py [--json] [--steps N] [--pairs N]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog import worker_environment
from mosaic_cluster.runtime.environment import THREAD_VARIABLES


def completed(log: Path) -> dict[str, Any]:
    """The payload of a log's run_completed."""
    for line in reversed(log.read_text().splitlines()):
        event = json.loads(line)
        if event.get("event") == "run_completed":
            payload: dict[str, Any] = event["payload"]
            return payload
    raise SystemExit(f"{log} has no run_completed")


def bare(folder: Path, config: dict[str, Any]) -> float:
    """Steps/s of the worker's own CLI."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"run_id": "bench", "seed": 1, **config}))
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    environment = {**worker_environment(os.environ), **threads, "MOSAIC_RUN_DIR": str(folder)}
    with open(folder / "stdout.log", "w") as out, open(folder / "stderr.log", "w") as err:
        command = [sys.executable, "-m", "cleanrl_worker.cli", "--config", "config.json"]
        subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=err, check=True)
    return float(completed(folder / "stdout.log")["steps_per_second"])


def through_mosaic(folder: Path, config: dict[str, Any]) -> float:
    """Steps/s of the same through `mosaic run`."""
    folder.mkdir()
    spec = {"kind": "run", "name": "bench", "worker": "cleanrl", "config": config, "seed": 1}
    (folder / "spec.json").write_text(json.dumps({**spec, "storage": str(folder / "results")}))
    command = [sys.executable, "-m", "mosaic_cluster.cli", "run", "spec.json"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (log,) = folder.glob("results/*/runs/*/attempts/1/stdout.log")
    return float(completed(log)["steps_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description="What the path costs the training.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of each (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs (default: %(default)s)")
    args = parser.parse_args()
    config = {"env_id": "CartPole-v1", "total_steps": args.steps}
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(args.pairs):
            order = [("bare", bare), ("mosaic", through_mosaic)]
            if number % 2:
                order.reverse()
            found = {kind: call(Path(name, f"{kind}-{number}"), config) for kind, call in order}
            pairs.append((found["bare"], found["mosaic"]))
    ratios = [ours / theirs for theirs, ours in pairs]
    result = {
        "benchmark": "run",
        "peer": "python -m cleanrl_worker.cli",
        "steps": args.steps,
        "pairs": args.pairs,
        "peer_steps_per_second": statistics.median(theirs for theirs, _ in pairs),
        "mosaic_steps_per_second": statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"{args.pairs} pairs of {args.steps:,} steps of PPO on CartPole-v1")
    print(f"{'':28}{'median':>10}{'min':>8}{'max':>8}")
    print(f"{'bare CLI, steps/s':28}{result['peer_steps_per_second']:>10,.0f}")
    print(f"{'mosaic run, steps/s':28}{result['mosaic_steps_per_second']:>10,.0f}")
    print(f"{'mosaic run / bare CLI':28}{result['ratio']:>10.3f}{min(ratios):>8.3f}{max(ratios):>8.3f}")


if __name__ == "__main__":
    main()
