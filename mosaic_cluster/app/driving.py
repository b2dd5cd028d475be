"""From a spec to an ended experiment: the composition root of the ``run`` and ``resume`` verbs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mosaic_cluster.app.backends import make_backend
from mosaic_cluster.app.bridging import bridges_folder, telemetry_of
from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.conductor import Conductor, Listener
from mosaic_cluster.experiments.forecasting import Forecast, forecast
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.journal import Journal
from mosaic_cluster.experiments.kinds import KINDS
from mosaic_cluster.experiments.launching import check_resume, launch, prepare, resume
from mosaic_cluster.experiments.placing import check_feasible
from mosaic_cluster.experiments.planning import Prepared
from mosaic_cluster.experiments.states import COMPLETED, FAILED
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.inventory import assumed, is_nodes_table, read_cluster
from mosaic_cluster.runtime.backend import Backend
from mosaic_cluster.specs import read_document
from mosaic_cluster.specs.bridges import ON_BY_DEFAULT, wanted_bridges
from mosaic_cluster.specs.telemetry import Telemetry
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.bridges.launching import Bridges
from mosaic_cluster.worker.errors import BackendError, Fenced, StorageError

Notice = Callable[[str], None]
EXIT_CODES = {"COMPLETED": 0, "FAILED": 1, "CANCELLED": 130}


@dataclass(frozen=True)
class ExperimentResult:
    """How an experiment ended.

    Attributes:
        experiment_id: its id.
        location: its folder: an absolute path, or a URI.
        state: COMPLETED, FAILED or CANCELLED.
        status: the final status document.
        drove: whether there was anything to do.
    """

    experiment_id: str
    location: str
    state: str
    status: dict[str, Any]
    drove: bool = True

    @property
    def path(self) -> Path:
        """Its folder, as a path.

        Raises:
            StorageError: it is in an object store.
        """
        return Storage.open(self.location).local_path

    @property
    def exit_code(self) -> int:
        """0 completed, 1 failed, 130 interrupted."""
        return EXIT_CODES.get(self.state, 1)


def read_spec(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A spec's document and the name to call it by in messages."""
    if isinstance(source, Mapping):
        return dict(source), None
    return read_document(Path(source)), str(source)


def run(
    source: str | Path | Mapping[str, Any],
    *,
    backend: str = "ray",
    address: str | None = None,
    storage: str | None = None,
    listener: Listener | None = None,
    notice: Notice | None = None,
) -> ExperimentResult:
    """Run what a spec says, to the end.

    Args:
        source: a spec file (YAML or JSON), or the document itself.
        backend: ``ray`` or ``inline``.
        address: Ray cluster to join; default ``$RAY_ADDRESS``, else an embedded Ray.
        storage: overrides the spec's ``storage``.
        listener: called with each status document.
        notice: called with a line for people before what takes seconds.

    Raises:
        SpecError: the spec is wrong; carries every problem. Nothing was started or written.
        PlacementError: no node of the cluster can ever run it.
        BackendError: the cluster cannot be reached.
    """
    document, heading = read_spec(source)
    prepared = prepare(document, Catalog(), heading=heading, storage=storage)
    made = _backend(backend, address, notice)
    try:
        check_feasible(prepared.plans, made.view(), heading)
        conductor = launch(prepared, made, listener=listener)
        return _drive(conductor, made, _bridges(conductor, prepared.spec.telemetry, notice))
    finally:
        made.close()


def continue_experiment(
    home: ExperimentHome,
    *,
    backend: str = "ray",
    address: str | None = None,
    spec: str | Path | Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    retry_failed: bool = False,
    listener: Listener | None = None,
    notice: Notice | None = None,
) -> ExperimentResult:
    """Continue an experiment whose driver ended: see :func:`mosaic_cluster.experiments.launching.resume`.

    One that is done is left as it is, unless a changed spec is given.
    """
    document = None if spec is None else read_spec(spec)[0]
    status = read_status(home)
    done = {COMPLETED} if retry_failed else {COMPLETED, FAILED}
    if status["state"] in done and document is None:
        return ExperimentResult(home.experiment_id, home.location, status["state"], status, drove=False)
    # What is refused anyway is refused before a cluster is started.
    check_resume(home, Journal(home.storage).entries(), document, allow_changed=allow_changed)
    made = _backend(backend, address, notice)
    try:
        conductor = resume(
            home,
            Catalog(),
            made,
            document=document,
            allow_changed=allow_changed,
            retry_failed=retry_failed,
            listener=listener,
            notice=notice,
        )
        return _drive(conductor, made, _bridges(conductor, telemetry_of(home), notice))
    finally:
        made.close()


