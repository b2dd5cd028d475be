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
from dataclasses import dataclass, field
from enum import Enum
from time import time, time_ns
from typing import IO, TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Union

from mosaic_cluster.worker._lines import complain, default_sink, queue, queue_line, say, write_line
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


LINGER_VARIABLE = "MOSAIC_TELEMETRY_LINGER"
"""Environment variable: ``linger`` of emitters that are not given one."""
MOST_LINGER = 10.0
"""Seconds."""


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

    With ``linger``, lines of :meth:`heartbeat`, :meth:`step` and :meth:`episode` that follow each other closely wait,
    and are written several at a time: a fraction of the time for who emits hundreds a second. The payload is as it was
    when it was given. Every other event is written at once, those that wait before it. What waits is written after
    ``linger`` seconds at the latest, by :meth:`flush`, and when the interpreter ends. A process that is ended by a
    signal it does not handle, or by ``os._exit``, loses it: that is the price. A forked child writes at once.

    Args:
        run_id: of the run, on every line.
        sink: an open file, text or binary; default: what ``claim_stdout`` gave if it was called (``run_program`` does),
            else whatever ``sys.stdout`` is at the time.
        logger: also gets every event: at the level of its ``constant`` if that has one, else DEBUG.
        linger: seconds that a line may wait, 0 to 10; default: the variable ``MOSAIC_TELEMETRY_LINGER``, else 0. What
            is no such number is said on stderr, and taken as 0. Of several emitters in a process the shortest counts.
    """

    def __init__(
        self,
        run_id: str,
        *,
        sink: Optional[IO[Any]] = None,
        logger: Optional[logging.Logger] = None,
        linger: Optional[float] = None,
    ) -> None:
        self._run_id = run_id if type(run_id) is str else str(run_id)
        self._sink = sink
        self._logger = logger
        self._tail = ',"run_id":' + json_text(self._run_id) + ',"timestamp":'
        seconds = _linger(linger)
        self._lingers = seconds > 0.0
        if self._lingers:
            queue.linger(seconds)

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
            waits = self._lingers and event == "heartbeat" and queue.open
            if waits and constant is None and self._logger is None and self._snapshot(self._beat, payload):
                return
            try:
                body = fast_text(payload) if type(payload) is dict else object_text(payload)
            except Exception:  # noqa: BLE001 - then it is not plain
                body = object_text(payload)
            micros = str(time_ns() // 1000)  # two thirds of the time that formatting a float takes
            line = f"{_HEADS.get(event) or _head(event)}{body}{self._tail}{micros[:-6]}.{micros[-6:]}}}\n"
            if constant is not None:
                line = '{"constant":' + _code(constant) + "," + line[1:]
            sink: Any = default_sink() if self._sink is None else self._sink
            if waits:
                queue_line(sink, line)
            else:
                write_line(sink, line)
            if self._logger is not None:
                _log(self._logger, to_plain(event), self._run_id, body, constant)
        except Exception as error:  # noqa: BLE001 - telemetry must not be what ends a run
            complain(error)

    def flush(self) -> None:
        """Write what waits before returning; see ``linger``."""
        try:
            queue.drain()
        except Exception as error:  # noqa: BLE001 - as above
            complain(error)

    def _typed(self, kind: str, fields: Dict[str, Any]) -> None:
        try:
            waits = self._lingers and queue.open
            fields.setdefault("timestamp", time())
            if waits and self._snapshot(self._step if kind == "step" else self._episode, fields):
                return
            sink: Any = default_sink() if self._sink is None else self._sink
            (queue_line if waits else write_line)(sink, self._typed_line(kind, fields))
        except Exception as error:  # noqa: BLE001 - as above
            complain(error)

    def _snapshot(self, make: Callable[[Any, int], str], content: Any) -> bool:
        """Queue a few plain numbers as they are, to become text when they are written; false for anything else."""
        if type(content) is not dict:
            return False
        content = content.copy()
        if len(content) > MOST_NUMBERS or not _NUMBERS.issuperset(map(type, content.values())):
            return False
        if not _TEXT.issuperset(map(type, content)):
            return False
        now = time_ns()
        queue.later((default_sink() if self._sink is None else self._sink, make, content, now), now)
        return True

    def _beat(self, payload: Dict[str, Any], now: int) -> str:
        try:
            body = fast_text(payload)
        except Exception:  # noqa: BLE001 - then it is not plain
            body = object_text(payload)
        micros = str(now // 1000)
        return f"{_HEARTBEAT}{body}{self._tail}{micros[:-6]}.{micros[-6:]}}}\n"

    def _step(self, fields: Any, now: int) -> str:
        return self._typed_line("step", fields)

    def _episode(self, fields: Any, now: int) -> str:
        return self._typed_line("episode", fields)

    def _typed_line(self, kind: str, fields: Dict[str, Any]) -> str:
        fields["type"] = kind
        fields["run_id"] = self._run_id
        return object_text(fields) + "\n"


MOST_NUMBERS = 64
"""Of a payload that waits as numbers; a larger one waits as text."""
_NUMBERS = frozenset({int, float, bool, type(None)})
_TEXT = frozenset({str})


def _linger(given: Any) -> float:
    """Seconds, of what was given or the environment says."""
    whose = "linger"
    if given is None:
        given, whose = os.environ.get(LINGER_VARIABLE) or 0.0, LINGER_VARIABLE
    try:
        seconds = float(given)
        if 0.0 <= seconds <= MOST_LINGER:
            return seconds
    except (TypeError, ValueError, OverflowError):
        pass
    say(f"{whose} is {given!r}; give seconds from 0 to {MOST_LINGER:g}, e.g. 0.05: no telemetry lingers")
    return 0.0


def _head(event: Any) -> str:
    return '{"event":' + json_text(str(to_plain(event))) + ',"payload":'


_HEADS: Dict[Any, str] = {event.value: _head(event) for event in LifecycleEventType}
_HEARTBEAT = _HEADS["heartbeat"]


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
    content.setdefault("traceback", "".join(traceback.format_exception(type(error), error, error.__traceback__)))
    return content


__all__ = ["LifecycleEvent", "LifecycleEventType", "TelemetryEmitter"]
