"""What no room can see alone: the spec's worker exists, and accepts the config. All problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.specs import RunSpec
from mosaic_cluster.worker.errors import Problem, WorkerError

# Stand-ins while a config is checked: the real ones are given when the experiment is made.
CHECK_RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def check_run(
    document: Mapping[str, Any], spec: RunSpec | None, catalog: Catalog
) -> tuple[WorkerEntry | None, list[Problem]]:
    """Check a spec of kind ``run``, or a trainer config, as a whole; ``spec`` is ``None`` if it is broken."""
    problems: list[Problem] = []
    name, module, config, seed = _parts(document, spec)
    worker: WorkerEntry | None = None
    if name is not None:
        try:
            worker = _find(catalog, name, module)
        except WorkerError as error:
            problems.append(Problem(_path(document, "worker"), str(error)))
    if worker is not None and config is not None:
        problems += _config_problems(document, catalog, worker, config, seed)
    return worker, problems


def _find(catalog: Catalog, name: str, module: str | None) -> WorkerEntry:
    try:
        return catalog.get(name)
    except WorkerError:
        found = catalog.find_by_module(module) if module else None
        if found is None:
            raise
        return found


def _parts(
    document: Mapping[str, Any], spec: RunSpec | None
) -> tuple[str | None, str | None, dict[str, Any] | None, Any]:
    """Worker name, its module, config and seed, from the spec or, if that is broken, as far as they can be read."""
    if spec is not None:
        return spec.worker, spec.worker_module, dict(spec.config), spec.seed
    source: Any = document
    if "kind" not in document and isinstance(document.get("metadata"), Mapping):
        source = document["metadata"].get("worker")
        if not isinstance(source, Mapping):
            return None, None, None, None
        name, module = source.get("worker_id"), source.get("module")
    else:
        name, module = source.get("worker"), None
    config = source.get("config")
    return (
        name if isinstance(name, str) else None,
        module if isinstance(module, str) else None,
        dict(config) if isinstance(config, Mapping) else None,
        document.get("seed"),
    )


def _config_problems(
    document: Mapping[str, Any], catalog: Catalog, worker: WorkerEntry, config: dict[str, Any], seed: Any
) -> list[Problem]:
    problems = []
    if "kind" in document:
        problems += ours_in(config, "config", "write it as `seed:` beside `config:`")
    # A seed that is no seed has been reported already, as the spec's.
    fine = isinstance(seed, int) and not isinstance(seed, bool) and seed in range(2**32)
    known_seed = seed if fine else 0
    complete = {**config, "run_id": CHECK_RUN_ID, "seed": known_seed}
    prefix = _path(document, "config")
    for problem in catalog.check_config(worker, complete):
        tail = problem.path.removeprefix("config")
        problems.append(Problem(prefix + tail, problem.message))
    return problems


def ours_in(config: Mapping[str, Any], where: str, seed: str) -> list[Problem]:
    """Settings that are given to each run, not written by hand; ``seed`` says how that one is given."""
    instead = {"run_id": "each run gets its own", "seed": seed}
    return [Problem(f"{where}.{name}", f"is not given here: {how}") for name, how in instead.items() if name in config]


def _path(document: Mapping[str, Any], field: str) -> str:
    if "kind" in document or "metadata" not in document:
        return field
    return {"worker": "metadata.worker.worker_id", "config": "metadata.worker.config"}[field]