def plan_of(
    source: str | Path | Mapping[str, Any],
    *,
    backend: str,
    address: str | None,
    storage: str | None,
    notice: Notice | None = None,
) -> tuple[Prepared, list[str], list[dict[str, Any]]]:
    """What running a spec would do: the prepared spec, text lines, and the answers of placement."""
    document, heading = read_spec(source)
    prepared = prepare(document, Catalog(), heading=heading, storage=storage)
    made = _backend(backend, address, notice)
    try:
        kind = KINDS[prepared.spec.kind]
        kind.check_backend(prepared, made)
        lines, answers = kind.describe(prepared, made.view())
    finally:
        made.close()
    return prepared, lines, answers


def plan_on(
    source: str | Path | Mapping[str, Any], cluster: str, *, storage: str | None
) -> tuple[Prepared, list[str], list[dict[str, Any]], Forecast]:
    """What running a spec would do on a described cluster that does nothing else. Needs no Ray.

    Args:
        cluster: a cluster file, or a nodes table.

    Returns:
        As :func:`plan_of`, and the forecast, with the cluster as the first runs take it.

    Raises:
        InvalidInput: the spec or the cluster is wrong; carries every problem.
    """
    document, heading = read_spec(source)
    view = read_cluster(cluster)
    prepared = prepare(document, Catalog(), heading=heading, storage=storage)
    kind = KINDS[prepared.spec.kind]
    lines, answers = kind.describe(prepared, view)
    made = forecast(kind.everything(prepared), view)
    named = f"on {cluster if is_nodes_table(cluster) else Path(cluster).name}, were it idle:"
    told = [*(f"taken for {each}" for each in assumed(view)), *made.lines()]
    return prepared, [*lines, named, *(f"  {line}" for line in told)], answers, made


def _backend(name: str, address: str | None, notice: Notice | None) -> Backend:
    if address is None and name == "ray":
        address = os.environ.get("RAY_ADDRESS") or None
    if notice is not None and name == "ray":
        notice(f"joining the Ray cluster at {address} ..." if address else "starting an embedded Ray ...")
    return make_backend(name, address)


def _bridges(conductor: Conductor, telemetry: Telemetry, notice: Notice | None) -> Bridges:
    wanted = wanted_bridges(telemetry.bridges)
    home = conductor.home
    if not home.storage.is_local:
        off = ON_BY_DEFAULT & set(wanted)
        if off and notice is not None:
            notice(f"bridge {' and '.join(off)} is off: {home.location} is an object store, and it needs a folder")
        wanted = {name: options for name, options in wanted.items() if name not in off}
    return Bridges(bridges_folder(home), wanted, storage=home.storage, notice=notice, grace=telemetry.bridge_grace)


def _drive(conductor: Conductor, backend: Backend, bridges: Bridges) -> ExperimentResult:
    with bridges:
        result = _run_to_end(conductor, backend)
    # What bridges have written is known only now.
    conductor.write_manifest()
    return result


def _run_to_end(conductor: Conductor, backend: Backend) -> ExperimentResult:
    try:
        with _interruptible(conductor):
            state = conductor.run_to_end()
    except BackendError as error:
        conductor.leave()
        raise BackendError(f"{error}\n{_again(conductor)}") from error
    except Fenced:
        raise
    except StorageError as error:
        raise type(error)(f"{error}\n{_again(conductor)}") from error
    except KeyboardInterrupt:
        backend.close()
        state = conductor.abandon("interrupted twice: killed without waiting for a checkpoint")
    home = conductor.home
    return ExperimentResult(home.experiment_id, home.location, state, conductor.status_document())


def _again(conductor: Conductor) -> str:
    return f"Every run keeps its log and checkpoints; to go on: mosaic resume {conductor.home.experiment_id}"


@contextmanager
def _interruptible(conductor: Conductor) -> Iterator[None]:
    """Ctrl-C or SIGTERM once stops cleanly; a second time gives up without waiting.

    The second is a flag too: an exception raised in the middle of a library's call may get lost there.
    A third is raised, for a driver that hangs in one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        asked += 1
        if asked == 2:
            conductor.request_abandon()
            return
        if asked > 2:
            raise KeyboardInterrupt
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        conductor.request_stop("cancelled", f"interrupted ({name}) at {time.strftime('%H:%M:%S')}")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
