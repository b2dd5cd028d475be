"""Tells Ray's autoscaler what is waited for: a placement group for each request that only a new node can hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ulid import ULID

from mosaic_cluster.placement import Answer, ClusterView, Infeasible, NodeType, Placement, Request, Waiting
from mosaic_cluster.placement import rooms as amounts

MOST = 64
"""Placement groups at once: Ray looks at each pending one again and again."""

PREFIX = "mosaic-demand-"
A_LITTLE = 0.001
_LABELS = ("ray.io/accelerator-type", "mosaic/gpu-model", "mosaic/gpu-memory", "mosaic/node-type")
"""Labels of a kind of node that a demand for it names, where the kind has them."""


@dataclass(frozen=True)
class _Asked:
    group: PlacementGroup
    bundle: dict[str, float]


class Demand:
    """The placement groups of waiting requests.

    They only make demand visible. One that became ready holds room on a new node: it counts as free for us, and the
    group is removed once its request, or another, has been given a place there.
    """

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def clear_left(self) -> None:
        """Remove groups that an earlier allocator left."""
        for key, entry in placement_group_table().items():
            if str(entry.get("name", "")).startswith(PREFIX) and entry.get("state") != "REMOVED":
                # By its id: names count within a namespace, and that is our driver's.
                remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(key))))

    def follow(
        self, requests: Sequence[Request], answers: Sequence[Answer], view: ClusterView, *, waiting: Collection[str]
    ) -> None:
        """Ask for what needs a new node, and take back what does not any more.

        Args:
            requests: all that one driver waits for; answers: to these.
            view: the cluster they were planned on.
            waiting: runs that any driver still waits for.
        """
        self.keep(waiting)
        granted = {answer.node_id for answer in answers if isinstance(answer, Placement)}
        nodes = {run_id: _nodes_of(asked.group) for run_id, asked in self._asked.items()}
        for run_id, found in nodes.items():
            if found & granted:
                self._remove(run_id)  # that room is another's now: its actor could not start in it
        kinds = {kind.name: kind for kind in view.launchable}
        for request, answer in zip(requests, answers, strict=True):
            run_id = request.run_id
            if isinstance(answer, Waiting) and answer.launch in kinds:
                if run_id not in self._asked and len(self._asked) < MOST:
                    self._ask(request, kinds[answer.launch])
            elif isinstance(answer, Infeasible) or not nodes.get(run_id):
                self._remove(run_id)  # no node will be started for it now; room that it has got it may keep

    def keep(self, waiting: Collection[str]) -> None:
        """Take back what was asked for runs that do not wait any more."""
        for run_id in [key for key in self._asked if key not in waiting]:
            self._remove(run_id)

    def _ask(self, request: Request, kind: NodeType) -> None:
        bundle = bundle_for(request, kind)
        labels = selector_for(request, kind)
        group = placement_group(
            [bundle],
            strategy="PACK",
            # Ray takes a moment to forget a name.
            name=f"{PREFIX}{request.run_id}-{ULID()}",
            lifetime="detached",
            bundle_label_selector=[labels] if labels else None,
        )
        self._asked[request.run_id] = _Asked(group, bundle)

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
            for node_id in _nodes_of(asked.group):
                room = found.setdefault(node_id, {})
                for name, amount in asked.bundle.items():
                    room[name] = room.get(name, 0.0) + amount
        return found


def _nodes_of(group: PlacementGroup) -> set[str]:
    """The node that a group has room on; empty while it waits."""
    entry: Any = placement_group_table(group)
    if entry.get("state") != "CREATED":
        return set()
    return set(entry.get("bundles_to_node_id", {}).values())


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
        if kind.accelerator:
            bundle[kind.accelerator] = A_LITTLE
    return bundle or {"CPU": A_LITTLE}


def selector_for(request: Request, kind: NodeType) -> dict[str, str]:
    """The labels that a node must bear: what tells that kind from others, and what the request wants."""
    told = {name: value for name, value in kind.node.labels.items() if name in _LABELS}
    return {**told, **request.labels}
