"""What one run needs of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from mosaic_cluster.units import MIB
from mosaic_cluster.worker.errors import PlacementError, Problem


class Declares(Protocol):
    """The part of ``WorkerCapabilities`` that placement reads. ``_mb`` counts MiB."""

    @property
    def cpu_cores(self) -> int:
        """CPUs."""

    @property
    def estimated_memory_mb(self) -> int:
        """Host memory."""

    @property
    def requires_gpu(self) -> bool:
        """Whether it cannot run without a GPU."""

    @property
    def gpu_memory_mb(self) -> int | None:
        """Memory on one GPU."""

    @property
    def max_agents(self) -> int:
        """Most agents one worker process serves."""


@dataclass(frozen=True)
class Request:
    """What one run needs of a node.

    Attributes:
        run_id: whose request it is.
        cpus: CPUs; counted in steps of 1/10,000, as Ray does, rounded up.
        memory: bytes of host memory; ``None`` reserves none.
        gpus: number of GPUs.
        gpu_memory: bytes needed on each GPU. With one GPU, that share of it is enough (see ``whole_gpus``);
            several GPUs are always whole, each at least that large. ``None``: whole GPUs of any size.
        gpus_mandatory: if false, the run goes without GPUs where none is free now.
        agents: agents the run serves: so many agent slots of its node.
        whole_gpus: take the GPU whole, and read ``gpu_memory`` as the least size it may have.
        accelerator: GPU models of which any will do; empty: any model.
        labels: what the node's labels must be, in Ray's words: ``v``, ``!v``, ``in(a,b)``, ``!in(a,b)``.
        gang: requests of one gang are placed all together or not at all; empty: this one stands alone.
        spread: whether the gang's members keep apart, each on another node if it can; else they keep together.
        avoid: ids of nodes that it must not be placed on.
        experiment: whose it is: experiments share by ``weight``.
        priority: larger goes first.
        weight: share of its experiment beside others of the same priority.
        since: unix time since when it waits, in seconds; earlier goes first. 0: nobody knows, and no node is kept free
            for it.
        duration: seconds it will take, where that is known.
    """

    run_id: str
    cpus: float = 1.0
    memory: int | None = None
    gpus: int = 0
    gpu_memory: int | None = None
    gpus_mandatory: bool = True
    agents: int = 1
    whole_gpus: bool = False
    accelerator: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gang: str = ""
    spread: bool = False
    avoid: tuple[str, ...] = ()
    experiment: str = ""
    priority: int = 0
    weight: float = 1.0
    since: float = 0.0
    duration: float | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "memory", "gpus", "gpu_memory", "agents"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name} of a request is {value}: give a finite number, 0 or more")
        if self.gpus == 0 and self.gpu_memory is not None:
            raise ValueError("a request has gpu_memory but no gpus: give gpus=1, or no gpu_memory")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight of a request is {self.weight}: give a finite number above 0")

    @property
    def shares_gpu(self) -> bool:
        """Whether a part of one GPU is enough."""
        return self.gpus == 1 and bool(self.gpu_memory) and not self.whole_gpus

    @property
    def demands(self) -> tuple[Any, ...]:
        """All that decides on which nodes it fits: equal for requests that fit the same."""
        labels = tuple(sorted(self.labels.items())) if self.labels else ()
        return (
            self.cpus, self.memory, self.gpus, self.gpu_memory, self.agents, self.whole_gpus, self.accelerator,
            labels, self.avoid, self.gpus_mandatory,
        )  # fmt: skip

    def without_gpus(self) -> Request:
        """The same, needing no GPU."""
        return replace(self, gpus=0, gpu_memory=None, whole_gpus=False, accelerator=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(replace(self, labels=dict(self.labels)))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Request:
        """The way back from :meth:`to_dict`."""
        named = {item.name: document[item.name] for item in fields(cls) if item.name in document}
        for name in ("accelerator", "avoid"):
            named[name] = tuple(named.get(name, ()))
        return cls(**named)


def request_for(
    capabilities: Declares,
    *,
    run_id: str,
    overrides: Mapping[str, Any] | None = None,
    agents: int | None = None,
    others: Mapping[str, int] | None = None,
    **queue: Any,
) -> Request:
    """A run's request: what its worker declares, where the spec does not say otherwise.

    A declared ``gpu_memory_mb`` counts where a GPU is used at all: the worker requires one, or the spec asks
    for one. ``gpus`` alone in the spec means whole GPUs, at least as large as declared; ``gpu_memory`` means
    a share of one.

    ``per_agent`` amounts are multiplied by the number of agents and added to ``cpus``, ``memory`` and
    ``gpu_memory`` of the spec; where the spec does not give that base, they stand alone, in place of what is
    declared.

    Args:
        capabilities: what the worker declares.
        overrides: the spec's ``resources``: ``cpus``, ``memory`` and ``gpu_memory`` in bytes, ``gpus``,
            ``gpus_mandatory``, ``agents``, ``per_agent`` (``cpus``, ``memory``, ``gpu_memory``), ``accelerator``
            (one model or several), ``labels``; ``None`` or absent means as declared.
        agents: agents the run serves; ``resources.agents`` goes before it, and 1 is meant where neither is given.
        others: agents that other workers serve at most, by name: those that could are named where this one cannot.
        queue: further fields of :class:`Request`: ``gang``, ``spread``, ``avoid``, ``experiment``, ``priority``,
            ``weight``, ``since``, ``duration``.

    Raises:
        PlacementError: more agents than the worker serves.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    count = int(given.get("agents", 1 if agents is None else agents))
    if count > capabilities.max_agents:
        raise PlacementError([Problem("agents", _too_many(count, capabilities.max_agents, others or {}))])
    scaled = _scaled(given, count)
    gpus, gpu_memory, whole = _gpus(capabilities, scaled.get("gpus"), scaled.get("gpu_memory"))
    accelerator = given.get("accelerator", ())
    return Request(
        run_id=run_id,
        cpus=float(scaled.get("cpus", capabilities.cpu_cores)),
        memory=scaled.get("memory", (capabilities.estimated_memory_mb or 0) * MIB or None),
        gpus=gpus,
        gpu_memory=gpu_memory,
        gpus_mandatory=bool(given.get("gpus_mandatory", True)),
        agents=count,
        whole_gpus=whole,
        accelerator=(accelerator,) if isinstance(accelerator, str) else tuple(accelerator),
        labels=dict(given.get("labels", {})),
        **queue,
    )


