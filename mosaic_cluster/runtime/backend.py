"""What an experiment asks of whatever runs its attempts: the ``Backend`` protocol and its plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mosaic_cluster.catalog import Environment
from mosaic_cluster.placement import Answer, ClusterView, Placement, Request
from mosaic_cluster.runtime.searching.protocols import Scheduler, SchedulerSetup, Searcher, SearchSetup
from mosaic_cluster.storage import Storage, work_folder
from mosaic_cluster.supervision import Limits, Outcome, Room
from mosaic_cluster.telemetry import HUB_MEMORY, Watched


@dataclass(frozen=True)
class WorkerLaunch:
    """How a worker's process is started, as plain data that travels to the node.

    Attributes:
        name: the worker's registered name.
        package: top package of the worker.
        has_cli: whether ``python -m <package>.cli`` exists.
        supports_checkpointing: whether a later attempt may continue from a checkpoint.
        supports_pause_resume: whether a pause may checkpoint, stop the process and give back its resources.
        command: replaces the package's own start; ``--config <file>`` is appended to it.
        distribution: the installed distribution that the package is from; each node must have it.
        environment: what its process runs in, built by a node that lacks it; ``None``: the node's own interpreter.
            Chosen where the run was planned, so that all nodes follow one recipe.
        joins: whether it joins the Ray cluster that the run is on, as a job of its own.
    """

    name: str
    package: str
    has_cli: bool
    supports_checkpointing: bool = False
    supports_pause_resume: bool = False
    command: tuple[str, ...] | None = None
    distribution: str = ""
    environment: Environment | None = None
    joins: bool = False


@dataclass(frozen=True)
class Joining:
    """The cluster that a worker joins, and what of it is the run's own.

    Attributes:
        address: where Ray is reached, ``host:port``.
        namespace: in which the group's name counts.
        group: name of the placement group that all of the run stays in.
        node_address: by which Ray knows the run's node.
    """

    address: str
    namespace: str
    group: str
    node_address: str


@dataclass(frozen=True)
class WatchOrder:
    """A metric to look at while an attempt runs.

    Attributes:
        metric: its name.
        rungs: environment steps; the first value reported at or after each is kept.
    """

    metric: str
    rungs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Origin:
    """A checkpoint of another run that this run goes on from.

    Attributes:
        path: of the run's own copy: absolute, or relative to the run's folder if that is in an object store.
        step: environment steps trained when it was written.
        run_id: the run that wrote it.
        attempt: the first attempt of this run that begins from it; what earlier ones saved is of no use since.
    """

    path: str
    step: int
    run_id: str
    attempt: int


@dataclass(frozen=True)
class AttemptOrder:
    """One attempt of one run: everything its node needs to know.

    Attributes:
        experiment_dir: where the experiment is in storage, reached from every node: an absolute path, or a URI.
        config: the worker's config without ``run_id`` and ``seed``, which are set from here.
        elapsed_before: running seconds of earlier attempts, counted against ``limits.max_duration``.
        watch: a metric to look at on the way.
        origin: another run's checkpoint that it goes on from.
        room: what its output may take.
        joining: the cluster that its worker joins; ``None``: it knows of none.
    """

    experiment_id: str
    experiment_dir: str
    run_id: str
    attempt: int
    worker: WorkerLaunch
    config: Mapping[str, Any]
    seed: int | None
    placement: Placement
    limits: Limits
    grace: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict)
    elapsed_before: float = 0.0
    watch: WatchOrder | None = None
    origin: Origin | None = None
    room: Room = field(default_factory=Room)
    joining: Joining | None = None

    @property
    def storage(self) -> Storage:
        """The experiment's folder in storage."""
        return Storage.open(self.experiment_dir)

    @property
    def folder(self) -> Path:
        """The experiment's folder as a path of the node that asks: its own, or a work folder of that node."""
        storage = self.storage
        return storage.local_path if storage.is_local else work_folder() / self.experiment_id

    @property
    def run_dir(self) -> Path:
        """``<folder>/runs/<run_id>``."""
        return self.folder / "runs" / self.run_id

    @property
    def telemetry(self) -> Storage:
        """``<experiment>/telemetry``."""
        return self.storage.at("telemetry")

    def attempt_dir(self, attempt: int | None = None) -> Path:
        """``<run dir>/attempts/<n>`` of this attempt, or of another one of the same run."""
        return self.run_dir / "attempts" / str(self.attempt if attempt is None else attempt)


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended.

    Attributes:
        outcome: what became of the worker's process.
        resumed_from_step: step of the checkpoint it continued from; ``None`` when it began at the beginning.
        resumed_from: path of that checkpoint.
        node: name of the node it ran on.
        committed: bytes of its log that are in Parquet.
        log_bytes: size of its sealed log.
        watched: what was seen of the metric that its order names.
        metrics: latest value of each metric; events: telemetry events; both as far as they were read on the way.
        unsent: names of the run's files that could not be put into storage from its work folder.
    """

    outcome: Outcome
    resumed_from_step: int | None = None
    resumed_from: str | None = None
    node: str | None = None
    committed: int = 0
    log_bytes: int = 0
    watched: Watched | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    events: int = 0
    unsent: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = asdict(self)
        data["outcome"] = self.outcome.to_dict()
        data["metrics"] = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        if self.watched is None:
            del data["watched"]
        else:
            data["watched"] = self.watched.to_dict()
        return data


@dataclass(frozen=True)
class RunProgress:
    """What is known about a running attempt right now.

    Attributes:
        state: STARTING, RUNNING or PAUSED.
        step: last step the worker reported.
        metrics: latest value of each metric.
        events: telemetry events of this attempt so far.
        unread: bytes of the log that the hub has not taken yet.
        peak_rss: largest memory of the process tree so far, in bytes.
        peak_gpu_memory: the same of the GPU where it is most; ``None``: not measured.
        warnings: what was noticed and changes nothing, a sentence each.
        watched: what was seen of the metric that its order names.
        stands_still: why its processes are held, if they are, and nobody paused them.
        held: seconds they stood still for that.
        released: bytes of its log that were let go.
        gpu_indices: GPUs it has, by their number on the node, where that is known.
        starting: why it has not begun to run, where that takes long: its environment is being built.
    """

    state: str
    attempt: int
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    events: int = 0
    unread: int = 0
    peak_rss: int = 0
    peak_gpu_memory: int | None = None
    warnings: tuple[str, ...] = ()
    resumed_from_step: int | None = None
    watched: Watched | None = None
    stands_still: str | None = None
    held: float = 0.0
    released: int = 0
    gpu_indices: tuple[int, ...] = ()
    starting: str | None = None


@dataclass(frozen=True)
class HubOrder:
    """How the telemetry hubs of an experiment are to be.

    Attributes:
        shards: how many there are; each run has one of them, for good.
        memory: bytes that each may take for events on their way to storage.
    """

    shards: int = 1
    memory: int = HUB_MEMORY


class Handle(Protocol):
    """One running attempt: a future that can also be told to stop or pause."""

    order: AttemptOrder

    def poll(self) -> AttemptResult | None:
        """The result, or ``None`` while the attempt goes on. Never blocks, never raises for a failed run."""

    def waiting_reason(self) -> str | None:
        """Why it has not started yet, where the backend knows."""

    def stop(self, code: str, message: str) -> None:
        """Ask the worker to checkpoint and stop; after the grace time it is killed."""

    def pause(self) -> None:
        """Freeze the worker's processes; resources stay taken."""

    def unpause(self) -> None:
        """Let frozen processes go on."""


