"""What would happen on a cluster: which runs start at once, what waits and why, and when all would be done.

A list schedule over the planner: whenever a run ends, those that wait are planned anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mosaic_cluster.experiments.life import RunPlan
from mosaic_cluster.placement import (
    ClusterView,
    Gpu,
    Holding,
    Infeasible,
    NodeView,
    Placement,
    Plan,
    Request,
    Waiting,
    plan,
)
from mosaic_cluster.units import format_bytes, format_duration

MOST_FORECAST = 2000
"""Runs that are looked at; of a larger experiment, the first."""

MOST_ROUNDS = 2000
MOST_REASONS = 8


@dataclass(frozen=True)
class Everything:
    """What all runs of an experiment ask for.

    Attributes:
        requests: in the order in which they would start; ``duration`` is the longest that each may take.
        runs: how many there are in all: more than ``requests`` where these are only the first.
        at_once: how many may run at once; ``None``: as many as have room.
    """

    requests: tuple[Request, ...]
    runs: int
    at_once: int | None = None


@dataclass(frozen=True)
class Forecast:
    """What would happen.

    Attributes:
        everything: what was asked for.
        first: the answers at the start, after nodes that would be started are there.
        view: the cluster then, with what the first runs hold.
        started: how many nodes of which kind the cluster would start.
        makespan: seconds until the last run ends if each takes the longest it may; ``None`` where that is not known.
    """

    everything: Everything
    first: Plan
    view: ClusterView
    started: dict[str, int] = field(default_factory=dict)
    makespan: float | None = None

    def lines(self) -> list[str]:
        """For people."""
        answers = self.first.answers
        placed = [each for each in answers if isinstance(each, Placement)]
        lines = [f"at once: {_runs(len(placed))} of {self.everything.runs:,}"]
        if self.everything.at_once is not None and self.everything.at_once < self.everything.runs:
            lines[0] += f" (at most {self.everything.at_once:,}, as the spec has it)"
        if self.everything.runs > len(answers):
            lines.append(f"looked at: the first {_runs(len(answers))}")
        for name, count in sorted(self.started.items()):
            lines.append(f"the cluster would start {count} node{'' if count == 1 else 's'} of kind {name}")
        lines += self._why(Waiting, "would wait") + self._why(Infeasible, "can never run")
        lines += self._gpu_lines()
        lines.append(self._when())
        return lines

    def _why(self, kind: type, what: str) -> list[str]:
        found = [each for each in self.first.answers if isinstance(each, kind)]
        if not found:
            return []
        reasons = Counter(reason for each in found for reason in each.reasons)
        lines = [f"{_runs(len(found))} {what}:"]
        lines += [f"  {reason}" for reason, _ in reasons.most_common(MOST_REASONS)]
        if len(reasons) > MOST_REASONS:
            lines.append(f"  and {len(reasons) - MOST_REASONS} other reasons")
        return lines

    def _gpu_lines(self) -> list[str]:
        use = self.gpus()
        if not use:
            return []
        taken = sum(each["used"] for each in use)
        sized = [each for each in use if each["memory"]]
        lines = [f"GPUs: {taken:.2f} of {len(use)} in use"]
        if sized:
            bytes_taken = sum(each["used"] * each["memory"] for each in sized)
            total = sum(each["memory"] for each in sized)
            lines[0] += f", {format_bytes(bytes_taken)} of {format_bytes(total)} ({bytes_taken / total:.0%})"
        return lines

    def gpus(self) -> list[dict[str, Any]]:
        """Use of each GPU at the start: node, index, model, memory, used share, and the runs on it."""
        runs: dict[tuple[str, int], list[str]] = {}
        for holding in self.view.holdings:
            for index in holding.placement.gpu_indices:
                runs.setdefault((holding.placement.node_id, index), []).append(holding.placement.run_id)
        return [
            {
                "node": node.name,
                "gpu": gpu.index,
                "model": gpu.model,
                "memory": gpu.memory,
                "used": round(1.0 - gpu.free, 4),
                "runs": runs.get((node.node_id, gpu.index), []),
            }
            for node in self.view.nodes
            for gpu in node.gpus
        ]

    def _when(self) -> str:
        if any(isinstance(answer, Infeasible) for answer in self.first.answers):
            return "when all is done: never, as some can never run"
        if self.makespan is None:
            if any(request.duration is None for request in self.everything.requests):
                return "when all is done: not known; limits.max_duration in the spec would bound it"
            return "when all is done: not known"
        longest = max((request.duration or 0.0 for request in self.everything.requests), default=0.0)
        each = f"if each run takes as long as it may ({format_duration(longest)})"
        return f"when all is done: after at most {format_duration(self.makespan)}, {each}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        kinds = Counter(answer.answer for answer in self.first.answers)
        return {
            "runs": self.everything.runs,
            "looked_at": len(self.first.answers),
            "at_once": kinds["placed"],
            "waiting": kinds["waiting"],
            "infeasible": kinds["infeasible"],
            "nodes_started": dict(self.started),
            "gpus": self.gpus(),
            "makespan": self.makespan,
            "answers": [answer.to_dict() for answer in self.first.answers],
        }


def longest(run: RunPlan) -> Request:
    """A run's request, with the longest it may take as its duration."""
    known = run.request.duration
    return replace(run.request, duration=run.limits.max_duration if known is None else known)


