"""Installing, examining, listing and pruning the environments of workers on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.catalog.environments import (
    Built,
    Environment,
    Stored,
    build,
    find_interpreter,
    label,
    locate,
    make_ready,
    remove,
    stored,
)
from mosaic_cluster.catalog.environments.building import BuildProgress
from mosaic_cluster.catalog.environments.debian import RELEASES, can_unpack, unpack_debian_python
from mosaic_cluster.catalog.environments.doctor import Check, Subject, examine, title
from mosaic_cluster.catalog.environments.store import is_used
from mosaic_cluster.storage import cache_folder
from mosaic_cluster.worker.errors import EnvironmentFailed, InvalidInput, Problem

UNUSED = "unused"


@dataclass(frozen=True)
class Installed:
    """What became of one environment.

    Attributes:
        worker: whose it is; label: its name for people.
        state: ``built``, ``there`` (it was before), ``used`` (not ours to build), ``failed``.
        words: where it is, or what went wrong.
    """

    worker: str
    label: str
    state: str
    words: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self)


def chosen_environments(names: Sequence[str], environment: str | None) -> list[tuple[WorkerEntry, Environment]]:
    """The environments that are meant.

    Args:
        names: of workers; none: all that are installed and not broken.
        environment: only the one of that name; by default, all but those on demand.

    Raises:
        WorkerError: there is no such worker, or it is broken.
        InvalidInput: a worker has no such environment.
    """
    catalog = Catalog()
    entries = [catalog.get(name) for name in names] if names else [each for each in catalog.entries() if each.usable]
    problems = []
    for entry in entries:
        known = [each.name for each in entry.environments]
        if environment is not None and environment not in known:
            listed = ", ".join(known) or "none: it runs in the interpreter that mosaic_cluster is installed in"
            problems.append(
                Problem("--environment", f"{entry.name} has no environment {environment!r}; it has {listed}")
            )
    if problems:
        raise InvalidInput(problems)
    return [
        (entry, each)
        for entry in entries
        for each in entry.environments
        if (not each.on_demand if environment is None else each.name == environment)
    ]


def broken() -> list[Installed]:
    """Installed workers of which nothing can be built, since they cannot be loaded or their declaration is wrong."""
    return [Installed(each.name, each.name, "failed", each.error) for each in Catalog().entries() if each.error]


def install(
    entry: WorkerEntry,
    environment: Environment,
    *,
    rebuild: bool = False,
    debian_python: bool = False,
    report: Callable[[BuildProgress], None] | None = None,
) -> Installed:
    """Build one environment, or see that one which is not ours to build can be used. Never raises for its failure, nor
    for a cache that cannot be written to.

    Args:
        debian_python: where no interpreter is found, take one from Debian's packages.
    """
    what = label(entry.name, environment)
    try:
        if not environment.is_built:
            ready = make_ready(entry.name, entry.distribution, entry.package, environment)
            return Installed(entry.name, what, "used", environment.image_uri or ready.python)
        if debian_python:
            _have_interpreter(what, environment, report)
        place = locate(entry.name, environment)
        there = place.built() is not None and not rebuild
        built: Built = build(place, report=report, rebuild=rebuild)
        return Installed(entry.name, what, "there" if there else "built", str(built.folder))
    except EnvironmentFailed as error:
        return Installed(entry.name, what, "failed", str(error))
    except OSError as error:  # a cache that is full, or not ours to write to
        words = f"the environment of {what} cannot be had in {cache_folder()}: {error}"
        return Installed(entry.name, what, "failed", words)


def _have_interpreter(what: str, environment: Environment, report: Callable[[BuildProgress], None] | None) -> None:
    try:
        find_interpreter(environment.python)
        return
    except EnvironmentFailed:
        if can_unpack() is not None:
            raise  # it says what else there is
        wanted = [each for each in environment.python if each in RELEASES] or list(environment.python)

    def tell(text: str) -> None:
        if report is not None:
            report(BuildProgress(what, 1, 1, text))

    unpack_debian_python(wanted[0], tell)


def examinations(name: str, environment: str | None) -> Iterator[tuple[str, Iterator[Check]]]:
    """What is to be looked at for a worker: each of its environments, with its checks.

    Raises:
        WorkerError: there is no such worker, or it is broken.
        InvalidInput: it has no such environment.
    """
    entry = Catalog().get(name)
    subject = Subject(entry.name, entry.distribution, entry.package, entry.value)
    chosen: list[Environment | None] = [each for _, each in chosen_environments([name], environment)]
    # Where no condition matches, a run has the interpreter of mosaic_cluster.
    if environment is None and all(each.when for each in entry.environments):
        chosen.append(None)
    for each in chosen:
        yield title(entry.name, each), examine(subject, each)


def list_environments() -> list[Stored]:
    """What lies in the cache; ``unused`` is what no installed worker asks for any more."""
    wanted = set()
    for entry in Catalog().entries():
        for environment in entry.environments:
            if environment.is_built:
                with suppress(EnvironmentFailed):  # nothing was built with an interpreter that is not there
                    wanted.add(locate(entry.name, environment).name)
    return [
        Stored(each.name, UNUSED, each.folder, each.size, each.record)
        if each.state == "built" and each.name.rpartition(".")[0] not in wanted
        else each
        for each in stored()
    ]


def prune(entries: Sequence[Stored]) -> list[Stored]:
    """Remove what is superseded, unfinished or unused, and in use by no process of this machine; returns what was.

    What is unused goes only where it was built: on a cache that nodes share, another node may ask for it, whose
    interpreter is another one.
    """
    gone = [
        each
        for each in entries
        if (each.state in ("superseded", "unfinished") or (each.state == UNUSED and not built_elsewhere(each)))
        and not is_used(each.folder)
    ]
    for each in gone:
        remove(each)
    return gone


def built_elsewhere(entry: Stored) -> bool:
    """Whether another machine has built it."""
    return entry.record.get("host") != os.uname().nodename
