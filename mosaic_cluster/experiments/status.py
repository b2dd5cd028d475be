"""Reading what became of an experiment, from its storage alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.states import LOST, TERMINAL
from mosaic_cluster.worker.errors import NotFound

STATUS = "status.json"
SILENT_SECONDS = 30.0


def read_status(home: ExperimentHome, now: float | None = None) -> dict[str, Any]:
    """The status document, with the states of runs nobody drives any more turned to LOST.

    Args:
        now: unix time in seconds.
    """
    now = time.time() if now is None else now
    try:
        status: dict[str, Any] = home.storage.get_json(STATUS)
    except NotFound:
        status = _without_status(home)
    if status["state"] in TERMINAL:
        return status
    why = _driver_gone(status, now)
    if why is not None:
        status["state"], status["reason"] = LOST, why
        for run in status["runs"]:
            if run["state"] not in TERMINAL:
                run["reason"] = f"was {run['state']}; {why}"
                run["state"] = LOST
        for trial in status.get("trials", ()):
            if trial["state"] in ("PENDING", "RUNNING", "PAUSED"):
                trial["reason"] = f"was {trial['state']}; {why}"
                trial["state"] = LOST
    return status


def driver_alive(home: ExperimentHome, entries: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Whether somebody drives the experiment now, as far as can be told from here.

    Args:
        entries: its journal: a driver that has just begun stands there before it stands in the status.
    """
    state = read_status(home)["state"]
    if state not in TERMINAL and state != LOST:
        return True
    kinds = ("driver_started", "driver_left", "experiment_ended")
    begun = [entry for entry in entries if entry["type"] in kinds]
    if not begun or begun[-1]["type"] != "driver_started":
        return False
    driver = begun[-1]["driver"]
    here = driver["host"] == socket.gethostname()
    return bool(here and _same_process(int(driver["pid"]), float(driver["process_started"])))


def _driver_gone(status: dict[str, Any], now: float) -> str | None:
    driver = status.get("driver")
    if driver is None:
        return "no driver has taken it up; `mosaic resume` continues it"
    who = f"process {driver['pid']} on {driver['host']}"
    if driver["host"] == socket.gethostname():
        if _same_process(int(driver["pid"]), float(driver["process_started"])):
            return None
        return f"its driver ({who}) is gone; `mosaic resume` continues it"
    silent = now - float(status["updated_at"])
    if silent < SILENT_SECONDS:
        return None
    return f"its driver ({who}) has been silent for {silent:.0f}s; `mosaic resume` continues it"


def _same_process(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _without_status(home: ExperimentHome) -> dict[str, Any]:
    record = home.record()
    return {
        "experiment_id": home.experiment_id,
        "kind": record.get("kind"),
        "name": record.get("name"),
        "state": "PENDING",
        "created_at": record.get("created_at"),
        "updated_at": record.get("created_at"),
        "driver": record.get("driver"),
        "runs": [],
    }
