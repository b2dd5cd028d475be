"""A run whose worker joins the cluster: the placement group that all of it stays in.

The group is the run's share of its node, cut into bundles of one CPU. The worker actor takes the CPU and the memory of
the first bundle; what the worker starts through Ray, as a job of its own, goes into the others, and the GPUs are its.
The group belongs to the driver's job: Ray removes it, with all that runs in it, when that job ends, however it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptOrder

PREFIX = "mosaic-"
A_LITTLE = 0.001
"""Of a CPU: a bundle of nothing is refused by Ray."""


@dataclass(frozen=True)
class RunGroup:
    """The placement group of one attempt, while it exists."""

    name: str
    group: PlacementGroup

    def remove(self) -> None:
        """Give it back, and end what still runs in it."""
        try:
            remove_placement_group(self.group)
        except (RayError, RuntimeError) as error:  # the cluster is gone, and the group with it
            logging.getLogger(__name__).warning("placement group %s could not be removed: %s", self.name, error)


def group_name(run_id: str, attempt: int) -> str:
    """Its name: of each attempt another, since Ray takes a moment to forget one."""
    return f"{PREFIX}{run_id}-{attempt}"


def bundles_of(placement: Placement) -> list[dict[str, float]]:
    """A placement cut into bundles, which add up to it.

    The first holds the memory, what is over of the CPUs, and the first GPU or the share of it; each further GPU lies in
    the next one.
    """
    count = max(1, int(placement.cpus))
    bundles: list[dict[str, float]] = [{"CPU": 1.0} for _ in range(count)]
    bundles[0] = {"CPU": round(placement.cpus - (count - 1), 4)} if placement.cpus else {}
    if placement.memory:
        bundles[0]["memory"] = float(placement.memory)
    gpus = placement.gpus
    for number in range(int(gpus) if gpus >= 1 else int(gpus > 0)):
        if number == len(bundles):
            bundles.append({})
        bundles[number]["GPU"] = min(1.0, gpus)
    return [bundle or {"CPU": A_LITTLE} for bundle in bundles]


def make_group(order: AttemptOrder, node_label: str) -> RunGroup:
    """Ask Ray for the group of an attempt on the node that its placement names. Waits for nothing.

    Args:
        node_label: Ray's label that holds a node's id.
    """
    bundles = bundles_of(order.placement)
    name = group_name(order.run_id, order.attempt)
    group = placement_group(
        bundles,
        strategy="STRICT_PACK",
        name=name,
        bundle_label_selector=[{node_label: order.placement.node_id}] * len(bundles),
    )
    return RunGroup(name, group)


def in_first_bundle(placement: Placement, group: PlacementGroup) -> Mapping[str, Any]:
    """Options of the worker actor: the CPU and the memory of the first bundle; the GPUs are left to what it starts."""
    first = bundles_of(placement)[0]
    return {
        "num_cpus": first.get("CPU", 0),
        "memory": first.get("memory"),
        # Children of the actor's own job have no business in it.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    }
