"""The owner's side: starting a supervisor, telling it what to do, learning how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mosaic_cluster
from mosaic_cluster.supervision.order import Order
from mosaic_cluster.supervision.outcome import OUTCOME, Outcome, last_lines, read_outcome
from mosaic_cluster.supervision.sealing import lost, seal
from mosaic_cluster.supervision.tree import LABEL, sweep
from mosaic_cluster.worker.errors import SupervisionError

END_SECONDS = 30.0


@dataclass(frozen=True)
class Status:
    """What a supervisor last said.

    Attributes:
        state: STARTING, RUNNING, PAUSED, STOPPING or ENDED.
        last_step: last environment step the worker reported.
        last_heartbeat_at: unix time of its last telemetry line.
        rss: bytes of its process tree now; peak_rss: at most so far.
        gpu_memory: bytes of it on the GPU where it is most; peak_gpu_memory: at most; ``None``: not measured.
        warnings: what was noticed and changes nothing, a sentence each.
        log_bytes: bytes on its stdout.
        stands_still: why its processes are held, if they are, and nobody paused them.
        held: seconds it stood still for that.
        released: bytes of its stdout that were let go.
    """

    state: str = "STARTING"
    pid: int | None = None
    worker_pid: int | None = None
    last_step: int | None = None
    last_heartbeat_at: float | None = None
    rss: int = 0
    peak_rss: int = 0
    gpu_memory: int | None = None
    peak_gpu_memory: int | None = None
    warnings: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    log_bytes: int = 0
    stands_still: str | None = None
    held: float = 0.0
    released: int = 0


class Supervised:
    """A worker's process, through its supervisor. Use :func:`start`; safe to use from several threads."""

    def __init__(self, order: Order, process: subprocess.Popen[bytes]) -> None:
        self.order = order
        self._process = process
        self._lock = threading.Lock()
        self._status = Status()
        self._ended = threading.Event()
        self._outcome: Outcome | None = None
        self._reader = threading.Thread(target=self._read, name=f"supervised-{order.run_id}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                self._status = Status(**{**told, "warnings": tuple(told["warnings"])})
        # The end of the pipe is the end of the supervisor, of whatever kind.
        self._status = Status(**{**vars(self._status), "state": "ENDED"})
        self._ended.set()

    @property
    def pid(self) -> int | None:
        """The supervisor's process id, once known."""
        return self._status.pid

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, once known."""
        return self._status.worker_pid

    def status(self) -> Status:
        """What the supervisor last said."""
        return self._status

    def stop(self, code: str, message: str) -> None:
        """SIGTERM, the order's grace, then SIGKILL for all that is left. The first reason stands."""
        self._tell({"do": "stop", "code": code, "message": message})

    def pause(self) -> None:
        """Freeze all of the worker's processes; its clocks stand still."""
        self._tell({"do": "pause"})

    def unpause(self) -> None:
        """Let them go on."""
        self._tell({"do": "unpause"})

    def committed(self, offset: int) -> None:
        """Say how much of its stdout is in storage: what waits beyond that is limited by ``room.backlog``."""
        self._tell({"do": "committed", "offset": offset})

    def _tell(self, command: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError, ValueError):  # it has ended: nothing left to tell
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """The outcome, or ``None`` if it has not ended after ``timeout`` seconds."""
        if not self._ended.wait(timeout):
            return None
        with self._lock:
            if self._outcome is None:
                self._process.wait()
                self._outcome = read_outcome(self.order.attempt_dir) or self._lost()
        return self._outcome

    def _lost(self) -> Outcome:
        """The supervisor ended without sealing: it was killed, and only its worker's own process with it."""
        order, folder = self.order, Path(self.order.attempt_dir)
        sweep(order.run_id, order.attempt)
        words = last_lines(folder / "supervisor.log", 3)
        message = "its supervisor process was killed" + (f"; it said: {' | '.join(words)}" if words else "")
        return seal(folder, order.run_id, lost(folder, "supervisor_lost", message, time.time()))

    def close(self) -> None:
        """End the worker at once if it still runs, and let go of the supervisor."""
        with self._lock, contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        if not self._ended.wait(END_SECONDS):
            sweep(self.order.run_id, self.order.attempt)
            self._ended.wait(END_SECONDS)
        self._process.wait()
        self._reader.join(END_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


def start(order: Order) -> Supervised:
    """Start a supervisor, which starts the worker.

    Raises:
        SupervisionError: the attempt has ended already, or no process can be made. A command that cannot be
            started is an outcome (``start_failed``), not an error.
    """
    folder = Path(order.attempt_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / OUTCOME).exists():
        raise SupervisionError(f"{folder} holds an attempt that has ended: a restart is an attempt of its own")
    root = os.path.dirname(os.path.dirname(os.path.abspath(mosaic_cluster.__file__)))
    # What we import must be found there, however it was found here.
    environment = {**os.environ, "PYTHONPATH": root, LABEL: f"{order.run_id}/{order.attempt}"}
    environment.pop("MOSAIC_RUN_ID", None)
    command = [sys.executable, "-P", "-m", "mosaic_cluster.supervision.process", f"{order.run_id}/{order.attempt}"]
    data = json.dumps(order.to_dict()).encode()
    with open(folder / "supervisor.log", "ab") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise SupervisionError(f"cannot start a supervisor process: {error}") from error
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it died at once: wait() says so
        process.stdin.write(str(len(data)).encode() + b"\n" + data)
        process.stdin.flush()
    return Supervised(order, process)
