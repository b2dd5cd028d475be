"""One builder at a time, over all processes and all nodes that share a cache folder.

No lock of the operating system: those of network file systems are not to be relied on. Each holder has a number, in
a file ``holder.<n>`` that only one can create, and beats in it. Whoever finds the holder with the highest number dead
or silent takes the next number; a holder that sees a higher number than its own is no longer the holder, and stops.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""A holder on another machine that has not beaten for so long is taken for dead."""


class Lost(Exception):
    """Another one has taken over."""


class Hold:
    """The right to build, as long as it beats.

    Args:
        folder: what is held; number: of the holder.
    """

    def __init__(self, folder: Path, number: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / f"holder.{number}"
        self._folder = folder
        self._number = number
        self._clock = clock
        self._beats = 0
        self._beaten = clock()

    def check(self) -> None:
        """Say that we live, now and then.

        Raises:
            Lost: another one thought us dead, and has taken over.
        """
        if self._clock() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = self._clock()
        if max(_numbers(self._folder), default=0) > self._number:
            raise Lost
        self._beats += 1
        _write(self._path, {**_identity(), "beats": self._beats})

    def release(self) -> None:
        """Let others in."""
        _write(self._path, {"released": True})


class Waiting:
    """Tries to become the holder of a folder, again and again.

    Args:
        folder: made if absent.
        clock: monotonic seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._seen: tuple[int, Any] | None = None
        self._since = clock()
        folder.mkdir(parents=True, exist_ok=True)

    def attempt(self) -> Hold | str:
        """The hold, or who has it, for people. Never blocks."""
        number = max(_numbers(self._folder), default=0)
        holder = _read(self._folder / f"holder.{number}") if number else {"released": True}
        if not self._may_follow(number, holder):
            return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
        taken = number + 1
        staged = self._folder / f".holder-{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
        staged.write_text(json.dumps({**_identity(), "beats": 0}), encoding="utf-8")
        try:
            os.link(staged, self._folder / f"holder.{taken}")  # fails if it exists, on NFS too
        except FileExistsError:
            return "another process"
        finally:
            staged.unlink()
        if max(_numbers(self._folder)) > taken:
            # While we slept, others have come, gone, and cleared up: ours is an old number.
            (self._folder / f"holder.{taken}").unlink(missing_ok=True)
            return "another process"
        for old in _numbers(self._folder):
            if old < taken:
                (self._folder / f"holder.{old}").unlink(missing_ok=True)
        return Hold(self._folder, taken, self._clock)

    def _may_follow(self, number: int, holder: dict[str, Any]) -> bool:
        if holder.get("released"):
            return True
        if holder and _is_here(holder) and not _lives(holder):
            return True
        now = self._clock()
        if self._seen != (number, holder):
            self._seen, self._since = (number, holder), now
        return now - self._since > SILENT_SECONDS


def holder_of(folder: Path) -> str | None:
    """Who holds a folder, for people; ``None`` if nobody does, as far as can be told at once."""
    numbers = _numbers(folder) if folder.is_dir() else []
    holder = _read(folder / f"holder.{max(numbers)}") if numbers else {}
    if not holder or holder.get("released") or (_is_here(holder) and not _lives(holder)):
        return None
    return f"process {holder.get('pid')} on {holder.get('host')}"


def _identity() -> dict[str, Any]:
    process = psutil.Process()
    return {"pid": process.pid, "started": process.create_time(), **_place()}


def _place() -> dict[str, str]:
    """This machine, and its process ids' namespace: containers of one machine may share its name."""
    place = {"host": socket.gethostname()}
    for name, path in (("boot", "/proc/sys/kernel/random/boot_id"),):
        try:
            place[name] = Path(path).read_text().strip()
        except OSError:
            continue
    try:
        place["pids"] = os.readlink("/proc/self/ns/pid")
    except OSError:
        pass
    return place


def _is_here(holder: dict[str, Any]) -> bool:
    return all(holder.get(name) == value for name, value in _place().items())


def _lives(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(holder["pid"]))
        return abs(process.create_time() - float(holder["started"])) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False


def _numbers(folder: Path) -> list[int]:
    found = []
    for name in os.listdir(folder):
        head, _, tail = name.partition(".")
        if head == "holder" and tail.isdigit():
            found.append(int(tail))
    return found


def _read(path: Path) -> dict[str, Any]:
    """What a holder wrote; empty while that cannot be read."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    staged = path.with_name(f".{path.name}-{os.getpid()}")
    staged.write_text(json.dumps(value), encoding="utf-8")
    os.replace(staged, path)
