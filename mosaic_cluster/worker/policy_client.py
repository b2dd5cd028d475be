"""A policy that runs in another process, behind the same interface.

::

    with serve_policy("my_worker.policy:load_policy", checkpoint, python="/path/to/env/bin/python",
                      game="connect_four_v3") as policy:
        policy.reset(seed=1)
        action = policy.act(observation, action_mask)

NumPy is needed only where arrays are sent or come back; without it they come as nested lists.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, Union

from mosaic_cluster.worker.errors import ConfigError, PolicyError, Problem
from mosaic_cluster.worker.policy_wire import PROTOCOL, Channel, pack

_PathLike = Union[str, "os.PathLike[str]"]

START_SECONDS = 300.0
CONNECT_SECONDS = 30.0
CLOSE_SECONDS = 5.0
_LONGEST_PATH = 100
_TAIL_LINES = 12


class PolicyClient:
    """A policy served at a Unix socket. One call at a time; threads wait for each other.

    Args:
        path: the socket.
        timeout: seconds after which a call counts as failed; ``None``: as long as the server lives.
        connect_timeout: seconds to wait for a server there.

    Attributes:
        games: names of the games it plays.
        about: what the server says of itself: ``policy``, ``pid``, ``python``, ``protocol``.

    Raises:
        ConfigError: the policy refuses the game, the checkpoint or the options.
        PolicyError: it cannot be reached or loaded.
    """

    def __init__(
        self, path: _PathLike, *, timeout: Optional[float] = None, connect_timeout: float = CONNECT_SECONDS
    ) -> None:
        self._start(path, None, timeout, connect_timeout)

    def _start(
        self, path: _PathLike, server: Optional[_Server], timeout: Optional[float], connect_timeout: float
    ) -> None:
        self._lock = threading.Lock()
        self._server = server
        self._timeout = timeout
        end = time.monotonic() + connect_timeout
        connection = _connected(str(path), server, end)
        self._channel: Optional[Channel] = Channel(connection)
        connection.settimeout(max(0.1, end - time.monotonic()))
        try:
            self.about: Dict[str, Any] = dict(self._call("describe"))
        except BaseException:
            self.close()
            raise
        connection.settimeout(timeout)
        if self.about.get("protocol") != PROTOCOL:
            self.close()
            raise PolicyError(f"the server at {path} speaks protocol {self.about.get('protocol')}, not {PROTOCOL}")
        self.games: Tuple[str, ...] = tuple(self.about["games"])

    def describe(self) -> Dict[str, Any]:
        """What the server says of the policy now: ``games``, ``policy``, ``pid``, ``python``, ``protocol``."""
        return dict(self._call("describe"))

    def reset(self, seed: Optional[int] = None) -> None:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        self._call("reset", seed)

    def act(self, observation: Any, action_mask: Optional[Any] = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`.

        Raises:
            PolicyError: the policy failed, or its process is gone.
        """
        return self._call("act", observation, action_mask)

    def act_batch(self, observations: Any, action_masks: Optional[Any] = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`.

        Raises:
            PolicyError: the policy failed, or its process is gone.
        """
        return self._call("act_batch", observations, action_masks)

    def close(self) -> None:
        """Let the policy go; its process ends if this client started it."""
        self._drop()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _call(self, call: str, *args: Any) -> Any:
        with self._lock:
            channel = self._channel
            if channel is None:
                raise PolicyError("the policy is closed")
            try:
                buffers = pack({"call": call, "args": list(args)})
            except Exception as error:  # an array's own conversion may raise anything; nothing was sent
                raise PolicyError(f"{call}: {error}") from error
            try:
                channel.send_packed(buffers)
                answer = channel.receive()
            except socket.timeout as error:  # in Python 3.8 it is not TimeoutError
                self._drop()
                raise PolicyError(f"no answer to {call!r} in time; the policy is closed now") from error
            except OSError as error:
                raise PolicyError(self._gone()) from error
            except BaseException:
                # As after a timeout: its answer may still come, and would be taken for that to the next call.
                self._drop()
                raise
            if answer is None:
                raise PolicyError(self._gone())
        if "error" in answer:
            raise _error(call, answer["error"])
        return answer["ok"]

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _gone(self) -> str:
        self._drop()
        return "the policy's process has closed the connection" if self._server is None else self._server.why_gone()


def serve_policy(
    entry: str,
    checkpoint: _PathLike,
    *,
    python: str = sys.executable,
    game: Optional[str] = None,
    agent: Optional[str] = None,
    device: str = "cpu",
    options: Optional[Mapping[str, Any]] = None,
    environ: Optional[Mapping[str, str]] = None,
    timeout: Optional[float] = None,
    start_timeout: float = START_SECONDS,
) -> PolicyClient:
    """Start a process that loads a policy and serves it to this one alone.

    The process ends with :meth:`PolicyClient.close`, and with this process, however that ends. Its socket lies in a
    folder that only this user may enter.

    Args:
        entry: the loader, ``"my_worker.policy:load_policy"``.
        checkpoint, game, agent, device, options: what the loader is given.
        python: interpreter of the environment in which the policy's library lives.
        environ: the process's variables; default: this one's. ``mosaic_cluster.worker`` must be on its path.
        timeout: seconds for each call; ``None``: as long as the process lives.
        start_timeout: seconds until it must be loaded; importing some libraries takes a minute.

    Raises:
        ConfigError: the policy refuses the game, the checkpoint or the options.
        PolicyError: the process cannot be started, or the policy cannot be loaded.
    """
    more = json.dumps(dict(options or {}))
    folder = _private_folder()
    path = folder / "policy.sock"
    place = os.path.abspath(checkpoint) if os.path.exists(checkpoint) else str(checkpoint)
    command = [
        python, "-m", "mosaic_cluster.worker.policy_server", "--entry", entry, "--checkpoint", place,
        "--device", device, "--options", "-", "--socket", str(path), "--linger", "0", "--remove-folder",
    ]  # fmt: skip
    command += [word for name, value in (("--game", game), ("--agent", agent)) if value for word in (name, value)]
    try:
        server = _Server(command, more, folder, environ)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PolicyError(f"cannot start {python}: {error}") from error
    client = PolicyClient.__new__(PolicyClient)
    try:
        client._start(path, server, timeout, start_timeout)
    except BaseException:
        server.stop()
        raise
    return client


class _Server:
    """A server's process, its folder, and what it last said."""

    def __init__(self, command: List[str], options: str, folder: Path, environ: Optional[Mapping[str, str]]) -> None:
        self.said = folder / "stderr.log"
        self.log = self.said.open("w+b")
        try:
            # Every user of the machine can read a command line, and a key may be among the options.
            with tempfile.TemporaryFile() as given:
                given.write(options.encode())
                given.seek(0)
                self.process = subprocess.Popen(
                    command,
                    cwd=str(folder),  # `python -m` looks for modules where it is started
                    stdin=given,
                    stdout=self.log,
                    stderr=self.log,
                    env=None if environ is None else dict(environ),
                )
        except BaseException:
            self.log.close()
            raise
        self._stop = weakref.finalize(self, _end, self.process, self.log, folder)

    def why_gone(self) -> str:
        """Called when the connection broke: how the process ended, with its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_SECONDS)
        code = self.process.poll()
        if code is None:
            how = "closed the connection"
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return "\n".join([f"the policy's process {how}", *self.last_words()])

    def last_words(self) -> List[str]:
        """The last lines of what it printed."""
        if self.log.closed:
            return []
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-_TAIL_LINES:]

    def stop(self) -> None:
        """End the process; it has seconds to do so by itself."""
        self._stop()


def _end(process: subprocess.Popen[bytes], log: Any, folder: Path) -> None:
    try:
        process.terminate()
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def _connected(path: str, server: Optional[_Server], end: float) -> socket.socket:
    pause = 0.005
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            connection.close()
            if server is not None and server.process.poll() is not None:
                raise PolicyError(server.why_gone()) from error
            if time.monotonic() > end:
                raise PolicyError(f"no policy is served at {path}: {error}") from error
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


def _private_folder() -> Path:
    """A new folder, mode 0700, with a path short enough for a socket in it."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="mosaic-policy-", dir=base if len(base) < _LONGEST_PATH - 40 else "/tmp"))


def _error(call: str, found: Mapping[str, Any]) -> Exception:
    if found.get("problems"):
        return ConfigError([Problem(str(path), str(message)) for path, message in found["problems"]])
    if found["type"] == "PolicyError":
        return PolicyError(found["message"])
    where = "\n".join(found.get("traceback", []))
    return PolicyError(f"{call} failed in the policy's process: {found['type']}: {found['message']}\n{where}".rstrip())


__all__ = ["PolicyClient", "serve_policy"]
