"""How much 1,000 events a second slow a training down.

One run under a worker actor on an embedded Ray, as `mosaic run` makes it: its process trains a small torch network,
the same number of steps in each segment, with and without events in turn. Not an environment: its episodes differ in
length, and two processes differ more from each other than the effect that is looked for. In a segment with events all
that telemetry does goes on beside the training: supervisor, worker actor, hub. On a machine with few cores they
compete with it. What tells the two apart: *wall* is the slowdown as a person sees it, *inside* what the training's own
process spends in the emitter.

``python tests/benchmarks/bench_training.py [--json] [--pairs N] [--seconds S] [--rate R]``
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from reporting import arguments, report
from telemetry_ours import HERE, SECONDS, order_of, start_ray, wait_for

from mosaic_cluster.runtime.backend import HubOrder
from mosaic_cluster.runtime.ray_backend import RayBackend

SAMPLES = 10_000
FLOOR = {
    "write": "os.write of a ready line",
    "json": "os.write of json.dumps",
    "emitter": "the emitter",
}


def measure(pairs: int, seconds: float, rate: float) -> dict[str, Any]:
    """Train, and compare neighbours."""
    config = {"pairs": pairs, "seconds": seconds, "rate": rate}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "experiment.json").write_text("{}")
        owner = start_ray()
        backend = RayBackend()
        try:
            backend.open("bench-training", name, HubOrder())
            command = (sys.executable, str(HERE / "telemetry_trainer.py"))
            order = order_of("bench-training", Path(name), 0, config, command, cpus=1.0)
            wait_for([backend.start(order)], SECONDS + pairs * (2 * seconds + 2) * 2)
        finally:
            backend.close()
            owner.close()
        found = json.loads((order.run_dir / "pairs.json").read_text())
    on = [pair["on"] for pair in found["pairs"]]
    emitted = sum(each["events"] for each in on)
    return {
        "benchmark": "training",
        "peer": "the same steps of the same process without events",
        "pairs": pairs,
        "steps": found["steps"],
        "rate": emitted / sum(each["wall"] for each in on),
        "wall": _slowdown(found["pairs"], "wall"),
        "cpu": _slowdown(found["pairs"], "cpu"),
        "inside": sum(each["inside"] for each in on) / sum(each["wall"] for each in on),
        "us_per_event": sum(each["inside"] for each in on) / emitted * 1e6,
        "floor_us": {name: seconds * 1e6 for name, seconds in found["floor"].items()},
    }


def _slowdown(pairs: list[dict[str, Any]], what: str) -> dict[str, float]:
    """Median over the pairs of (with events / without) - 1, and its 95 % bootstrap interval."""
    ratios = [pair["on"][what] / pair["off"][what] - 1.0 for pair in pairs]
    dice = random.Random(1)
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    low, high = medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975)]
    return {"median": statistics.median(ratios), "low": low, "high": high, "min": min(ratios), "max": max(ratios)}


def show(found: dict[str, Any]) -> None:
    print(f"{found['pairs']} pairs of {found['steps']:,} steps, {found['rate']:,.0f} events a second in one of each")
    print(f"{'':36}{'median':>9}{'95 % interval':>20}")
    for what, text in (("wall", "slower by the clock"), ("cpu", "more CPU of the training's process")):
        row = found[what]
        print(f"{text:36}{row['median']:>9.2%}{row['low']:>10.2%} to {row['high']:.2%}")
    print(f"{'inside the emitter':36}{found['inside']:>9.2%}   ({found['us_per_event']:.1f} us an event)")
    for what, text in FLOOR.items():
        us = found["floor_us"][what]
        print(f"{text:36}{us * found['rate'] / 1e6:>9.2%}   ({us:.1f} us an event, right after a step)")


def main() -> None:
    parser = arguments("How much events slow a training down.")
    parser.add_argument("--pairs", type=int, default=40, help="of segments (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each segment (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1_000.0, help="events a second (default: %(default)s)")
    args = parser.parse_args()
    report(args, measure(args.pairs, args.seconds, args.rate), show)


if __name__ == "__main__":
    main()
