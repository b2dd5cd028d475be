"""Whether the workers of a sweep take what its space can give them. All problems at once, before anything starts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.experiments.crews import too_many_agents
from mosaic_cluster.experiments.planning import Part
from mosaic_cluster.experiments.validation import CHECK_RUN_ID, ours_in
from mosaic_cluster.runtime.searching.protocols import SearchSetup, Suggestion, plain_searcher
from mosaic_cluster.specs import SweepSpec
from mosaic_cluster.specs.problems import suggestion
from mosaic_cluster.specs.space import NoConfiguration, Space, flat, nested, read_space
from mosaic_cluster.worker.errors import Problem, WorkerError

MOST_CHECKED = 300
MOST_SHOWN = 10
LENGTHS = ("total_steps", "total_timesteps")
"""What workers call the length of a run."""

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
        problems += _once_a_path(
            [
                *_own(part),
                *_unknown(worker, (param.path for param in read.params), "space"),
                *_beyond(spec, part),
                *_cannot(spec, worker),
                *too_many_agents(spec, worker, config, catalog),
                *_refused(spec, part, catalog),
            ]
        )
    if len(parts) == len(spec.workers()) and not problems:
        problems += _planned(spec, tuple(parts), catalog)
    return tuple(parts), list(dict.fromkeys(problems))[: MOST_SHOWN * 3]


def unknown_names(document: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Workers and settings of a broken spec that do not exist, as far as they can be read."""
    given = document.get("worker")
    several = isinstance(given, Mapping)
    chosen = given.get("choice") if isinstance(given, Mapping) else [given]
    found = []
    for index, entry in enumerate(chosen if isinstance(chosen, list) else []):
        own = entry if isinstance(entry, Mapping) else {}
        name = own.get("name") if own else entry
        if not isinstance(name, str) or not name.strip():
            continue
        place = f"worker.choice.{index}" if several else "worker"
        try:
            worker = catalog.get(name)
        except WorkerError as error:
            found.append(Problem(place, str(error)))
            continue
        for section in ("config", "space"):
            settings = (own if several else document).get(section)
            if isinstance(settings, Mapping):
                found += _unknown(worker, map(str, settings), f"{place}.{section}" if several else section)
    return found


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


def _unknown(worker: WorkerEntry, paths: Iterable[str], section: str) -> list[Problem]:
    """Settings that the worker does not have: known without asking it."""
    if worker.config_fields is None:
        return []
    names = [field.name for field in worker.config_fields]
    found = []
    for path in paths:
        head = path.partition(".")[0]
        if head not in names:
            hint = suggestion(head, names)
            if not hint.startswith("did you mean"):
                hint = f"`mosaic workers show {worker.name}` lists its settings"
            found.append(Problem(f"{section}.{path}", f"the worker {worker.name!r} has no such setting; {hint}"))
    return found


def _beyond(spec: SweepSpec, part: Part) -> list[Problem]:
    """Rungs that no run reaches."""
    last = spec.metric.at[-1] if spec.metric.at else 0
    for name in LENGTHS:
        length = part.config.get(name)
        if isinstance(length, int) and not isinstance(length, bool) and length < last:
            message = f"rung {last:,} is never reached: config.{name} is {length:,}; lower the one or raise the other"
            return [Problem("metric.at", message)]
    return []


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
    full = [{**config_of(part, params), "run_id": CHECK_RUN_ID, "seed": spec.seeds[0]} for params, _ in configurations]
    # Of what is wrong with a range, its end tells most.
    found: list[tuple[bool, Problem]] = []
    answers = catalog.check_configs(part.worker, full)
    everywhere = set.intersection(*({(each.path, each.message) for each in answer} for answer in answers))
    ignored = {path.removeprefix("config").lstrip(".").partition(".")[0] for path, _ in everywhere}
    for (params, number), problems in zip(configurations, answers, strict=True):
        for problem in problems:
            path = problem.path.removeprefix("config").lstrip(".")
            param = part.space.find(path)
            between = param is not None and params.get(path) not in param.extremes()
            found.append((between, _told(problem, params, number, part.space, ignored)))
    return _once_a_path([problem for _, problem in sorted(found, key=lambda pair: pair[0])])[:MOST_SHOWN]


def _once_a_path(problems: Sequence[Problem]) -> list[Problem]:
    """The first of each place: what is wrong with a setting is wrong in every configuration that has it."""
    return list({problem.path: problem for problem in reversed(problems)}.values())[::-1]


def _told(problem: Problem, params: Mapping[str, Any], number: int | None, space: Space, ignored: set[str]) -> Problem:
    """A worker's answer about one configuration, said of the sweep.

    Args:
        ignored: settings that are wrong whatever the configuration.
    """
    path = problem.path.removeprefix("config").lstrip(".")
    if space.find(path) is not None:
        return Problem(f"space.{path}", problem.message)
    if path.partition(".")[0] in ignored:
        return problem
    given = ", ".join(f"{name}: {_short(value)}" for name, value in params.items())
    which = f"configuration {number}" if number is not None else "a configuration of this space"
    in_config = path in flat(nested(params)) or not params
    return Problem(problem.path, problem.message if in_config else f"{problem.message} ({which} has {given})")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _merged(fixed: Mapping[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(fixed)
    for key, value in varied.items():
        inner = made.get(key)
        made[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return made
