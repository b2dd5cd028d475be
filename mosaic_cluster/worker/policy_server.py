"""Serves one policy over a Unix socket, in a process of its own, in its library's environment.

::

    python -m mosaic_cluster.worker.policy_server --entry my_worker.policy:load_policy --checkpoint PATH \\
        --game connect_four_v3 --agent player_1 --device cpu --options '{"temperature": 0.5}' --socket PATH

One client is served after another; while one is connected, the next waits. The calls are ``describe``, ``reset``,
``act``, ``act_batch`` and ``close`` (``policy_wire`` has the bytes); each is answered with ``{"ok": ...}`` or
``{"error": {...}}``. An error in the policy leaves it alive. If it cannot even be loaded, every call says so.

The process ends when the last client has closed and no other comes within ``--linger`` seconds, and when the process
that started it is gone. stdout is nobody's: what the library prints goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from mosaic_cluster.worker.errors import ConfigError, InvalidInput, PolicyError, Problem
from mosaic_cluster.worker.policy_wire import PROTOCOL, Channel, pack
from mosaic_cluster.worker.program import claim_stdout

FIRST_CLIENT_SECONDS = 60.0
LINGER_SECONDS = 1.0
_WATCH_SECONDS = 0.5
_TAIL_LINES = 20


def load_from_entry(entry: str, checkpoint: str, **options: Any) -> Any:
    """A policy by its loader, ``"my_worker.policy:load_policy"``.

    Raises:
        ConfigError: there is no such loader, or what it gives cannot act.
        Exception: what the loader raises.
    """
    module_name, _, name = entry.partition(":")
    loader: Any = importlib.import_module(module_name.strip())
    for part in filter(None, name.strip().split(".")):
        loader = getattr(loader, part, None)
    if not name.strip() or not callable(loader):
        raise ConfigError([Problem("entry", f"{entry!r} names no function; write it as package.module:function")])
    policy = loader(checkpoint, **options)
    missing = [each for each in ("reset", "act", "act_batch") if not callable(getattr(policy, each, None))]
    if missing:
        raise ConfigError(
            [Problem("entry", f"{entry} gave {type(policy).__name__}, which has no {', '.join(missing)}")]
        )
    return policy


class PolicyService:
    """Answers calls to one policy, which is loaded for the first of them.

    Args:
        load: gives the policy.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._policy: Any = None
        self._broken: Optional[Dict[str, Any]] = None

    def answer(self, message: Dict[str, Any]) -> Dict[str, Any]:
        """The answer to one call; never raises for what the policy does."""
        if self._policy is None and self._broken is None:
            try:
                self._policy = self._load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the client is told
                traceback.print_exc()
                self._broken = _described(error)
        if self._broken is not None:
            return {"error": self._broken}
        call, args = message.get("call"), message.get("args", [])
        if not isinstance(call, str) or call not in _CALLS or not isinstance(args, list):
            words = f"there is no call {call!r}; there are {', '.join(sorted(_CALLS))}"
            return {"error": _described(PolicyError(words))}
        try:
            return {"ok": _CALLS[call](self._policy, *args)}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the policy stays alive
            return {"error": _described(error)}


def serve(listener: socket.socket, service: PolicyService, linger: float = LINGER_SECONDS) -> None:
    """Serve clients one after another until none comes any more.

    Args:
        listener: bound and listening.
        linger: seconds to wait for another client when one has closed.
    """
    listener.settimeout(FIRST_CLIENT_SECONDS)
    while True:
        try:
            connection, _ = listener.accept()
        except (socket.timeout, BlockingIOError):  # in Python 3.8 the first is not TimeoutError
            return
        connection.setblocking(True)
        with contextlib.closing(Channel(connection)) as channel, contextlib.suppress(OSError):
            _serve_one(channel, service)
        listener.settimeout(linger)


