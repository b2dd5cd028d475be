"""Whole lines on a sink: at once, or a moment later and several in one write.

Who lingers has its lines wait here; there is one queue for all emitters of the process, so that what one thread
emits stays in order. The *calling* thread writes what waits, together with its own line, when the last write is a third
of the time ago. Prints of the same thread therefore never have lines of telemetry in the middle. Only when calls stop
coming does a thread write what is left; it cannot know whether somebody is in the middle of a print, so that it begins
a new line first. A blank line is no telemetry, and nothing of a log.

A forked child writes at once: it may end without exit handlers.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
import threading
from collections import deque
from itertools import chain, islice, repeat
from time import sleep, time_ns
from typing import IO, Any, Callable, Deque, List, Optional, Set, Tuple

MOST_LINES = 4096
"""More than these never wait."""
LONGEST_LINE = 16384
"""Characters; a longer line does not wait, and takes those before it along."""
WRITE_BYTES = 4096
"""Of one write of several lines: so much goes into a pipe in one piece, whoever else writes to it."""

claimed: Optional[IO[str]] = None
"""The stream of ``program.claim_stdout``, once it was called: ``sys.stdout`` leads to stderr from then on."""

Line = Tuple[Any, Optional[Callable[[Any, int], str]], Any, int]
"""The sink; what makes the text, if it is not text yet; of what; when it was emitted, ns since 1970."""


def default_sink() -> Any:
    """Where lines go that were given no sink, now."""
    return sys.stdout if claimed is None else claimed


def write_line(sink: Any, line: str) -> None:
    """Write a line, after those that wait, before returning."""
    real: Any = sys.__stdout__
    if queue.waits():
        queue.add_and_drain((sink, None, line, 0))
    elif sink is real:  # most lines come by here
        with _lock:
            sink.flush()  # what was printed before stands before
            _write_at_once(sink.fileno(), line.encode("ascii"))
    else:
        with _lock:
            _write(sink, line)


def queue_line(sink: Any, line: str) -> None:
    """Have a line wait, unless it is a long one."""
    if len(line) <= LONGEST_LINE:
        queue.later((sink, None, line, 0), time_ns())
    else:
        write_line(sink, line)


def _is_stdout(sink: Any) -> bool:
    """Whether it is the process's own, which has a descriptor."""
    return sink is sys.__stdout__ or (sink is claimed and claimed is not None)


def _write(sink: Any, text: str) -> None:
    if _is_stdout(sink):
        sink.flush()
        _write_at_once(sink.fileno(), text.encode("ascii"))
        return
    try:
        sink.write(text)
    except TypeError:
        sink.write(text.encode("ascii"))
    sink.flush()


