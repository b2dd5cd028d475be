"""A spec that has been checked as a whole, and the plan of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.catalog import WorkerEntry, joins_cluster
from mosaic_cluster.experiments.crews import Crew, agents_in, capabilities_of
from mosaic_cluster.experiments.growing import Growth
from mosaic_cluster.experiments.life import RunPlan
from mosaic_cluster.placement import Request, request_for
from mosaic_cluster.runtime.backend import WatchOrder, WorkerLaunch
from mosaic_cluster.specs import Spec
from mosaic_cluster.specs.resources import PerAgent
from mosaic_cluster.specs.space import Space
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits, Room


@dataclass(frozen=True)
class Part:
    """One worker of an experiment.

    Attributes:
        config: the settings that are fixed.
        space: the settings that are varied.
    """

    worker: WorkerEntry
    config: Mapping[str, Any]
    space: Space = field(default_factory=lambda: Space(()))


@dataclass(frozen=True)
class Prepared:
    """A spec that has been checked as a whole.

    Attributes:
        document: the spec in its canonical form, what was drawn filled in.
        parts: its workers.
        plans: runs that stand for all there will be: each worker's, at least one.
        storage: where the experiment will be.
    """

    spec: Spec
    document: dict[str, Any]
    parts: tuple[Part, ...]
    plans: tuple[RunPlan, ...]
    storage: Storage


def run_plan(
    spec: Spec,
    worker: WorkerEntry,
    run_id: str,
    *,
    config: Mapping[str, Any],
    seed: int | None,
    watch: WatchOrder | None = None,
    trial: str | None = None,
    crew: Crew | None = None,
) -> RunPlan:
    """The plan of one run of an experiment."""
    capabilities = capabilities_of(worker)
    crew = crew or Crew()
    request = request_for(
        capabilities,
        run_id=run_id,
        overrides=spec.resources.model_dump(),
        # What a sweep draws is not refused here: its worker is asked about it.
        agents=crew.agents or min(agents_in(config) or 1, capabilities.max_agents),
        gang=crew.gang,
        spread=crew.spread,
        priority=spec.priority,
        weight=spec.weight,
        duration=spec.limits.max_duration,
    )
    command = getattr(spec, "command", None)
    return RunPlan(
        run_id=run_id,
        worker=WorkerLaunch(
            name=worker.name,
            package=worker.package,
            has_cli=worker.has_cli,
            supports_checkpointing=capabilities.supports_checkpointing,
            supports_pause_resume=capabilities.supports_pause_resume,
            command=tuple(command) if command else None,
            distribution=worker.distribution,
            environment=worker.environment_for(config),
            joins=joins_cluster(worker.package),
        ),
        config=dict(config),
        seed=seed,
        request=request,
        limits=_limits(spec, request),
        grace=spec.limits.grace,
        max_failures=spec.limits.max_failures,
        environment={**spec.environment, **crew.environment},
        watch=watch,
        trial=trial,
        room=Room(
            backlog=spec.telemetry.backlog,
            keep_log=spec.telemetry.keep_log,
            disk_reserve=spec.telemetry.disk_reserve,
        ),
        on_oom=Growth(spec.on_oom.grow, spec.on_oom.max) if spec.on_oom is not None else None,
    )


def _limits(spec: Spec, request: Request) -> Limits:
    """What a person set is a limit; what a worker declares is an estimate."""
    limits, resources = spec.limits, spec.resources
    each = resources.per_agent or PerAgent()
    memory = resources.memory is not None or each.memory is not None
    gpu_memory = resources.gpu_memory is not None or each.gpu_memory is not None
    return Limits(
        max_duration=limits.max_duration,
        max_steps=limits.max_steps,
        no_heartbeat=limits.no_heartbeat,
        max_log=limits.max_log,
        memory=request.memory if memory else None,
        gpu_memory=request.gpu_memory if gpu_memory else None,
        on_excess=limits.on_excess,
        expected_memory=None if memory else request.memory,
        expected_gpu_memory=None if gpu_memory else request.gpu_memory,
    )
