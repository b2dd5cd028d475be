"""How much GPU memory any placement at all could hand out: the configuration program of Gilmore and Gomory (1961).

A pattern is a set of requests that one GPU of a model holds. The linear program chooses how often each pattern is
used: at most once for each GPU, no request more often than it was asked. It leaves out CPUs, host memory, Ray's
rounding of shares and that patterns come whole, so no placement can beat it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import linprog


def most_memory(cards: Mapping[int, int], asked: Mapping[int, int]) -> float:
    """The bound, in GiB.

    Args:
        cards: GPUs by their memory in GiB.
        asked: requests for a share of one GPU, by GiB.
    """
    sizes, models = sorted(asked), sorted(cards)
    patterns: set[tuple[int, tuple[int, ...]]] = set()
    for number, model in enumerate(models):
        for place, size in enumerate(sizes):
            if size <= model:
                counts = [0] * len(sizes)
                counts[place] = min(model // size, asked[size])
                patterns.add((number, tuple(counts)))
    while True:
        columns = sorted(patterns)
        value = [-float(np.dot(counts, sizes)) for _, counts in columns]
        rows = [[float(number == which) for which, _ in columns] for number in range(len(models))]
        rows += [[float(counts[place]) for _, counts in columns] for place in range(len(sizes))]
        limits = [cards[model] for model in models] + [asked[size] for size in sizes]
        solved = linprog(value, A_ub=np.array(rows), b_ub=limits, method="highs")
        prices = -solved.ineqlin.marginals
        worth = [size - prices[len(models) + place] for place, size in enumerate(sizes)]
        new = set()
        for number, model in enumerate(models):
            gain, counts = _best_pattern(model, sizes, [asked[size] for size in sizes], worth)
            if gain > prices[number] + 1e-7:
                new.add((number, counts))
        if not new - patterns:
            return -float(solved.fun)
        patterns |= new


def _best_pattern(room: int, sizes: list[int], most: list[int], worth: list[float]) -> tuple[float, tuple[int, ...]]:
    """The requests worth most that a GPU of ``room`` GiB holds: a bounded knapsack."""
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, (0,) * len(sizes))] * (room + 1)
    for place, (size, limit, value) in enumerate(zip(sizes, most, worth, strict=True)):
        if value <= 0:
            continue
        before = list(best)
        for free in range(size, room + 1):
            for times in range(1, min(limit, free // size) + 1):
                total, counts = before[free - times * size]
                if total + times * value > best[free][0] + 1e-12:
                    best[free] = (total + times * value, (*counts[:place], times, *counts[place + 1 :]))
    return best[room]
