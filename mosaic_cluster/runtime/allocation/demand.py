"""Tells Ray's autoscaler what is waited for: a placement group for each request that only a new node can hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from mosaic_cluster.placement import Answer, ClusterView, NodeType, Placement, Request, Waiting
from mosaic_cluster.placement import rooms as amounts

MOST = 64
"""Placement groups at once: Ray looks at each pending one again and again."""

PREFIX = "mosaic-demand-"
_LABELS = ("ray.io/accelerator-type", "mosaic/gpu-model", "mosaic/gpu-memory", "mosaic/node-type")
"""Labels of a kind of node that a demand for it names, where the kind has them."""


@dataclass(frozen=True)
class _Asked:
    group: PlacementGroup
    request: Request
    bundle: dict[str, float]


class Demand:
    """The placement groups of waiting requests.

    They only make demand visible. One that became ready holds room on a new node: it counts as free for us, and the
    group is removed once its request has a place, there or elsewhere.
    """

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def clear_left(self) -> None:
        """Remove groups that an earlier allocator left."""
        for entry in placement_group_table().values():
            if str(entry.get("name", "")).startswith(PREFIX) and entry.get("state") != "REMOVED":
                remove_placement_group(ray.util.get_placement_group(entry["name"]))

    def follow(
        self,
        requests: Sequence[Request],
        answers: Sequence[Answer],
        view: ClusterView,
        *,
        others: Collection[str] = (),
    ) -> None:
        """Ask for what needs a new node, and take back what does not any more.

        Args:
            requests: all that one driver waits for; answers: to these.
            view: the cluster they were planned on.
            others: runs that other drivers wait for.
        """
        kinds = {kind.name: kind for kind in view.launchable}
        wanted: dict[str, tuple[Request, NodeType]] = {}
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Waiting) and answer.launch in kinds and len(wanted) < MOST:
                wanted[request.run_id] = (request, kinds[answer.launch])
        waiting = {
            request.run_id
            for request, answer in zip(requests, answers, strict=True)
            if not isinstance(answer, Placement)
        }
        for run_id in [key for key in self._asked if key not in waiting and key not in others]:
            self._remove(run_id)
        for run_id, (request, kind) in wanted.items():
            if run_id not in self._asked and len(self._asked) < MOST:
                self._ask(request, kind)

    def _ask(self, request: Request, kind: NodeType) -> None:
        bundle = bundle_for(request, kind)
        labels = {name: value for name, value in kind.node.labels.items() if name in _LABELS}
        group = placement_group(
            [bundle],
            strategy="PACK",
            name=f"{PREFIX}{request.run_id}",
            lifetime="detached",
            bundle_label_selector=[labels] if labels else None,
        )
        self._asked[request.run_id] = _Asked(group, request, bundle)

    def _remove(self, run_id: str) -> None:
        asked = self._asked.pop(run_id, None)
        if asked is not None:
            remove_placement_group(asked.group)

    def close(self) -> None:
        """Take everything back."""
        for run_id in list(self._asked):
            self._remove(run_id)

    def held(self) -> dict[str, dict[str, float]]:
        """Room that ready groups hold, by node id: ours to give."""
        found: dict[str, dict[str, float]] = {}
        for asked in self._asked.values():
            entry: Any = placement_group_table(asked.group)
            if entry.get("state") != "CREATED":
                continue
            for node_id in set(entry.get("bundles_to_node_id", {}).values()):
                room = found.setdefault(node_id, {})
                for name, amount in asked.bundle.items():
                    room[name] = room.get(name, 0.0) + amount
        return found


def bundle_for(request: Request, kind: NodeType) -> dict[str, float]:
    """What Ray is asked for, on a node of that kind."""
    bundle: dict[str, float] = {}
    if request.cpus:
        bundle["CPU"] = request.cpus
    if request.memory:
        bundle["memory"] = float(request.memory)
    steps = amounts.Demand(request).steps_on(amounts.make_of(kind.node.gpus))
    if request.gpus and steps:
        bundle["GPU"] = steps * request.gpus / amounts.STEPS
    return bundle or {"CPU": 0.001}
