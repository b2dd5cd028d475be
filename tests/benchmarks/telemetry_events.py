"""The events that the telemetry benchmarks print, the same for us and for every peer.

- ``small``: the contract's heartbeat with a step and one metric;
- ``five``: one with a step and five scalars;
- ``step``: a step line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIRST_TIME = 1767225600.123456


def _small(number: int) -> dict[str, Any]:
    return {"loss": 0.5 + number * 1e-6, "step": number}


def _five(number: int) -> dict[str, Any]:
    return {
        "entropy": 0.69 - number * 1e-7,
        "episodic_return": 200.0 + number % 300,
        "explained_variance": 0.5 + number * 1e-7,
        "loss": 0.0123456 + number * 1e-7,
        "step": number,
        "steps_per_second": 1234.5 + number % 100,
    }


def _step(number: int) -> dict[str, Any]:
    return {
        "action": number % 2,
        "episode": number // 200,
        "observation": [0.1, -0.2, number * 1e-6, 0.4],
        "reward": 1.0,
        "step": number % 200,
        "terminated": False,
        "truncated": False,
    }


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {"small": _small, "five": _five, "step": _step}


def event(shape: str, number: int, run_id: str) -> dict[str, Any]:
    """The whole event, as the line says it."""
    fields, when = SHAPES[shape](number), round(FIRST_TIME + number * 1e-4, 6)
    if shape == "step":
        return {**fields, "run_id": run_id, "timestamp": when, "type": "step"}
    return {"event": "heartbeat", "payload": fields, "run_id": run_id, "timestamp": when}


def line(shape: str, number: int, run_id: str) -> bytes:
    """The event as the contract's emitter writes it, with the line's end."""
    return json.dumps(event(shape, number, run_id), separators=(",", ":"), sort_keys=True).encode() + b"\n"


def wait_for_start(folder: Path) -> None:
    """Say that this process is ready, and wait until all are: what comes before does not count."""
    (folder / "ready").touch()
    start = folder.parent / "start"
    while not start.exists():
        time.sleep(0.001)


def start_all(folders: list[Path], seconds: float = 120.0) -> None:
    """Let the processes of these sibling folders begin, once all are ready."""
    end = time.monotonic() + seconds
    while not all((folder / "ready").exists() for folder in folders):
        if time.monotonic() > end:
            raise SystemExit(f"not ready after {seconds:g} s: {[str(each) for each in folders]}")
        time.sleep(0.01)
    (folders[0].parent / "start").touch()