class Queue:
    """Lines that wait. Adding to it takes no lock; whoever writes holds the one lock of all emitters.

    A signal handler that emits may interrupt that anywhere between two bytecodes, and may never return. A line
    therefore leaves the queue in the same bytecode that writes it: a chain of C functions, which handlers cannot
    interrupt. Only a write that has to wait for a full pipe can be interrupted.
    """

    def __init__(self) -> None:
        self.open = True
        self._lines: Deque[Line] = deque()
        # One ticket: who has put it there may write what it has come to hold. None at all: somebody is writing.
        self._tickets: List[List[Any]] = [[]]
        self._linger = 0.0
        self._pause = 0
        self._written = 0
        self._writes = 0
        self._watched = False
        self._gate: Optional[threading.Lock] = None

    def linger(self, seconds: float) -> None:
        """Somebody lingers; the shortest time is everybody's."""
        self._linger = min(self._linger or seconds, seconds)
        self._pause = int(self._linger * 1e9 / 3)

    def waits(self) -> bool:
        """Whether there is a line."""
        return bool(self._lines)

    def add_and_drain(self, line: Line) -> None:
        """Write a line after all that wait."""
        with _lock:
            if self._tickets:
                self._lines.append(line)
                self.drain()
            else:  # a signal handler's, while what it has interrupted waits for a full pipe
                _write(line[0], line[2])

    def later(self, line: Line, now: int) -> None:
        """Have a line wait, or write all that do if it is time."""
        self._lines.append(line)
        # A clock that was set back: 0 is greater.
        if 0 <= now - self._written < self._pause and len(self._lines) < MOST_LINES:
            if not self._watched:
                self._watch()
        else:
            self.drain()

    def drain(self, apart: bool = False) -> None:
        """Write all that waits.

        Args:
            apart: begin on a new line where others may be printing.
        """
        with _lock:
            if not self._tickets:
                return  # what this call has interrupted goes on with it
            self._writes += 1
            self._written = time_ns()
            while self._lines:
                try:
                    self._write_some(apart)
                except Exception as error:  # noqa: BLE001 - telemetry must not be what ends a run
                    complain(error)

    def _write_some(self, apart: bool) -> None:
        """Write the first lines, as many of one sink as go into one write."""
        ticket: List[Any] = []
        self._tickets[:] = [ticket]
        try:
            lines = list(islice(self._lines, 128))
        except RuntimeError:  # somebody added a line meanwhile: once more
            return
        if not lines:
            return  # a signal handler's call has written them
        sink = lines[0][0]
        count, text = _join(lines)
        if apart and (sink is sys.__stdout__ or sink is sys.stdout):
            text = "\n" + text
        if not _is_stdout(sink):
            ticket.append(None)
            if self._take(count) is not None:
                _write(sink, text)
            return
        try:
            sink.flush()  # what was printed before stands before
            descriptor = sink.fileno()
        except Exception:
            ticket.append(None)
            self._take(count)
            raise
        data = text.encode("ascii")
        ticket.append(data)
        if descriptor in _torn:
            written = None if self._take(count) is None else 0
        else:
            _wait_for_room(descriptor)
            written = self._take(count, descriptor)
        if written is not None and written < len(data):
            _write_all(descriptor, data, written)

    def _take(self, count: int, descriptor: Optional[int] = None) -> Optional[int]:
        """Write what the ticket holds, if there is a descriptor, and take the lines out that it was made of.

        Returns:
            The bytes written; None if a signal handler's call has written those lines.
        """
        held = map(list.pop, map(list.pop, (self._tickets,)))
        write = held if descriptor is None else map(os.write, (descriptor,), held)
        leave = map(deque.popleft, repeat(self._lines, count))
        done: List[Any] = []
        try:
            done.extend(chain(write, leave, map(self._tickets.append, ([],))))
        except IndexError:  # the ticket is not ours any more
            self._tickets[:] = [[]]
            return None
        except OSError as error:
            if not done:
                done.extend(chain(leave, map(self._tickets.append, ([],))))
            if isinstance(error, BlockingIOError):
                return 0
            raise
        except BaseException:  # a signal handler's, while the write waited
            self._tickets[:] = [[]]
            raise
        return 0 if descriptor is None else int(done[0])

    def close(self) -> None:
        """Write all that waits, and have nothing wait from now on."""
        self.open = False
        self.drain()

    def forget(self) -> None:
        """In a forked child: what waits is the parent's."""
        self.open = False
        self._lines.clear()
        self._tickets[:] = [[]]

    def _watch(self) -> None:
        """See to it that what waits is written though nobody calls any more."""
        self._watched = True
        if self._gate is not None:
            with contextlib.suppress(RuntimeError):  # two threads did
                self._gate.release()
            return
        self._gate = gate = threading.Lock()
        gate.acquire()
        try:
            atexit.register(self.close)
            threading.Thread(target=self._run, args=(gate,), name="mosaic-telemetry", daemon=True).start()
        except RuntimeError:  # no thread can be started any more
            self.close()

    def _run(self, gate: threading.Lock) -> None:
        """Twice in the time that a line may wait: write, if nobody has since the last look."""
        while True:
            before = self._writes
            sleep(self._linger / 2)
            if not self.open:
                return
            if self._writes != before:
                continue
            if self.waits():
                self.drain(apart=True)
                continue
            self._watched = False
            if self.waits():  # somebody added a line before it could see that
                self._watched = True
                continue
            gate.acquire()


def _join(lines: List[Line]) -> Tuple[int, str]:
    """How many of the first lines, all of one sink, make one write, and their text."""
    texts: List[str] = []
    size = 0
    sink = lines[0][0]
    for other, make, content, when in lines:
        if other is not sink:
            break
        try:
            text = content if make is None else make(content, when)
        except Exception as error:  # noqa: BLE001 - telemetry must not be what ends a run
            complain(error)
            text = ""
        if texts and size + len(text) >= WRITE_BYTES:
            break
        texts.append(text)
        size += len(text)
    return len(texts), "".join(texts)


queue = Queue()
"""Of this process."""

# One lock for all emitters of the process: they share one stdout. Reentrant, because a signal handler that
# emits runs in the main thread, which may be holding the lock.
_lock = threading.RLock()
# Descriptors on which half a line stands: the next line must begin on a new one.
_torn: Set[int] = set()
_complained = False


def _after_fork() -> None:
    """In a forked child: the thread that held the lock may not exist there."""
    global _lock
    _lock = threading.RLock()
    queue.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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


def _wait_for_room(descriptor: int) -> None:
    """Until a pipe takes PIPE_BUF bytes without waiting; a file always does."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def _write_all(descriptor: int, data: bytes, written: int = 0) -> None:
    """What is left of a line, in as many calls as it takes."""
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


def complain(error: Exception) -> None:
    """Say once on stderr that telemetry is being lost."""
    global _complained
    if _complained:
        return
    _complained = True
    say(f"telemetry cannot be written ({type(error).__name__}: {error}); the run goes on without")


def say(text: str) -> None:
    """On stderr, if there is one."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"mosaic_cluster: {text}\n")
        sys.stderr.flush()


__all__ = ["complain", "queue", "queue_line", "say", "write_line"]
