"""What a worker says about itself: who made it, what it can do, what it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar

from mosaic_cluster.worker.errors import ConfigError, Problem

_T = TypeVar("_T")


@dataclass(frozen=True)
class WorkerMetadata:
    """Who a worker is.

    Attributes:
        name: for people, ``"CleanRL Worker"``.
        version: of the worker package.
        description: one sentence.
        author: person or team.
        homepage: a URL.
        upstream_library: the library it wraps, ``None`` if none.
        upstream_version: version of that library.
        license: SPDX identifier of the worker package's license.
    """

    name: str
    version: str = ""
    description: str = ""
    author: str = ""
    homepage: str = ""
    upstream_library: Optional[str] = None
    upstream_version: Optional[str] = None
    license: str = ""

    def __post_init__(self) -> None:
        problems: List[Problem] = []
        for name in ("version", "description", "author", "homepage", "license"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, "")
        for spec in fields(self):
            value = getattr(self, spec.name)
            optional = spec.name.startswith("upstream_")
            if not isinstance(value, str) and not (optional and value is None):
                problems.append(Problem(spec.name, f"must be text, not {value!r}"))
        if isinstance(self.name, str) and not self.name.strip():
            problems.append(Problem("name", "must not be empty"))
        if problems:
            raise ConfigError(problems, heading="worker metadata")

    def to_dict(self) -> Dict[str, Any]:
        """All fields, as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerMetadata:
        """The inverse of :meth:`to_dict`; keys that a newer version may have added are ignored.

        Raises:
            ConfigError: a value is not possible, or ``name`` is missing.
        """
        return _from_dict(cls, data, required="name")


@dataclass(frozen=True)
class WorkerCapabilities:
    """What a worker can do and what it needs. Only ``worker_type`` has no default.

    Names are given as tuples; lists and single strings are taken as such. An empty tuple declares nothing.

    Attributes:
        worker_type: short name, the one of the entry point.
        supported_paradigms: how it trains, ``"sequential"``, ``"parameter_sharing"``, ...
        env_families: ``"gymnasium"``, ``"pettingzoo"``, ...
        action_spaces: ``"discrete"``, ``"continuous"``, ...
        observation_spaces: ``"vector"``, ``"image"``, ...
        max_agents: most agents that one worker process trains or plays.
        supports_self_play: can train against copies of itself.
        supports_population: can train a population.
        supports_checkpointing: writes checkpoints it can go on from.
        supports_pause_resume: can be paused and resumed.
        requires_gpu: cannot run without a GPU.
        gpu_memory_mb: memory it needs on one GPU, MiB; ``None`` if not known.
        cpu_cores: CPUs it keeps busy.
        estimated_memory_mb: host memory it needs, MiB.
    """

    worker_type: str
    supported_paradigms: Tuple[str, ...] = ()
    env_families: Tuple[str, ...] = ()
    action_spaces: Tuple[str, ...] = ()
    observation_spaces: Tuple[str, ...] = ()
    max_agents: int = 1
    supports_self_play: bool = False
    supports_population: bool = False
    supports_checkpointing: bool = False
    supports_pause_resume: bool = False
    requires_gpu: bool = False
    gpu_memory_mb: Optional[int] = None
    cpu_cores: int = 1
    estimated_memory_mb: int = 512

    def __post_init__(self) -> None:
        problems: List[Problem] = []
        if not isinstance(self.worker_type, str) or not self.worker_type.strip():
            problems.append(Problem("worker_type", f"must be a name (cleanrl), not {self.worker_type!r}"))
        for name in ("supported_paradigms", "env_families", "action_spaces", "observation_spaces"):
            self._normalise_names(name, problems)
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name.startswith(("supports_", "requires_")) and type(value) is not bool:
                problems.append(Problem(spec.name, f"must be True or False, not {value!r}"))
        self._normalise_count("max_agents", 1, problems)
        self._normalise_count("cpu_cores", 0, problems)
        self._normalise_count("estimated_memory_mb", 0, problems)
        if self.gpu_memory_mb is not None:
            self._normalise_count("gpu_memory_mb", 0, problems)
        if problems:
            raise ConfigError(problems, heading=f"capabilities of the worker {self.worker_type!r}")

    def supports_paradigm(self, paradigm: str) -> bool:
        """Whether it is among ``supported_paradigms``."""
        return paradigm in self.supported_paradigms

    def supports_env_family(self, family: str) -> bool:
        """Whether it is among ``env_families``."""
        return family in self.env_families

    def is_multi_agent(self) -> bool:
        """Whether one worker process serves more than one agent."""
        return self.max_agents > 1

    def to_dict(self) -> Dict[str, Any]:
        """All fields, as plain JSON values (tuples as lists)."""
        content = asdict(self)
        return {name: list(item) if isinstance(item, tuple) else item for name, item in content.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerCapabilities:
        """The inverse of :meth:`to_dict`; keys that a newer version may have added are ignored.

        Raises:
            ConfigError: a value is not possible, or ``worker_type`` is missing.
        """
        return _from_dict(cls, data, required="worker_type")

    def _normalise_names(self, name: str, problems: List[Problem]) -> None:
        value: Any = getattr(self, name)
        if value is None:
            value = ()
        elif isinstance(value, str):
            value = (value,)
        elif isinstance(value, (set, frozenset)):
            value = tuple(sorted(value, key=str))
        elif isinstance(value, Iterable) and not isinstance(value, Mapping):
            value = tuple(value)
        else:
            problems.append(Problem(name, f"must be a tuple of names, not {value!r}"))
            return
        wrong = [item for item in value if not isinstance(item, str) or not item.strip()]
        if wrong:
            problems.append(Problem(name, f"must hold names only; {', '.join(map(repr, wrong))} is none"))
        object.__setattr__(self, name, value)

    def _normalise_count(self, name: str, least: int, problems: List[Problem]) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
            object.__setattr__(self, name, value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.append(Problem(name, f"must be a whole number of at least {least}, not {value!r}"))


def _from_dict(cls: Type[_T], data: Mapping[str, Any], *, required: str) -> _T:
    if not isinstance(data, Mapping):
        raise ConfigError([Problem("", f"{cls.__name__} is read from an object, not from {data!r}")])
    if required not in data:
        raise ConfigError([Problem(required, "is required")], heading=cls.__name__)
    known = {spec.name for spec in fields(cls)}  # type: ignore[arg-type]
    return cls(**{key: value for key, value in data.items() if key in known})


__all__ = ["WorkerCapabilities", "WorkerMetadata"]
