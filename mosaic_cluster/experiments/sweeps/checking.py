"""Whether the workers of a sweep take what its space can give them. All problems at once, before anything starts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.experiments.planning import Part
from mosaic_cluster.experiments.validation import CHECK_RUN_ID, ours_in
from mosaic_cluster.runtime.searching.protocols import SearchSetup, Suggestion, plain_searcher
from mosaic_cluster.specs import SweepSpec
from mosaic_cluster.specs.problems import suggestion
from mosaic_cluster.specs.space import NoConfiguration, Space, flat, nested, read_space
from mosaic_cluster.worker.errors import Problem, WorkerError

MOST_CHECKED = 300
MOST_SHOWN = 10
SEED_ELSEWHERE = "write `seeds:`, which every configuration gets"


def check_sweep(spec: SweepSpec, catalog: Catalog) -> tuple[tuple[Part, ...], list[Problem]]:
    """The sweep's workers with their spaces, and every problem.

    A worker is asked about every configuration of a random search or a grid (up to 300 of them), and in any case
    about every choice and both ends of every range.
    """
    problems: list[Problem] = []
    parts: list[Part] = []
    for (place, config, space), name in zip(spec.parts(), spec.workers(), strict=True):
        try:
            worker = catalog.get(name)
        except WorkerError as error:
            problems.append(Problem(place or "worker", str(error)))
            continue
        read, _ = read_space(space, spec.constraints, config)
        part = Part(worker, config, read)
        parts.append(part)
        found = [*_own(part), *_unknown(part), *_cannot(spec, worker)]
        problems += found or _refused(spec, part, catalog)
    if len(parts) == len(spec.workers()) and not problems:
        problems += _planned(spec, tuple(parts), catalog)
    return tuple(parts), list(dict.fromkeys(problems))[: MOST_SHOWN * 3]


def config_of(part: Part, params: Mapping[str, Any]) -> dict[str, Any]:
    """A worker's config: what is fixed, with what is varied put in."""
    return _merged(part.config, nested(params))


def setup_of(spec: SweepSpec, parts: Sequence[Part]) -> SearchSetup:
    """What the search of a sweep is about."""
    return SearchSetup(
        kind=spec.search.kind,
        seed=spec.search.seed,
        parts=tuple(part.space for part in parts),
        samples=spec.samples,
        mode=spec.metric.mode,
    )


def planned(spec: SweepSpec, parts: Sequence[Part], most: int) -> list[Suggestion] | None:
    """The first configurations, as far as constraints leave some; ``None`` where they depend on results."""
    searcher = plain_searcher(setup_of(spec, parts))
    if searcher is None:
        return None
    found: list[Suggestion] = []
    try:
        while len(found) < most and (suggested := searcher.suggest("")) is not None:
            found.append(suggested)
    except NoConfiguration:
        pass
    return found


def _own(part: Part) -> list[Problem]:
    varied = {param.path: None for param in part.space.params}
    return [*ours_in(part.config, "config", SEED_ELSEWHERE), *ours_in(varied, "space", SEED_ELSEWHERE)]


def _unknown(part: Part) -> list[Problem]:
    """Settings that the worker does not have: known without asking it."""
    fields = part.worker.config_fields
    if fields is None:
        return []
    names = [field.name for field in fields]
    found = []
    for param in part.space.params:
        head = param.path.partition(".")[0]
        if head not in names:
            hint = suggestion(head, names)
            if not hint.startswith("did you mean"):
                hint = f"`mosaic workers show {part.worker.name}` lists its settings"
            found.append(Problem(f"space.{param.path}", f"the worker {part.worker.name!r} has no such setting; {hint}"))
    return found


def _cannot(spec: SweepSpec, worker: WorkerEntry) -> list[Problem]:
    """What the scheduler needs of a worker."""
    keeps = worker.capabilities is not None and worker.capabilities.supports_checkpointing
    if spec.scheduler.kind in ("hyperband", "pbt") and not keeps:
        what = f"{spec.scheduler.kind} pauses runs and goes on with them from a checkpoint"
        message = f"{what}, but the worker {worker.name!r} keeps none; take scheduler: asha, or none"
        return [Problem("scheduler", message)]
    return []


def _refused(spec: SweepSpec, part: Part, catalog: Catalog) -> list[Problem]:
    """What the worker says to every choice and both ends of every range."""
    flaws = part.space.flaws(random.Random(f"mosaic sweep {spec.search.seed} flaws"))
    if flaws:
        return flaws
    try:
        probes = part.space.probes(random.Random(f"mosaic sweep {spec.search.seed} probes"))
    except NoConfiguration as error:
        return [Problem("constraints", str(error))]
    return _asked(part, [(params, None) for params in probes], spec, catalog)


def _planned(spec: SweepSpec, parts: tuple[Part, ...], catalog: Catalog) -> list[Problem]:
    """What the workers say to the configurations that will be tried, where these are known."""
    suggestions = planned(spec, parts, MOST_CHECKED)
    if suggestions is None:
        return []
    if not suggestions:
        return [Problem("constraints", "no combination of the grid meets them")]
    found: list[Problem] = []
    for index, part in enumerate(parts):
        chosen = [(s.params, number) for number, s in enumerate(suggestions, 1) if s.part == index]
        found += _asked(part, chosen, spec, catalog)
    return found


def _asked(
    part: Part, configurations: Sequence[tuple[Mapping[str, Any], int | None]], spec: SweepSpec, catalog: Catalog
) -> list[Problem]:
    if not configurations:
        return []
    full = [
        {**config_of(part, params), "run_id": CHECK_RUN_ID, "seed": spec.seeds[0]} for params, _ in configurations
    ]
    found: list[Problem] = []
    for (params, number), problems in zip(configurations, catalog.check_configs(part.worker, full), strict=True):
        for problem in problems:
            found.append(_told(problem, params, number, part.space))
    return found[:MOST_SHOWN]


def _told(problem: Problem, params: Mapping[str, Any], number: int | None, space: Space) -> Problem:
    """A worker's answer about one configuration, said of the sweep."""
    path = problem.path.removeprefix("config").lstrip(".")
    varied = space.find(path)
    given = ", ".join(f"{name}: {value}" for name, value in params.items())
    if varied is not None:
        return Problem(f"space.{path}", problem.message)
    which = f"configuration {number}" if number is not None else "a configuration of this space"
    in_config = path in flat(nested(params)) or not params
    return Problem(problem.path, problem.message if in_config else f"{problem.message} ({which} has {given})")


def _merged(fixed: Mapping[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(fixed)
    for key, value in varied.items():
        inner = made.get(key)
        made[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return made
