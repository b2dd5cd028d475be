"""Telemetry: one line of JSON on stdout for everything that happens in a run.

A line looks like this (compact, keys sorted, ASCII)::

    {"event":"heartbeat","payload":{"loss":0.02,"step":4096},"run_id":"01J...","timestamp":1767225600.123456}

Values that JSON does not know never crash a worker: :mod:`mosaic_cluster.worker._plain` says what becomes of
them. NaN and the infinities are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field
from enum import Enum
from time import time, time_ns
from typing import IO, TYPE_CHECKING, Any, Dict, Mapping, Optional, Set, Union

from mosaic_cluster.worker._plain import as_object, fast_text, json_text, object_text, to_plain

if TYPE_CHECKING:
    import logging


class LifecycleEventType(str, Enum):
    """What can happen to a run."""

    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    RUN_FAILED = "run_failed"
    RUN_CANCELLED = "run_cancelled"
    HEARTBEAT = "heartbeat"
    CHECKPOINT_SAVED = "checkpoint_saved"
    CHECKPOINT_LOADED = "checkpoint_loaded"


STEP_NAMES = (
    "step",
    "global_step",
    "total_steps",
    "timesteps",
    "total_timesteps",
    "env_steps",
    "num_env_steps_sampled_lifetime",
)
"""Names of the global step in a heartbeat's payload, the preferred one first."""


