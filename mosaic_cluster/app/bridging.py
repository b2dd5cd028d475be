"""Writing an experiment to another tracker afterwards, or beside its driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.experiments.changes import accepted
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.journal import Journal
from mosaic_cluster.experiments.states import LOST, TERMINAL
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.specs import parse
from mosaic_cluster.specs.bridges import ON_BY_DEFAULT, Bridges, wanted_bridges
from mosaic_cluster.specs.problems import suggestion
from mosaic_cluster.specs.telemetry import Telemetry
from mosaic_cluster.storage import work_folder
from mosaic_cluster.telemetry.bridges import BRIDGES
from mosaic_cluster.telemetry.bridges.process import serve
from mosaic_cluster.worker.errors import InvalidInput, Problem


def telemetry_of(home: ExperimentHome) -> Telemetry:
    """The section of the spec that an experiment goes by now."""
    spec, _ = parse(accepted(home.record(), Journal(home.storage).entries()))
    return Telemetry() if spec is None else spec.telemetry


def bridges_folder(home: ExperimentHome) -> Path:
    """Where bridges keep their files on this machine: the experiment's folder, or what stands in for it here."""
    return home.path if home.storage.is_local else work_folder() / home.experiment_id


def bridge_experiment(home: ExperimentHome, name: str, options: Sequence[str], log: Callable[[str], None]) -> int:
    """Write to a tracker what it does not have of an experiment yet; of one that runs, until it ends.

    Args:
        name: of the bridge.
        options: ``key=value``, over what the experiment's spec says.
        log: takes lines about what is going on.

    Returns:
        how many files were written.

    Raises:
        InvalidInput: no such bridge, its package is not installed, or wrong options.
        AlreadyExists: the experiment's driver, or another, is writing it.
    """
    wanted = _options(home, name, options)
    missing = BRIDGES[name].missing()
    if missing is not None:
        raise InvalidInput([Problem("", missing)])
    if name in ON_BY_DEFAULT and not home.storage.is_local:
        raise InvalidInput([Problem("NAME", f"{name} needs a folder, and {home.location} is an object store")])

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return read_status(home)["state"] in {*TERMINAL, LOST}

    return serve(bridges_folder(home), name, wanted, wait, log, home.storage)


def _options(home: ExperimentHome, name: str, given: Sequence[str]) -> dict[str, Any]:
    if name not in BRIDGES:
        near = suggestion(name, BRIDGES).replace("valid keys", "there are")
        raise InvalidInput([Problem("NAME", f"there is no bridge {name!r}; {near}")])
    section: dict[str, Any] = dict(wanted_bridges(telemetry_of(home).bridges).get(name, {}))
    problems = []
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            problems.append(Problem("--option", f"{each!r} is not key=value, e.g. project=my-project"))
        section[key] = _number(value) if key == "points_per_second" else value
    # Checked as a spec's: the same names, the same messages.
    document = {"kind": "run", "name": "x", "worker": "x", "telemetry": {"bridges": {name: section}}}
    spec, more = parse(document)
    if problems or spec is None:
        where = f"telemetry.bridges.{name}."
        raise InvalidInput(problems or [Problem(p.path.replace(where, "--option "), p.message) for p in more])
    checked: Bridges = spec.telemetry.bridges
    return wanted_bridges(checked)[name]


def _number(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value
