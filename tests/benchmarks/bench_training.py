"""How much 1,000 events a second slow a training down.

One run under a worker actor on an embedded Ray, as `mosaic run` makes it: its process trains a small torch network,
the same number of steps in each segment, in turn without events, with, and with events that linger. Not an environment:
its episodes differ in length, and two processes differ more from each other than the effect that is looked for. In a
segment with events all that telemetry does goes on beside the training: supervisor, worker actor, hub. On a machine
with few cores they compete with it. What tells the two apart: *wall* is the slowdown as a person sees it, *inside* what
the training's own process spends in the emitter.

``python tests/benchmarks/bench_training.py [--json] [--pairs N] [--seconds S] [--rate R] [--linger L]``
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


def measure(pairs: int, seconds: float, rate: float, linger: float) -> dict[str, Any]:
    """Train, and compare neighbours."""
    config = {"pairs": pairs, "seconds": seconds, "rate": rate, "linger": linger}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "experiment.json").write_text("{}")
        owner = start_ray()
        backend = RayBackend()
        try:
            backend.open("bench-training", name, HubOrder())
            command = (sys.executable, str(HERE / "telemetry_trainer.py"))
            order = order_of("bench-training", Path(name), 0, config, command, cpus=1.0)
            wait_for([backend.start(order)], SECONDS + pairs * (3 * seconds + 3) * 2)
        finally:
            backend.close()
            owner.close()
        found = json.loads((order.run_dir / "pairs.json").read_text())
    steps, rounds = found["steps"], found["pairs"]
    return {
        "benchmark": "training",
        "peer": "the same steps of the same process without events",
        "pairs": pairs,
        "steps": steps,
        **_cost(rounds, "on"),
        "linger": {"seconds": linger, **_cost(rounds, "linger")},
        "noise": _noise(rounds),
        "floor_us": {name: seconds * 1e6 for name, seconds in found["floor"].items()},
    }


def _cost(rounds: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What events of this kind cost, beside the segments without."""
    each = [found[kind] for found in rounds]
    emitted, wall, inside = (sum(one[name] for one in each) for name in ("events", "wall", "inside"))
    return {
        "rate": emitted / wall,
        "wall": _slowdown(rounds, kind, "wall"),
        "cpu": _slowdown(rounds, kind, "cpu"),
        "inside": inside / wall,
        "us_per_event": inside / emitted * 1e6,
    }


def _noise(rounds: list[dict[str, Any]]) -> float:
    """How much segments without events differ: half of the quartiles' distance, of their median."""
    low, middle, high = statistics.quantiles([found["off"]["wall"] for found in rounds], n=4)
    return (high - low) / 2 / middle


def _slowdown(pairs: list[dict[str, Any]], kind: str, what: str) -> dict[str, float]:
    """Median over the pairs of (with events / without) - 1, and its 95 % bootstrap interval."""
    ratios = [pair[kind][what] / pair["off"][what] - 1.0 for pair in pairs]
    dice = random.Random(1)
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    low, high = medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975)]
    return {"median": statistics.median(ratios), "low": low, "high": high, "min": min(ratios), "max": max(ratios)}


def show(found: dict[str, Any]) -> None:
    print(f"{found['pairs']} pairs of {found['steps']:,} steps, {found['rate']:,.0f} events a second in one of each")
    print(f"segments without events differ by {found['noise']:.2%} (half of the quartiles' distance)")
    print(f"{'':36}{'median':>9}{'95 % interval':>20}")
    for name, kind in (("", found), (f"linger {found['linger']['seconds']:g} s: ", found["linger"])):
        for what, text in (("wall", "slower by the clock"), ("cpu", "more CPU of its process")):
            row = kind[what]
            print(f"{name + text:36}{row['median']:>9.2%}{row['low']:>10.2%} to {row['high']:.2%}")
        print(f"{name + 'inside the emitter':36}{kind['inside']:>9.2%}   ({kind['us_per_event']:.1f} us an event)")
    for what, text in FLOOR.items():
        us = found["floor_us"][what]
        print(f"{text:36}{us * found['rate'] / 1e6:>9.2%}   ({us:.1f} us an event, right after a step)")


def main() -> None:
    parser = arguments("How much events slow a training down.")
    parser.add_argument("--pairs", type=int, default=40, help="of segments (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each segment (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1_000.0, help="events a second (default: %(default)s)")
    parser.add_argument("--linger", type=float, default=0.1, help="seconds that events may wait (default: %(default)s)")
    args = parser.parse_args()
    report(args, measure(args.pairs, args.seconds, args.rate, args.linger), show)


if __name__ == "__main__":
    main()
