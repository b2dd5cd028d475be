"""Running the commands that build an environment: output to a log, watched while they run, gone when we are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
POLL_SECONDS = 0.1
MARK = "MOSAIC_BUILDS"
"""Environment variable of all that a builder starts: what it builds, so that who takes over finds what is left."""

_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Connection (?:refused|reset|aborted|timed out)"
    r"|ConnectTimeout|ReadTimeout|Read timed out|Max retries exceeded|NewConnectionError|Network is unreachable"
    r"|ProxyError|SSLError|RemoteDisconnected|IncompleteRead|5\d\d Server Error|503 Service|502 Bad Gateway"
    r"|Could not resolve host|ProtocolError",
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, negative for a signal.
        tail: the last lines that it wrote.
    """

    code: int
    tail: tuple[str, ...]

    @property
    def network(self) -> bool:
        """Whether its words look as if the network was to blame."""
        return any(_NETWORK.search(line) for line in self.tail)


def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    variables: Mapping[str, str],
    log: Path,
    building: str,
    watch: Callable[[str], None],
) -> Ended:
    """Run a command to its end.

    Args:
        cwd: where.
        variables: all its environment variables.
        log: its output is added to this file.
        building: what is built, for :data:`MARK`.
        watch: called several times a second with the last line of its output. What it raises ends the command.
    """
    begin = log.stat().st_size if log.exists() else 0
    environment = {**variables, MARK: building}
    started = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            started,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while True:
            try:
                code = process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                watch((_lines(log, begin, 1 << 12) or [""])[-1])
    except BaseException:
        _kill(process)
        raise
    return Ended(code, tuple(_lines(log, begin, 1 << 15)[-25:]))


def kill_leftovers(building: str) -> None:
    """Kill what an earlier builder of the same thing, dead by now, has left running on this machine."""
    wanted = f"{MARK}={building}".encode()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _marked(pid, wanted)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.05)


def _marked(pid: int, wanted: bytes) -> bool:
    try:
        return pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _lines(log: Path, begin: int, most: int) -> list[str]:
    """The last lines of a log, from an offset on; what was overwritten on a terminal, and colours, left out."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(begin, size - most))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [
        _ESCAPES.sub("", line.rpartition("\r")[2]).rstrip()[:500] for line in text.replace("\r\n", "\n").split("\n")
    ]
    return [line for line in lines if line.strip()]
