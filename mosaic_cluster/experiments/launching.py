"""From a document to an experiment that a conductor drives, and its continuation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.changes import CHANGED, CREATED, Change, accepted, changes, check_changes, wanted
from mosaic_cluster.experiments.conductor import Conductor, Listener, driver_identity
from mosaic_cluster.experiments.home import ExperimentHome, new_experiment_id
from mosaic_cluster.experiments.kinds import KINDS
from mosaic_cluster.experiments.planning import Prepared
from mosaic_cluster.experiments.provenance import provenance
from mosaic_cluster.experiments.status import driver_alive
from mosaic_cluster.runtime.backend import Backend, HubOrder
from mosaic_cluster.specs import Spec, digest, parse
from mosaic_cluster.specs.bridges import ON_BY_DEFAULT, wanted_bridges
from mosaic_cluster.storage import Storage, default_location
from mosaic_cluster.telemetry.bridges import BRIDGES
from mosaic_cluster.worker.errors import Fenced, InvalidInput, Problem, SpecError, StorageError


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
    spec, problems = parse(document)
    name = spec.kind if spec is not None else document.get("kind", "run")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is not None:
        parts, found = kind.check(document, spec, catalog)
        problems += [problem for problem in found if problem not in problems]
    problems += _missing_bridges(spec)
    if spec is None or kind is None or problems:
        raise SpecError(problems, heading)
    # A spec that names no storage follows $MOSAIC_STORAGE, as the verbs that look for experiments do.
    try:
        place = Storage.open(storage or (spec.storage if "storage" in document else default_location()))
    except StorageError as error:
        raise SpecError([Problem("storage", str(error))], heading) from error
    if not place.is_local and (found := _needs_files(spec, place)):
        raise SpecError(found, heading)
    return kind.prepare(spec, parts, place)


def _needs_files(spec: Spec, place: Storage) -> list[Problem]:
    """What a spec asks for that an object store cannot give."""
    found = []
    why = f"and {place.location} is an object store; choose a storage on a file system that every node reaches, or "
    if "tensorboard" in spec.telemetry.bridges.model_fields_set and spec.telemetry.bridges.tensorboard.enabled:
        said = f"TensorBoard's event files need a folder, {why}leave this out"
        found.append(Problem("telemetry.bridges.tensorboard", said))
    return found


def _missing_bridges(spec: Spec | None) -> list[Problem]:
    """Bridges that were asked for and cannot be here. TensorBoard, on by default, is not missed."""
    found = []
    for name in wanted_bridges(spec.telemetry.bridges) if spec is not None else ():
        missing = BRIDGES[name].missing() if name not in ON_BY_DEFAULT else None
        if missing is not None:
            found.append(Problem(f"telemetry.bridges.{name}", f"{missing}, or leave the bridge out"))
    return found


def launch(
    prepared: Prepared,
    backend: Backend,
    *,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.time,
) -> Conductor:
    """Make the experiment's folder and hand its runs to a conductor.

    Raises:
        BackendError: the backend cannot do what the spec asks for. Nothing was written.
    """
    now = clock()
    kind = KINDS[prepared.spec.kind]
    kind.check_backend(prepared, backend)
    nodes = backend.view().nodes
    workers = [{"name": part.worker.name, "version": part.worker.version} for part in prepared.parts]
    record = {
        "kind": prepared.spec.kind,
        "name": prepared.spec.name,
        "created_at": now,
        "spec": prepared.document,
        "digest": digest(prepared.spec),
        "provenance": provenance(Path.cwd(), [part.worker.distribution for part in prepared.parts]),
        "workers": workers,
        "seeds": sorted({plan.seed for plan in prepared.plans if plan.seed is not None}),
        "nodes": [{"node_id": node.node_id, "name": node.name, "cpus": node.cpus} for node in nodes],
        "driver": driver_identity(),
    }
    experiment_id = new_experiment_id(prepared.spec.name, now)
    home = ExperimentHome.create(prepared.storage, experiment_id, record)
    conductor = Conductor(home, backend, hubs=_hubs(prepared), listener=listener, clock=clock)
    conductor.journal.append(CREATED, spec=prepared.document)
    kind.begin(prepared, conductor)
    conductor.begin()
    return conductor


def resume(
    home: ExperimentHome,
    catalog: Catalog,
    backend: Backend,
    *,
    document: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    retry_failed: bool = False,
    listener: Listener | None = None,
    notice: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.time,
) -> Conductor:
    """Take an experiment up again: finished runs stay as they are, the others continue.

    Args:
        document: the spec to go on with; default: the experiment's own.
        allow_changed: accept what differs from the spec it was started with, as far as that is possible.
        retry_failed: runs that FAILED get a fresh count of failures and go on.
        notice: is told what accepted changes do.

    Raises:
        InvalidInput: somebody drives it already, its spec was edited, or its worker is not installed any more.
    """
    # The journal is looked at first: whoever takes the experiment up from here on takes our next entry.
    conductor = Conductor(home, backend, listener=listener, clock=clock)
    entries = conductor.journal.entries()
    now_wanted, changed = check_resume(home, entries, document, allow_changed=allow_changed)
    prepared = prepare(now_wanted, catalog, heading=f"{home.experiment_id} cannot be continued here")
    kind = KINDS[prepared.spec.kind]
    kind.check_backend(prepared, backend)
    conductor.hubs = _hubs(prepared)
    open_attempts = kind.take_up(prepared, conductor, entries, retry_failed=retry_failed)
    try:
        conductor.begin()
    except Fenced as error:
        raise _driven(home) from error
    if changed:
        conductor.journal.append(CHANGED, spec=now_wanted, changes=[f"{each.path}: {each}" for each in changed])
        for change in changed:
            if notice is not None:
                notice(f"changed: {change.path}: {change}")
    conductor.close_lost_attempts(open_attempts)
    kind.go_on(conductor, retry_failed=retry_failed)
    return conductor


def check_resume(
    home: ExperimentHome,
    entries: Sequence[Mapping[str, Any]],
    document: Mapping[str, Any] | None,
    *,
    allow_changed: bool,
) -> tuple[dict[str, Any], list[Change]]:
    """Whether an experiment may be taken up. Needs no backend; see :func:`resume`.

    Args:
        entries: its journal.

    Returns:
        The spec to go on with, and how it differs from the one so far.

    Raises:
        InvalidInput: somebody drives it already, or its spec was edited.
    """
    if driver_alive(home, entries):
        raise _driven(home)
    record = home.record()
    now_wanted = wanted(record, entries, document)
    changed = changes(accepted(record, entries), now_wanted)
    check_changes(changed, home.experiment_id, allowed=allow_changed)
    return now_wanted, changed


def _hubs(prepared: Prepared) -> HubOrder:
    telemetry = prepared.spec.telemetry
    return HubOrder(shards=telemetry.shards, memory=telemetry.hub_memory)


def _driven(home: ExperimentHome) -> InvalidInput:
    return InvalidInput([Problem("", f"{home.experiment_id} is being driven already; `mosaic status` shows it")])
