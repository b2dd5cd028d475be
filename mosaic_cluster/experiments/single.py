"""Kind ``run``: one run, or the few that a population is split over, and nothing to decide on the way."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ulid import ULID

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.crews import crews, too_many_agents
from mosaic_cluster.experiments.forecasting import Everything, longest
from mosaic_cluster.experiments.life import RunLife, RunPlan
from mosaic_cluster.experiments.placing import describe_runs
from mosaic_cluster.experiments.planning import Part, Prepared, run_plan
from mosaic_cluster.experiments.replay import REOPENED, Replay, reopen
from mosaic_cluster.experiments.states import FAILED
from mosaic_cluster.experiments.validation import check_run
from mosaic_cluster.placement import ClusterView
from mosaic_cluster.runtime.backend import Backend
from mosaic_cluster.specs import RunSpec, Spec
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import Problem

SEEDS = 2**31


class SingleRun:
    """See :class:`mosaic_cluster.experiments.kinds.Kind`."""

    def check(
        self, document: Mapping[str, Any], spec: Spec | None, catalog: Catalog
    ) -> tuple[tuple[Part, ...], list[Problem]]:
        """See :class:`Kind`."""
        assert spec is None or isinstance(spec, RunSpec)
        worker, problems = check_run(document, spec, catalog)
        if worker is not None and spec is not None:
            problems += too_many_agents(spec, worker, spec.config, catalog)
        parts = () if worker is None or spec is None else (Part(worker, dict(spec.config)),)
        return parts, problems

    def prepare(self, spec: Spec, parts: tuple[Part, ...], storage: Storage) -> Prepared:
        """See :class:`Kind`."""
        assert isinstance(spec, RunSpec)
        if spec.seed is None:
            # Chosen here and kept in experiment.json, so that the run can be repeated.
            spec = spec.model_copy(update={"seed": secrets.randbelow(SEEDS)})
        (part,) = parts
        crew = crews(spec, part.worker)
        run_ids = [spec.run_id or str(ULID()), *(str(ULID()) for _ in crew[1:])]
        plans = tuple(_plan(spec, part, number, run_id) for number, run_id in enumerate(run_ids))
        return Prepared(spec, spec.to_document(), parts, plans, storage)

    def check_backend(self, prepared: Prepared, backend: Backend) -> None:
        """Any will do."""

    def begin(self, prepared: Prepared, conductor: Conductor) -> None:
        """See :class:`Kind`."""
        for plan in prepared.plans:
            conductor.add(plan)

    def take_up(
        self,
        prepared: Prepared,
        conductor: Conductor,
        entries: Sequence[Mapping[str, Any]],
        *,
        retry_failed: bool,
    ) -> list[RunLife]:
        """See :class:`Kind`."""
        del retry_failed
        spec, (part,) = prepared.spec, prepared.parts
        assert isinstance(spec, RunSpec)
        replay = Replay(conductor.home, conductor.now())
        for entry in entries:
            if entry["type"] == "run_planned":
                plan = _plan(spec, part, len(replay.lives), entry["run_id"])
                replay.lives[plan.run_id] = RunLife(plan, since=conductor.now())
            replay.take(entry)
        for life in replay.lives.values():
            conductor.adopt(life)
        return replay.unclosed()

    def go_on(self, conductor: Conductor, *, retry_failed: bool) -> None:
        """See :class:`Kind`."""
        for life in conductor.lives.values():
            if life.state == FAILED and retry_failed:
                conductor.journal.append(REOPENED, run_id=life.run_id)
            reopen(life, retry_failed=retry_failed, now=conductor.now())

    def describe(self, prepared: Prepared, view: ClusterView) -> tuple[list[str], list[dict[str, Any]]]:
        """See :class:`Kind`."""
        return describe_runs(prepared, view)

    def everything(self, prepared: Prepared) -> Everything:
        """See :class:`Kind`."""
        return Everything(tuple(longest(plan) for plan in prepared.plans), len(prepared.plans))


def _plan(spec: RunSpec, part: Part, number: int, run_id: str) -> RunPlan:
    """One of the runs that a population is split over, or the only one. Each has a seed of its own."""
    crew = crews(spec, part.worker)[number]
    seed = None if spec.seed is None else spec.seed + number
    return run_plan(spec, part.worker, run_id, config=part.config, seed=seed, crew=crew)
