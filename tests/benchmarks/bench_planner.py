"""How fast the planner places, and how the cost of one placement grows with the cluster.

Nodes with 8 GPUs each, a third of them 24 GB cards, a third 40, a third 80; requests for a share of one GPU, of 3 to
38 GiB, with 0.5 to 4 CPUs. Each cluster is filled to half of its GPU memory first, so that no node is like another;
then so many requests are placed, and as many placements end. In one process, pure Python.

``python tests/benchmarks/bench_planner.py [--json] [--placements N]``
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from typing import Any

from reporting import arguments, report

from mosaic_cluster.placement import ClusterView, Gpu, NodeView, Placement, Planner, Request

GIB = 1024**3
MODELS = (("RTX 4090", 24), ("A100-40GB", 40), ("A100-80GB", 80))
NODES = (100, 1000, 10_000)


def cluster(count: int) -> ClusterView:
    """Idle nodes with 8 GPUs."""
    nodes = []
    for number in range(count):
        model, size = MODELS[number % len(MODELS)]
        gpus = tuple(Gpu(index, model, size * GIB) for index in range(8))
        free = {"cpus": 128, "cpus_free": 128, "memory": 1024 * GIB, "memory_free": 1024 * GIB}
        nodes.append(NodeView(f"{number:06}", f"node-{number}", gpus=gpus, **free))
    return ClusterView(tuple(nodes), 0.0)


def request(rng: random.Random, number: int) -> Request:
    """A share of one GPU."""
    return Request(
        str(number), cpus=rng.choice((0.5, 1, 2, 4)), memory=rng.choice((2, 4, 8, 16)) * GIB,
        gpus=1, gpu_memory=rng.choice((3, 6, 8, 10, 12, 17, 20, 30, 38)) * GIB,
    )  # fmt: skip


def measure(count: int, placements: int) -> dict[str, Any]:
    """Time to place, and to release, on ``count`` nodes."""
    rng = random.Random(count)
    planner = Planner(cluster(count))
    capacity, used, held = sum(size for _, size in MODELS) / len(MODELS) * 8 * count * GIB, 0, []
    while used < capacity / 2:
        placed = planner.place(request(rng, len(held)))
        assert isinstance(placed, Placement)
        used += placed.gpu_memory or 0
        held.append(placed)
    placing = releasing = 0.0
    # A tenth of what fits comes and goes at a time: the cluster stays about half full.
    rest, batch = placements, max(1, len(held) // 10)
    while rest > 0:
        asked = [request(rng, number) for number in range(min(batch, rest))]
        begun = time.perf_counter()
        placed_now = [planner.place(one) for one in asked]
        placing += time.perf_counter() - begun
        assert all(isinstance(one, Placement) for one in placed_now)
        held += [one for one in placed_now if isinstance(one, Placement)]
        ending = [held.pop(rng.randrange(len(held))) for _ in asked]
        begun = time.perf_counter()
        for placement in ending:
            planner.release(placement)
        releasing += time.perf_counter() - begun
        rest -= len(asked)
    return {
        "nodes": count, "gpus": 8 * count, "per_s": placements / placing, "place_us": placing / placements * 1e6,
        "release_us": releasing / placements * 1e6,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    print("   nodes     GPUs  placements/s  µs a placement  µs a release   cost grew by   log n grew by")
    for row in found["rows"]:
        grew = f"{row['grew']:.2f}" if "grew" in row else ""
        log = f"{row['log_grew']:.2f}" if "log_grew" in row else ""
        print(
            f"{row['nodes']:8}{row['gpus']:9}{row['per_s']:14.0f}{row['place_us']:16.1f}"
            f"{row['release_us']:14.1f}{grew:>15}{log:>16}"
        )
    print("aimed at: 10,000 placements a second on 10,000 nodes; cost grows no faster than log n")


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows = [measure(count, args.placements) for count in NODES]
    for before, row in itertools.pairwise(rows):
        row["grew"] = row["place_us"] / before["place_us"]
        row["log_grew"] = math.log(row["nodes"]) / math.log(before["nodes"])
    return {"benchmark": "planner", "rows": rows}


def main() -> None:
    parser = arguments("How fast the planner places.")
    parser.add_argument("--placements", type=int, default=30_000, help="on each cluster (default: %(default)s)")
    args = parser.parse_args()
    report(args, run(args), show)


if __name__ == "__main__":
    main()
