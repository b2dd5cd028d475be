"""What a supervisor is told: which process to run, where, and when to end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What ends a worker that does not end by itself. ``None`` means no limit.

    Attributes:
        max_duration: seconds of running, pauses left out, attempts before this one included.
        max_steps: environment steps, where the worker reports them.
        no_heartbeat: longest silence in seconds: no telemetry line of any kind.
        max_log: bytes on stdout and stderr together.
        memory: bytes of the whole process tree.
        gpu_memory: bytes of the whole process tree on each GPU.
        on_excess: what becomes of a worker that holds more memory than these two: ``stop``, or ``warn``.
        expected_memory, expected_gpu_memory: bytes that only the worker itself declares: more is said, and no more.
    """

    max_duration: float | None = None
    max_steps: int | None = None
    no_heartbeat: float | None = None
    max_log: int | None = None
    memory: int | None = None
    gpu_memory: int | None = None
    on_excess: str = "stop"
    expected_memory: int | None = None
    expected_gpu_memory: int | None = None


@dataclass(frozen=True)
class Room:
    """Room that a worker's output may take. ``None`` means no limit.

    Attributes:
        backlog: bytes of stdout that may wait for storage; more, and its processes stand still.
        keep_log: bytes of each log that stay on disk.
        disk_reserve: bytes free on the disk of its logs below which its processes stand still.
    """

    backlog: int | None = None
    keep_log: int | None = None
    disk_reserve: int | None = None


@dataclass(frozen=True)
class Order:
    """One attempt's process.

    Attributes:
        command: program and arguments.
        cwd: working directory, which must exist.
        environment: all environment variables of the process.
        attempt_dir: where its streams and its outcome go; made if absent.
        grace: seconds between SIGTERM and SIGKILL.
        elapsed_before: running seconds of earlier attempts, counted against ``limits.max_duration``.
        room: what its output may take.
        gpu: whether it has a GPU, whose memory is to be watched.
    """

    run_id: str
    attempt: int
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    attempt_dir: str
    limits: Limits = field(default_factory=Limits)
    grace: float = 30.0
    elapsed_before: float = 0.0
    room: Room = field(default_factory=Room)
    gpu: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Holds the environment, and so possibly secrets: not for storage."""
        return {**asdict(self), "environment": dict(self.environment)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Order:
        """The inverse of :meth:`to_dict`."""
        typed = {
            "command": tuple(data["command"]),
            "limits": Limits(**data["limits"]),
            "room": Room(**data["room"]),
        }
        return cls(**{**data, **typed})