def forecast(everything: Everything, view: ClusterView) -> Forecast:
    """Play an experiment through on a cluster that does nothing else.

    Args:
        everything: of its runs, the first :data:`MOST_FORECAST` are enough.
        view: the cluster; what is taken in it stays taken.
    """
    requests = list(everything.requests)
    most = len(requests) if everything.at_once is None else everything.at_once
    first, grown, started = _with_new_nodes(requests[:most], view)
    late = [Waiting(request.run_id, (AS_MANY,)) for request in requests[most:]]
    shown = Plan((*first.answers, *late), first.taken_at)
    now = with_placements(grown, first.placements)
    return Forecast(everything, shown, now, started, _makespan(everything, grown, most))


AS_MANY = "as many runs as the spec allows at once are under way"


def with_placements(view: ClusterView, placements: Sequence[Placement]) -> ClusterView:
    """The same cluster, with more runs on it."""
    by_node: dict[str, list[Placement]] = {}
    for placement in placements:
        by_node.setdefault(placement.node_id, []).append(placement)
    nodes = tuple(_taken(node, by_node[node.node_id]) if node.node_id in by_node else node for node in view.nodes)
    return replace(view, nodes=nodes, holdings=(*view.holdings, *map(Holding, placements)))


def _taken(node: NodeView, placements: Sequence[Placement]) -> NodeView:
    shares: Counter[int] = Counter()
    for placement in placements:
        for index in placement.gpu_indices:
            # Whole steps of Ray's, so that sums are exact.
            shares[index] += round(10_000 * placement.gpus / len(placement.gpu_indices))
    cpus = sum(round(placement.cpus * 10_000) for placement in placements)
    return replace(
        node,
        cpus_free=max(0, round(node.cpus_free * 10_000) - cpus) / 10_000,
        memory_free=max(0, node.memory_free - sum(placement.memory or 0 for placement in placements)),
        agents=node.agents + sum(placement.agents for placement in placements),
        gpus=tuple(_less(gpu, shares[gpu.index]) for gpu in node.gpus),
    )


def _less(gpu: Gpu, steps: int) -> Gpu:
    return replace(gpu, free=max(0, round(gpu.free * 10_000) - steps) / 10_000) if steps else gpu


def _with_new_nodes(requests: Sequence[Request], view: ClusterView) -> tuple[Plan, ClusterView, dict[str, int]]:
    """The plan once the nodes that it asks for have been started."""
    started: dict[str, int] = {}
    made = plan(requests, view)
    while True:
        wanted = [answer.launch for answer in made.answers if isinstance(answer, Waiting) and answer.launch]
        kind = next((each for each in view.launchable if each.name in wanted and each.more > 0), None)
        if kind is None:
            return made, view, started
        started[kind.name] = number = started.get(kind.name, 0) + 1
        name = f"{kind.name}-new-{number}"
        left = tuple(replace(each, more=each.more - 1) if each is kind else each for each in view.launchable)
        view = replace(view, nodes=(*view.nodes, replace(kind.node, node_id=name, name=name)), launchable=left)
        made = plan(requests, view)


def _makespan(everything: Everything, view: ClusterView, most: int) -> float | None:
    """Seconds until all have ended; ``None`` if that cannot be said."""
    waiting = list(everything.requests)
    if everything.runs > len(waiting) or any(request.duration is None for request in waiting):
        return None
    running: list[tuple[float, Placement]] = []
    now = 0.0
    for _ in range(MOST_ROUNDS):
        free = most - len(running)
        placed = {
            answer.run_id: answer
            for answer in plan(waiting[:free], with_placements(view, [each for _, each in running])).placements
        }
        running += [(now + (request.duration or 0.0), placed[request.run_id])
                    for request in waiting if request.run_id in placed]  # fmt: skip
        waiting = [request for request in waiting if request.run_id not in placed]
        if not running:
            return None if waiting else now
        now = min(end for end, _ in running) if waiting else max(end for end, _ in running)
        running = [each for each in running if each[0] > now]
        if not waiting:
            return now
    return None


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"
