"""Placement seen from an experiment: what can never run, and what a plan says in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mosaic_cluster.catalog import WorkerEntry
from mosaic_cluster.catalog.environments import label, locate
from mosaic_cluster.experiments.life import RunPlan
from mosaic_cluster.placement import ClusterView, Infeasible, plan
from mosaic_cluster.worker.errors import EnvironmentFailed, PlacementError, Problem

if TYPE_CHECKING:
    from mosaic_cluster.experiments.planning import Prepared


def check_feasible(runs: Sequence[RunPlan], view: ClusterView, heading: str | None = None) -> None:
    """Refuse what no node of the cluster could ever run.

    Raises:
        PlacementError: with every reason.
    """
    seen: dict[str, None] = {}
    for answer in plan([run.request for run in runs], view).answers:
        if isinstance(answer, Infeasible):
            seen.update(dict.fromkeys(answer.reasons))
    if seen:
        raise PlacementError([Problem("resources", reason) for reason in seen], heading)


def describe_runs(prepared: Prepared, view: ClusterView) -> tuple[list[str], list[dict[str, Any]]]:
    """A plan of single runs in words, and its answers as JSON-ready dicts, one a run."""
    made = plan([run.request for run in prepared.plans], view)
    lines = []
    for part in prepared.parts:
        lines.append(f"{len(prepared.plans)} run(s) of worker {part.worker.name} {part.worker.version}")
        lines.append(on_restart(part.worker))
    lines += environment_lines(prepared.plans)
    lines += made.lines()
    return lines, [answer.to_dict() for answer in made.answers]


def environment_lines(plans: Sequence[RunPlan]) -> list[str]:
    """What the runs run in, and whether that is on this machine."""
    lines = []
    seen = {(plan.worker.name, each.name): (plan.worker, each) for plan in plans if (each := plan.worker.environment)}
    for worker, environment in seen.values():
        what = f"environment {label(worker.name, environment)}"
        if not environment.is_built:
            lines.append(f"{what}: {environment.image_uri or environment.interpreter}, used as it is")
            continue
        try:
            place = locate(worker.name, environment)
        except EnvironmentFailed as error:
            lines.append(f"{what}: {str(error).splitlines()[0]}")
            continue
        built = place.built()
        where = f"built here ({built.folder})" if built else "not built here: each node that lacks it builds it first"
        lines.append(f"{what}: Python {place.interpreter.version}, {where}")
    return lines


def on_restart(worker: WorkerEntry) -> str:
    """What a restart does, in words."""
    if worker.capabilities is not None and worker.capabilities.supports_checkpointing:
        return "a restart continues from the run's last checkpoint, or begins again where it has none"
    return "this worker keeps no checkpoints: a restart begins the run again"