def _too_many(agents: int, most: int, others: Mapping[str, int]) -> str:
    """What to do where a worker does not serve so many."""
    could = [f"{name} serves up to {served}" for name, served in sorted(others.items()) if served >= agents]
    other = "take another worker" + (f" ({', '.join(could)})" if could else "")
    if others and not could:
        other = "split them over several workers, since no other serves so many"
    return f"{agents} is more than this worker serves; give {most} or less, or {other}"


def _scaled(given: Mapping[str, Any], agents: int) -> dict[str, Any]:
    """The amounts a spec gives, with what each agent adds."""
    scaled = dict(given)
    for name, amount in (given.get("per_agent") or {}).items():
        if amount is not None:
            scaled[name] = given.get(name, 0) + amount * agents
    return scaled


def _gpus(declared: Declares, gpus: int | None, gpu_memory: int | None) -> tuple[int, int | None, bool]:
    """Number of GPUs, bytes on each, and whether they are taken whole."""
    declared_memory = (declared.gpu_memory_mb or 0) * MIB or None
    if gpus is None and gpu_memory is None:
        return (1, declared_memory, False) if declared.requires_gpu else (0, None, False)
    if gpus == 0:
        return 0, None, False
    if gpu_memory is not None:
        return gpus or 1, gpu_memory, False
    return gpus or 1, declared_memory, True