def _serve_one(channel: Channel, service: PolicyService) -> None:
    while True:
        try:
            message = channel.receive()
        except PolicyError as error:  # where the next message begins nobody knows
            channel.send({"error": _described(error)})
            return
        if message is None:
            return
        answer = service.answer(message)
        try:
            buffers = pack(answer)
        except Exception as error:  # noqa: BLE001 - a library's array may refuse to be one in its own way
            words = f"the policy's answer to {message.get('call')!r} cannot be sent: {error}"
            buffers = pack({"error": _described(PolicyError(words))})
        channel.send_packed(buffers)
        if message.get("call") == "close":
            return


def _describe(policy: Any) -> Dict[str, Any]:
    return {
        "games": [str(each) for each in getattr(policy, "games", ("*",))],
        "policy": f"{type(policy).__module__}.{type(policy).__qualname__}",
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "protocol": PROTOCOL,
    }


_CALLS: Dict[str, Callable[..., Any]] = {
    "describe": _describe,
    "reset": lambda policy, seed=None: policy.reset(seed),
    "act": lambda policy, observation, mask=None: policy.act(observation, mask),
    "act_batch": lambda policy, observations, masks=None: policy.act_batch(observations, masks),
    "close": lambda policy: None,
}


def _described(error: BaseException) -> Dict[str, Any]:
    """An error as the client builds it again."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    found: Dict[str, Any] = {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": "".join(lines).splitlines()[-_TAIL_LINES:],
    }
    if isinstance(error, InvalidInput):
        found["problems"] = [[each.path, each.message] for each in error.problems]
    return found


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serve; see the module."""
    args = _arguments(argv)
    claim_stdout()
    try:
        options = json.loads(sys.stdin.read() if args.options == "-" else args.options)
        if not isinstance(options, dict):
            raise ValueError(f"{options!r} is no object")
    except ValueError as error:
        sys.stderr.write(f"--options must be a JSON object: {error}\n")
        return 2
    options = {"game": args.game, "agent": args.agent, "device": args.device, **options}
    service = PolicyService(lambda: load_from_entry(args.entry, args.checkpoint, **options))
    clean = _Cleaner(args.socket, args.remove_folder)
    _watch_parent(os.getppid(), clean)
    if args.remove_folder:  # one process's own: Ctrl-C is for that one, which then closes this
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave(clean, 143))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            before = os.umask(0o177)
            try:
                listener.bind(str(args.socket))
                clean.armed = True
            finally:
                os.umask(before)
            listener.listen(8)
            serve(listener, service, args.linger)
    except OSError as error:
        sys.stderr.write(f"cannot serve at {args.socket}: {error}\n")
        return 1
    finally:
        clean()
    return 0


class _Cleaner:
    """Removes the socket, and its folder if that is to go.

    Attributes:
        armed: whether the socket is this server's: what was there before it is not.
    """

    def __init__(self, path: Path, folder_too: bool) -> None:
        self.armed = False
        self._path = path
        self._folder_too = folder_too

    def __call__(self) -> None:
        import shutil

        if not self.armed:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._folder_too:
            shutil.rmtree(self._path.parent, ignore_errors=True)


def _watch_parent(parent: int, clean: Callable[[], None]) -> None:
    """End this process when the one that started it is gone, whatever the policy is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        _leave(clean, 1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _leave(clean: Callable[[], None], code: int) -> None:
    """At once: an exception would look like one of the policy's."""
    clean()
    sys.stderr.flush()
    os._exit(code)


def _arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mosaic_cluster.worker.policy_server", description="Serves one policy over a Unix socket."
    )
    add = parser.add_argument
    add("--entry", required=True, metavar="MODULE:FUNCTION", help="its loader")
    add("--checkpoint", required=True, metavar="PATH", help="what the loader is given")
    add("--socket", required=True, type=Path, metavar="PATH", help="where to listen; must not be there yet")
    add("--game", help="what it is to play, as PettingZoo or Gymnasium name it")
    add("--agent", help="as which of the game's agents")
    add("--device", default="cpu", help="default: %(default)s")
    add("--options", default="{}", metavar="JSON", help="more keywords for the loader; - reads them from stdin")
    add("--linger", type=float, default=LINGER_SECONDS, metavar="SECONDS", help="to wait for a next client")
    add("--remove-folder", action="store_true", help="the socket's folder is this server's alone: remove it at the end")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["PolicyService", "load_from_entry", "main", "serve"]
