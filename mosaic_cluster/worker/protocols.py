"""What a worker's config and runtime look like. Structural: nothing needs to inherit from these."""

from __future__ import annotations

from typing import Any, Dict, Optional, Protocol, runtime_checkable


@runtime_checkable
class WorkerConfig(Protocol):
    """What configures one run of a worker.

    ``from_dict(config.to_dict())`` gives an equal config.

    Attributes:
        run_id: identifies the run; never empty.
        seed: seed of all randomness, or ``None`` to let the worker draw one.
    """

    run_id: str
    seed: Optional[int]

    def to_dict(self) -> Dict[str, Any]:
        """All of the config, as plain JSON values."""
        ...

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> WorkerConfig:
        """Build a config from what :meth:`to_dict` gave, or a person wrote."""
        ...


@runtime_checkable
class WorkerRuntime(Protocol):
    """What executes one run; made with its config."""

    def run(self) -> Dict[str, Any]:
        """Train (or evaluate, or play) to the end, and return a summary of plain JSON values."""
        ...


__all__ = ["WorkerConfig", "WorkerRuntime"]