@dataclass(frozen=True)
class LifecycleEvent:
    """One event, as an object; what a line of the emitter says.

    Attributes:
        event: which.
        run_id: of which run.
        timestamp: seconds since 1970.
        payload: whatever belongs to it.
    """

    event: Union[LifecycleEventType, str]
    run_id: str
    timestamp: float = field(default_factory=time)
    payload: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """Plain JSON values only."""
        return {
            "event": to_plain(self.event),
            "payload": to_plain(as_object(self.payload)),
            "run_id": self.run_id,
            "timestamp": to_plain(self.timestamp),
        }

    def to_json(self) -> str:
        """The line, without its end."""
        return json_text(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LifecycleEvent:
        """The event of a parsed line; a name that is not in :class:`LifecycleEventType` stays a string.

        Raises:
            KeyError: ``event`` or ``run_id`` is missing.
        """
        event = data["event"]
        with contextlib.suppress(ValueError):
            event = LifecycleEventType(event)
        return cls(
            event=event,
            run_id=data["run_id"],
            timestamp=data.get("timestamp", 0.0),
            payload=data.get("payload") or {},
        )


class TelemetryEmitter:
    """Writes telemetry lines. Thread-safe, safe after a fork, and never the reason why a worker crashes.

    Each line is written at once and whole. If it cannot be written (the reader is gone, the disk is full),
    that is said once on stderr, and the worker goes on.

    Args:
        run_id: of the run, on every line.
        sink: an open file, text or binary; default: whatever ``sys.stdout`` is at the time.
        logger: also gets every event: at the level of its ``constant`` if that has one, else DEBUG.
    """

    def __init__(
        self, run_id: str, *, sink: Optional[IO[Any]] = None, logger: Optional[logging.Logger] = None
    ) -> None:
        self._run_id = run_id if type(run_id) is str else str(run_id)
        self._sink = sink
        self._logger = logger
        self._tail = ',"run_id":' + json_text(self._run_id) + ',"timestamp":'

    @property
    def run_id(self) -> str:
        """Of the run, on every line."""
        return self._run_id

    def run_started(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """The run begins; the payload says with what."""
        self.emit("run_started", payload, constant=constant)

    def run_completed(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """The run did all it was asked to; the payload is its summary."""
        self.emit("run_completed", payload, constant=constant)

    def run_failed(
        self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None, exc_info: Any = None
    ) -> None:
        """The run cannot go on.

        Args:
            payload: what is known about it.
            constant: see :meth:`emit`.
            exc_info: an exception, a ``sys.exc_info()`` triple, or ``True`` for the exception being handled:
                adds ``traceback``, and ``error`` and ``error_type`` where the payload does not have them.
        """
        if exc_info:
            with contextlib.suppress(Exception):
                payload = _with_traceback(payload, exc_info)
        self.emit("run_failed", payload, constant=constant)

    def run_cancelled(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """The run stops early because it was told to."""
        self.emit("run_cancelled", payload, constant=constant)

    def heartbeat(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """The run is alive; the payload holds ``step`` and metrics. About one a second is plenty."""
        self.emit("heartbeat", payload, constant=constant)

    def checkpoint_saved(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """A checkpoint lies complete at ``payload["path"]``, of global step ``payload["step"]``."""
        self.emit("checkpoint_saved", payload, constant=constant)

    def checkpoint_loaded(self, payload: Optional[Mapping[str, Any]] = None, *, constant: Any = None) -> None:
        """The run goes on from the checkpoint at ``payload["path"]``, of global step ``payload["step"]``."""
        self.emit("checkpoint_loaded", payload, constant=constant)

    def step(self, **fields: Any) -> None:
        """A line of ``"type": "step"``: ``episode``, ``step``, ``action``, ``observation``, ``reward`` ..."""
        self._typed("step", fields)

    def episode(self, **fields: Any) -> None:
        """A line of ``"type": "episode"``: ``episode``, ``total_reward``, ``steps``, ``terminated`` ..."""
        self._typed("episode", fields)

    def emit(
        self,
        event: Union[LifecycleEventType, str],
        payload: Optional[Mapping[str, Any]] = None,
        *,
        constant: Any = None,
    ) -> None:
        """Write one lifecycle line; the methods named like the events do nothing else.

        Args:
            event: which.
            payload: JSON values, or anything else.
            constant: a log constant (an object with a ``code``) or a string; its code goes on the line.
        """
        try:
            try:
                body = fast_text(payload) if type(payload) is dict else object_text(payload)
            except Exception:  # noqa: BLE001 - then it is not plain
                body = object_text(payload)
            micros = str(time_ns() // 1000)  # two thirds of the time that formatting a float takes
            line = f"{_HEADS.get(event) or _head(event)}{body}{self._tail}{micros[:-6]}.{micros[-6:]}}}\n"
            if constant is not None:
                line = '{"constant":' + _code(constant) + "," + line[1:]
            self._write(line)
            if self._logger is not None:
                _log(self._logger, to_plain(event), self._run_id, body, constant)
        except Exception as error:  # noqa: BLE001 - telemetry must not be what ends a run
            _complain(error)

    def _typed(self, kind: str, fields: Dict[str, Any]) -> None:
        try:
            fields.setdefault("timestamp", time())
            fields["type"] = kind
            fields["run_id"] = self._run_id
            self._write(object_text(fields) + "\n")
        except Exception as error:  # noqa: BLE001 - as above
            _complain(error)

    def _write(self, line: str) -> None:
        sink: Any = sys.stdout if self._sink is None else self._sink
        real: Any = sys.__stdout__
        with _lock:
            if sink is real:
                sink.flush()  # what was printed before stands before
                _write_at_once(sink.fileno(), line.encode("ascii"))
                return
            try:
                sink.write(line)
            except TypeError:
                sink.write(line.encode("ascii"))
            sink.flush()


# One lock for all emitters of the process: they share one stdout. Reentrant, because a signal handler that
# emits runs in the main thread, which may be holding the lock.
_lock = threading.RLock()
# Descriptors on which half a line stands: the next line must begin on a new one.
_torn: Set[int] = set()
_complained = False


def _renew_lock() -> None:
    """In a forked child: the thread that held the lock may not exist there."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _write_at_once(descriptor: int, data: bytes) -> None:
    """One system call for the whole line, so that other processes on the same file cannot cut it in two."""
    if _torn:
        _write_all(descriptor, data)
        return
    try:
        written = os.write(descriptor, data)
    except BlockingIOError:
        written = 0
    if written != len(data):
        _write_all(descriptor, data, written)


def _write_all(descriptor: int, data: bytes, written: int = 0) -> None:
    """What is left of a line, in as many calls as it takes."""
    import select

    if descriptor in _torn:
        data = b"\n" + data
    try:
        while written < len(data):
            try:
                written += os.write(descriptor, data[written:])
            except BlockingIOError:
                select.select([], [descriptor], [], 1.0)
    except BaseException:
        if written:
            _torn.add(descriptor)
        raise
    _torn.discard(descriptor)


def _complain(error: Exception) -> None:
    """Say once on stderr that telemetry is being lost."""
    global _complained
    if _complained:
        return
    _complained = True
    with contextlib.suppress(Exception):
        sys.stderr.write(
            f"mosaic_cluster: telemetry cannot be written ({type(error).__name__}: {error}); "
            "the run goes on without\n"
        )
        sys.stderr.flush()


def _head(event: Any) -> str:
    return '{"event":' + json_text(str(to_plain(event))) + ',"payload":'


_HEADS: Dict[Any, str] = {event.value: _head(event) for event in LifecycleEventType}


def _attribute(value: Any, name: str, default: Any) -> Any:
    """``getattr`` for objects whose attributes may raise anything."""
    try:
        return getattr(value, name, default)
    except Exception:  # noqa: BLE001 - a constant's trouble must not cost the line
        return default


def _code(constant: Any) -> str:
    code = _attribute(constant, "code", constant)
    plain = to_plain(code)
    return json_text(plain if isinstance(plain, str) else str(plain))


def _log(logger: logging.Logger, event: str, run_id: str, body: str, constant: Any) -> None:
    import logging

    level = _attribute(constant, "level", None)
    if isinstance(level, str):
        level = getattr(logging, level.upper(), None)
    if not isinstance(level, int):
        level = logging.DEBUG
    logger.log(level, "%s | run_id=%s payload=%s", event, run_id, body)


def _with_traceback(payload: Optional[Mapping[str, Any]], exc_info: Any) -> Dict[str, Any]:
    import traceback

    if isinstance(exc_info, BaseException):
        error: Optional[BaseException] = exc_info
    elif isinstance(exc_info, tuple) and len(exc_info) == 3:
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    content = as_object(payload)
    if error is None:
        return content
    content.setdefault("error_type", type(error).__name__)
    try:
        content.setdefault("error", str(error))
    except Exception:  # noqa: BLE001 - an exception's own __str__ may raise
        content.setdefault("error", to_plain(error))
    content.setdefault(
        "traceback", "".join(traceback.format_exception(type(error), error, error.__traceback__))
    )
    return content


__all__ = ["LifecycleEvent", "LifecycleEventType", "TelemetryEmitter"]