class Backend(Protocol):
    """Runs attempts somewhere, and keeps their telemetry."""

    name: str

    def searcher(self, setup: SearchSetup) -> Searcher:
        """Where a sweep's configurations come from.

        Raises:
            BackendError: there is no such search on this backend.
        """

    def scheduler(self, setup: SchedulerSetup) -> Scheduler:
        """What decides which configurations of a sweep go on.

        Raises:
            BackendError: there is no such scheduler on this backend.
        """

    def view(self) -> ClusterView:
        """Nodes and what is free on them now."""

    def allocate(
        self, requests: Sequence[Request], *, quarantine: Mapping[str, str] | None = None
    ) -> dict[str, Answer]:
        """Ask for places. Call it again and again: what is not asked for any more, nobody waits for.

        Args:
            requests: all runs that wait for a place; empty: none does.
            quarantine: ids of nodes that this experiment keeps off, and why, for people to see.

        Returns:
            By run id. A place that is given is held until the run on it has ended, if it is started before the next
            call. A request without an answer has not been looked at yet.
        """

    def draining(self) -> dict[str, float | None]:
        """Ids of nodes that are to go away, with the unix time at which they will, in seconds, where it is known."""

    def open(self, experiment_id: str, experiment_dir: str, hubs: HubOrder) -> None:
        """Start what an experiment needs: its telemetry hubs."""

    def start(self, order: AttemptOrder) -> Handle:
        """Begin an attempt where its placement says."""

    def finish(self, orders: Sequence[AttemptOrder]) -> list[AttemptResult]:
        """Close attempts that nobody runs any more, several at a time; results in the same order.

        Kills what is left of each on its node, seals its log, and brings the log's unread tail to Parquet.
        """

    def progress(self) -> dict[str, RunProgress]:
        """Latest progress of running attempts, by run id."""

    def wait(self, handles: list[Handle], timeout: float) -> None:
        """Return when one of ``handles`` may have ended, or after ``timeout`` seconds."""

    def close(self) -> None:
        """End everything this backend started, worker processes included."""
