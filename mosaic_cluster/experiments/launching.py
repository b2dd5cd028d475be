"""The story of a run: from a document to an experiment that a conductor drives, and its continuation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulid import ULID

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.experiments.conductor import Conductor, Listener, driver_identity
from mosaic_cluster.experiments.home import ExperimentHome, new_experiment_id
from mosaic_cluster.experiments.life import RunPlan
from mosaic_cluster.experiments.provenance import provenance
from mosaic_cluster.experiments.replay import reopen, replay
from mosaic_cluster.experiments.status import driver_alive
from mosaic_cluster.experiments.validation import check_run
from mosaic_cluster.placement import request_for
from mosaic_cluster.runtime.backend import Backend, WorkerLaunch
from mosaic_cluster.specs import RunSpec, digest
from mosaic_cluster.storage import Storage, default_location
from mosaic_cluster.supervision import Limits
from mosaic_cluster.worker import WorkerCapabilities
from mosaic_cluster.worker.errors import InvalidInput, Problem, SpecError, StorageError

SEEDS = 2**31


@dataclass(frozen=True)
class Prepared:
    """A spec that has been checked as a whole, and the runs it means.

    Attributes:
        document: the spec in its canonical form, seed filled in.
        plans: the runs.
        storage: where the experiment will be.
    """

    spec: RunSpec
    document: dict[str, Any]
    worker: WorkerEntry
    plans: tuple[RunPlan, ...]
    storage: Storage


def prepare(
    document: Mapping[str, Any], catalog: Catalog, *, heading: str | None = None, storage: str | None = None
) -> Prepared:
    """Check a spec as a whole and decide its runs. Writes nothing.

    Args:
        heading: what to call the spec in messages.
        storage: overrides the spec's own.

    Raises:
        SpecError: with every problem.
    """
    checked = check_run(document, catalog)
    if checked.spec is None or checked.worker is None:
        raise SpecError(checked.problems, heading)
    spec = checked.spec
    if spec.seed is None:
        # Chosen here and kept in experiment.json, so that the run can be repeated.
        spec = spec.model_copy(update={"seed": secrets.randbelow(SEEDS)})
    plan = run_plan(spec, checked.worker, spec.run_id or str(ULID()))
    # A spec that names no storage follows $MOSAIC_STORAGE, as the verbs that look for experiments do.
    try:
        place = Storage.open(storage or (spec.storage if "storage" in document else default_location()))
    except StorageError as error:
        raise SpecError([Problem("storage", str(error))], heading) from error
    return Prepared(spec, spec.to_document(), checked.worker, (plan,), place)


def run_plan(spec: RunSpec, worker: WorkerEntry, run_id: str) -> RunPlan:
    """The one run that a spec of kind ``run`` means."""
    capabilities = worker.capabilities or WorkerCapabilities(worker_type=worker.name)
    limits = spec.limits
    return RunPlan(
        run_id=run_id,
        worker=WorkerLaunch(
            name=worker.name,
            package=worker.package,
            has_cli=worker.has_cli,
            supports_checkpointing=capabilities.supports_checkpointing,
            supports_pause_resume=capabilities.supports_pause_resume,
            command=tuple(spec.command) if spec.command else None,
        ),
        config=dict(spec.config),
        seed=spec.seed,
        request=request_for(capabilities, run_id=run_id, overrides=spec.resources.model_dump()),
        limits=Limits(
            max_duration=limits.max_duration,
            max_steps=limits.max_steps,
            no_heartbeat=limits.no_heartbeat,
            max_log=limits.max_log,
            # What a person set is a limit; what a worker declares is an estimate.
            memory=spec.resources.memory,
        ),
        grace=limits.grace,
        max_failures=limits.max_failures,
        environment=dict(spec.environment),
    )


def launch(
    prepared: Prepared,
    backend: Backend,
    *,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.time,
) -> Conductor:
    """Make the experiment's folder and hand its runs to a conductor."""
    now = clock()
    nodes = backend.view().nodes
    record = {
        "kind": prepared.spec.kind,
        "name": prepared.spec.name,
        "created_at": now,
        "spec": prepared.document,
        "digest": digest(prepared.spec),
        "provenance": provenance(Path.cwd(), [prepared.worker.distribution]),
        "worker": {"name": prepared.worker.name, "version": prepared.worker.version},
        "seeds": [plan.seed for plan in prepared.plans],
        "nodes": [{"node_id": node.node_id, "name": node.name, "cpus": node.cpus} for node in nodes],
        "driver": driver_identity(),
    }
    experiment_id = new_experiment_id(prepared.spec.name, now)
    home = ExperimentHome.create(prepared.storage, experiment_id, record)
    conductor = Conductor(home, backend, listener=listener, clock=clock)
    for plan in prepared.plans:
        conductor.add(plan)
    conductor.begin()
    return conductor


def resume(
    home: ExperimentHome,
    catalog: Catalog,
    backend: Backend,
    *,
    retry_failed: bool = False,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.time,
) -> Conductor:
    """Take an experiment up again: finished runs stay as they are, the others continue.

    Args:
        retry_failed: runs that FAILED get a fresh count of failures and go on.

    Raises:
        InvalidInput: somebody drives it already, or its worker is not installed any more.
    """
    if driver_alive(home):
        raise InvalidInput(
            [Problem("", f"{home.experiment_id} is being driven already; `mosaic status` shows it")]
        )
    record = home.record()
    checked = check_run(record["spec"], catalog)
    if checked.spec is None or checked.worker is None:
        raise SpecError(checked.problems, f"{home.experiment_id} cannot be continued here")
    conductor = Conductor(home, backend, listener=listener, clock=clock)
    spec, worker = checked.spec, checked.worker
    lives, open_attempts = replay(
        conductor.journal.entries(),
        lambda run_id: run_plan(spec, worker, run_id),
        home,
        retry_failed=retry_failed,
        now=clock(),
    )
    for life in lives:
        conductor.adopt(life)
    conductor.begin()
    for life in open_attempts:
        conductor.close_lost_attempt(life)
        reopen(life, retry_failed=retry_failed, now=clock())
    return conductor
