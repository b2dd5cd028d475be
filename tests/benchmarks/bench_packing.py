"""How full the planner packs mixed clusters, beside a bound that nothing can beat and beside hand-set fractions.

- **Packing**: random clusters of three or four GPU models, and queues that ask for half as much again as there is,
  drawn from five distributions. GPU memory handed out, over the bound of ``packing_bound.py``. Every plan is checked
  for oversubscription.
- **Safe fraction**: one cluster of 24, 40 and 80 GB cards. Beside it what people do: each run asks Ray for the fraction
  that is right on the smallest card.
- **Makespan**: the same runs with lengths, in a simulation that starts what fits as soon as something ends. Ray is
  modelled as the first node in order that has room, on it the GPU with least room that fits, queue in order with
  whatever fits started; no time is lost to starting on either side.

``python tests/benchmarks/bench_packing.py [--json] [--draws N]``
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from packing_bound import most_memory
from reporting import arguments, report

from mosaic_cluster.placement import ClusterView, Gpu, NodeView, Placement, Plan, Planner, Request, plan

GIB = 1024**3
MODELS = {16: "V100-16GB", 24: "RTX 4090", 32: "RTX 5090", 40: "A100-40GB", 48: "RTX A6000", 80: "A100-80GB"}
DRAWN: dict[str, Callable[[random.Random], int]] = {
    "uniform 1 to 16": lambda rng: rng.randint(1, 16),
    "powers of two": lambda rng: rng.choice((1, 2, 4, 8, 16)),
    "small and large": lambda rng: rng.choice((2, 3, 4, 4, 6, 12, 14, 16)),
    "awkward: 7, 9, 11, 13": lambda rng: rng.choice((7, 9, 11, 13)),
    "many small, few large": lambda rng: min(40, max(1, round(rng.lognormvariate(1.6, 0.8)))),
}


def cluster(cards: Sequence[tuple[int, int]]) -> ClusterView:
    """Nodes as (GiB of a GPU, GPUs), with enough CPUs and memory that GPU memory is what is short."""
    nodes = []
    for number, (size, count) in enumerate(cards):
        gpus = tuple(Gpu(index, MODELS[size], size * GIB) for index in range(count))
        cpus, memory = 32 * count, 256 * count * GIB
        free = {"cpus": cpus, "cpus_free": cpus, "memory": memory, "memory_free": memory}
        nodes.append(NodeView(f"{number:04}", f"n{number}", gpus=gpus, **free))
    return ClusterView(tuple(nodes), 0.0)


def queue(rng: random.Random, draw: Callable[[random.Random], int], total: float) -> list[Request]:
    """Requests for ``total`` GiB of GPU memory."""
    found: list[Request] = []
    while total > 0:
        size = draw(rng)
        total -= size
        found.append(Request(str(len(found)), cpus=rng.choice((0.5, 1.0)), gpus=1, gpu_memory=size * GIB))
    return found


def oversubscribed(made: Plan, view: ClusterView) -> int:
    """CPUs, memories and GPUs of which more was promised than there is."""
    found = 0
    for node in view.nodes:
        mine = [placement for placement in made.placements if placement.node_id == node.node_id]
        found += sum(Fraction(str(placement.cpus)) for placement in mine) > Fraction(node.cpus)
        found += sum(placement.memory or 0 for placement in mine) > node.memory
        found += sum(placement.agents for placement in mine) > node.slots
        for gpu in node.gpus:
            on_it = [placement for placement in mine if gpu.index in placement.gpu_indices]
            found += sum(Fraction(str(placement.gpus)) for placement in on_it) > 1
            found += sum(placement.gpu_memory or 0 for placement in on_it) > (gpu.memory or 0)
    return found


def pack(seed: int, draw: Callable[[random.Random], int]) -> tuple[float, int]:
    """Share of the bound, and how often something was promised twice."""
    rng = random.Random(seed)
    sizes = rng.sample(sorted(MODELS), rng.choice((3, 4)))
    cards = [(size, rng.choice((2, 4, 8))) for size in sizes for _ in range(rng.randint(1, 4))]
    rng.shuffle(cards)
    view = cluster(cards)
    asked = queue(rng, draw, 1.5 * sum(size * count for size, count in cards))
    made = plan(asked, view)
    held = sum(placement.gpu_memory or 0 for placement in made.placements) / GIB
    there: Counter[int] = Counter()
    for size, count in cards:
        there[size] += count
    wanted = Counter((request.gpu_memory or 0) // GIB for request in asked)
    return held / most_memory(there, wanted), oversubscribed(made, view)


class Fractions:
    """Ray's own placement of hand-set fractions: the first node with room, on it the GPU with least room that fits."""

    def __init__(self, view: ClusterView, smallest: int) -> None:
        self._smallest = smallest * GIB
        self._cpus = [round(node.cpus * 10_000) for node in view.nodes]
        self._gpus = [[10_000] * len(node.gpus) for node in view.nodes]

    def place(self, request: Request) -> tuple[int, int, int, int] | None:
        cpus = round(request.cpus * 10_000)
        steps = min(10_000, -(-(request.gpu_memory or 0) * 10_000 // self._smallest))
        for number, gpus in enumerate(self._gpus):
            room = min((free for free in gpus if free >= steps), default=None)
            if room is not None and self._cpus[number] >= cpus:
                place = gpus.index(room)
                gpus[place] -= steps
                self._cpus[number] -= cpus
                return number, place, steps, cpus
        return None

    def release(self, placed: tuple[int, int, int, int]) -> None:
        number, place, steps, cpus = placed
        self._gpus[number][place] += steps
        self._cpus[number] += cpus


class Ours:
    """The planner in the same clothes."""

    def __init__(self, view: ClusterView) -> None:
        self._planner = Planner(view)

    def place(self, request: Request) -> Placement | None:
        return self._planner.seat(request)

    def release(self, placed: Placement) -> None:
        self._planner.release(placed)


def makespan(placer: Any, asked: Sequence[Request], lengths: Sequence[float]) -> float:
    """When the last run ends, where whatever fits is started in order as soon as something ends."""
    waiting, running, now, order = list(range(len(asked))), [], 0.0, 0
    while waiting or running:
        left = []
        full: set[object] = set()
        for number in waiting:
            kind = (asked[number].cpus, asked[number].gpu_memory)
            placed = None if kind in full else placer.place(asked[number])
            if placed is None:
                full.add(kind)
                left.append(number)
            else:
                order += 1
                heapq.heappush(running, (now + lengths[number], order, placed))
        waiting = left
        now, _, ended = heapq.heappop(running)
        placer.release(ended)
    return now


def mixed(seed: int) -> dict[str, Any]:
    """Jobs at once and makespan on 24, 40 and 80 GB cards."""
    rng = random.Random(seed)
    cards = [(size, 8) for size in (24, 40, 80) for _ in range(4)]
    view, capacity = cluster(cards), 8 * 4 * (24 + 40 + 80)
    asked = queue(rng, lambda rng: rng.choice((4, 6, 8, 10, 12)), 4 * capacity)
    lengths = [rng.uniform(600, 3600) for _ in asked]
    ours, theirs = Ours(view), Fractions(view, 24)
    jobs = [sum(placer.place(request) is not None for request in asked) for placer in (ours, theirs)]
    spans = [makespan(placer, asked, lengths) for placer in (Ours(view), Fractions(view, 24))]
    volume = sum(length * (request.gpu_memory or 0) for length, request in zip(lengths, asked, strict=True)) / GIB
    return {
        "jobs": jobs[0], "jobs_fraction": jobs[1], "times": jobs[0] / jobs[1],
        "makespan_s": spans[0], "makespan_fraction_s": spans[1], "least_s": volume / capacity,
    }  # fmt: skip


def measure(draws: int) -> dict[str, Any]:
    rows, twice = {}, 0
    for number, (name, draw) in enumerate(DRAWN.items()):
        found = [pack(1000 * number + seed, draw) for seed in range(draws)]
        shares = sorted(share for share, _ in found)
        twice += sum(count for _, count in found)
        rows[name] = {"draws": draws, "mean": sum(shares) / draws, "min": shares[0], "median": shares[draws // 2]}
    return {"benchmark": "packing", "rows": rows, "oversubscribed": twice, "mix": [mixed(seed) for seed in range(5)]}


def show(found: dict[str, Any]) -> None:
    print("GPU memory handed out, of the most that any placement could (configuration bound):")
    print("requests (GiB)            draws    mean  median   worst")
    for name, row in found["rows"].items():
        print(f"{name:25}{row['draws']:6}{row['mean']:8.1%}{row['median']:8.1%}{row['min']:8.1%}")
    print(f"promised twice: {found['oversubscribed']}")
    print("32 GPUs each of 24, 40 and 80 GB, runs of 4 to 12 GiB:")
    print("  runs at once  safe fraction  times   makespan  safe fraction   times   no less than")
    for row in found["mix"]:
        print(f"{row['jobs']:14}{row['jobs_fraction']:15}{row['times']:7.2f}{row['makespan_s']:9.0f} s"
              f"{row['makespan_fraction_s']:13.0f} s{row['makespan_fraction_s'] / row['makespan_s']:8.2f}"
              f"{row['least_s']:13.0f} s")  # fmt: skip
    print("aimed at: 97 % of the bound, nothing promised twice, 1.9 times the runs of the safe fraction")


def main() -> None:
    parser = arguments("How full the planner packs mixed clusters.")
    parser.add_argument("--draws", type=int, default=50, help="clusters of each distribution (default: %(default)s)")
    args = parser.parse_args()
    report(args, measure(args.draws), show)


if __name__ == "__main__":
    main()
