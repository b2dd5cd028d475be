"""How an attempt ended: one state, one code, one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        state: COMPLETED, FAILED, CANCELLED or PAUSED.
        code: completed, exit_code, signal, out_of_memory, max_duration, max_steps, no_heartbeat, max_log,
            cancelled, paused, supervisor_lost, actor_lost, node_lost, start_failed or bad_config.
        message: the reason, as a sentence a person can act on.
        exit_code: of the worker's process, if it exited; signal: name of what killed it, if something did.
        started_at, ended_at: unix times in seconds.
        duration: running seconds, pauses and standing still left out.
        peak_rss: largest memory of the process tree seen, in bytes; cpu_seconds: of all its processes.
        last_step: last environment step it reported.
        stderr_tail: last lines of stderr.
        retryable: whether another attempt may end differently.
        held: seconds it stood still for want of room: its telemetry waited for storage, or its disk was full.
        telemetry_lost_from: byte of its log from which on telemetry is gone with its node's disk; ``None``: none is.
        peak_gpu_memory: most that its processes were seen to hold on one GPU, in bytes; ``None``: it was not measured.
        exhausted: what ran out, if ``code`` is out_of_memory: ``memory`` or ``gpu_memory``.
        warnings: what was noticed and changed nothing, a sentence each.
    """

    state: str
    code: str
    message: str
    exit_code: int | None = None
    signal: str | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    duration: float = 0.0
    peak_rss: int = 0
    cpu_seconds: float = 0.0
    last_step: int | None = None
    stderr_tail: list[str] = field(default_factory=list)
    retryable: bool = False
    held: float = 0.0
    telemetry_lost_from: int | None = None
    peak_gpu_memory: int | None = None
    exhausted: str | None = None
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of :meth:`to_dict`. Names that this version does not know are left out."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**known)


def read_outcome(attempt_dir: str | Path) -> Outcome | None:
    """The outcome of a sealed attempt; ``None`` while there is none."""
    try:
        text = Path(attempt_dir, OUTCOME).read_text(encoding="utf-8")
        return Outcome.from_dict(json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    staged = target.with_name(f"{target.name}#{os.getpid()}")
    with staged.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(staged, target)


def last_lines(path: Path, count: int = 20, width: int = 500) -> list[str]:
    """The last lines of a text file, blank ones left out, long ones cut."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - (1 << 15)))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip()[:width] for line in text.splitlines() if line.strip()]
    return lines[-count:]
