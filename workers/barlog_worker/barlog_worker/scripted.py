"""A scripted endpoint: chat completions on loopback, answered by a program instead of a model.

It is what this worker is tested and measured with, and what a setup can be tried with before a model is paid for::

    mosaic-barlog-scripted --player planner --port 8000

Players read the conversation, and nothing else: no game is known to them but by the words of the prompt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from barlog_worker.endpoint import Message
from barlog_worker.scripted_planner import plan_babyai

Player = Callable[[Sequence[Message]], str]
"""From a conversation to the action's name."""

CHARACTERS_PER_TOKEN = 4
"""How tokens are counted here, roughly as tokenizers of English do."""

_LISTED = re.compile(r"^- ([^:\n]+?)(?::.*)?$", re.MULTILINE)
_COMMANDS = re.compile(r"Possible commands:\n((?:- .*\n?)+)")
_LEGAL = re.compile(r"Legal moves: ([0-9, ]+)\.")
_SOME = ("look", "inventory", "go north", "go south", "go east", "go west", "take coin", "examine cookbook")
"""What a random player tries where it is told no commands."""


def text_of(message: Message) -> str:
    """The words of a message, pictures left out."""
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def actions_of(messages: Sequence[Message]) -> list[str]:
    """What can be done, as far as the conversation says."""
    legal = _LEGAL.search(text_of(messages[-1]))
    if legal:
        return [each.strip() for each in legal.group(1).split(",")]
    possible = _COMMANDS.search(text_of(messages[-1]))
    if possible:
        return [line[2:] for line in possible.group(1).splitlines() if line.strip()]
    system = text_of(messages[0])
    _, found, listed = system.partition("These are all the actions:\n")
    return _LISTED.findall(listed) if found else list(_SOME)


def wording(messages: Sequence[Message], action: str) -> str:
    """The action, in the form that the conversation asks for."""
    rules = text_of(messages[0])
    if "<thought>" in rules:
        return f"<thought>That is the way.</thought>\n<action>{action}</action>"
    if "<action>" in rules:
        return f"<action>{action}</action>"
    if "\nAction:" in rules:
        return f"That is the way.\nAction: {action}"
    return action


class RandomPlayer:
    """Any action, uniformly; the same for the same conversation and seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def __call__(self, messages: Sequence[Message]) -> str:
        """The action's name."""
        said = json.dumps([self._seed, [[m.get("role"), text_of(m)] for m in messages]]).encode()
        return random.Random(hashlib.sha256(said).digest()).choice(actions_of(messages))


class PlannerPlayer(RandomPlayer):
    """Plans in BabyAI's "go to", "pick up" and "open" missions; plays at random elsewhere."""

    def __call__(self, messages: Sequence[Message]) -> str:
        """The action's name."""
        planned = plan_babyai([(m["role"], text_of(m)) for m in messages])
        return planned if planned is not None else super().__call__(messages)


PLAYERS: dict[str, Callable[[int], Player]] = {"random": RandomPlayer, "planner": PlannerPlayer}

Fault = int | str | dict[str, Any]
"""A status; or ``garbage``, ``hang``, ``drop``, ``slow``; or ``{"status": 429, "headers": {...}, "body": "..."}``."""


class ScriptedEndpoint:
    """An HTTP server on loopback, to be used with ``with``.

    Args:
        player: answers; or words to be said whatever is asked.
        port: 0: any that is free.
        faults: for the first requests, in this order; ``None`` among them: that one is answered.
        hang: seconds of the faults ``hang`` and ``slow``.
        raw: the player's words are sent as they are, not in the form that is asked for.

    Attributes:
        requests: bodies of all requests so far.
        authorizations: their headers of that name, ``None`` where there was none.
        most: how many were under way at the same time, at most.
    """

    def __init__(
        self,
        player: Player | str,
        *,
        port: int = 0,
        faults: Sequence[Fault | None] = (),
        hang: float = 30.0,
        raw: bool = False,
    ) -> None:
        self._player: Player = (lambda _: str(player)) if isinstance(player, str) else player
        self._raw = raw or isinstance(player, str)
        self._faults = list(faults)
        self._hang = hang
        self._lock = threading.Lock()
        self.gone = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.most = self._now = 0
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>/v1``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ScriptedEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve_forever(self) -> None:
        """In this thread, until interrupted."""
        self._server.serve_forever()

    def arrived(self, body: dict[str, Any], authorization: str | None) -> Fault | None:
        """A request is there; what is to go wrong with it."""
        with self._lock:
            self.requests.append(body)
            self.authorizations.append(authorization)
            self._now += 1
            self.most = max(self.most, self._now)
            return self._faults.pop(0) if self._faults else None

    def left(self) -> None:
        """A request is done with."""
        with self._lock:
            self._now -= 1

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion."""
        messages = body["messages"]
        said = self._player(messages)
        text = said if self._raw else wording(messages, said)
        prompt = sum(len(text_of(message)) for message in messages) // CHARACTERS_PER_TOKEN
        answered = max(1, len(text) // CHARACTERS_PER_TOKEN)
        return {
            "id": "scripted",
            "object": "chat.completion",
            "model": body.get("model"),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered},
        }

    def wait(self) -> None:
        """As long as a hanging request hangs."""
        self.gone.wait(self._hang)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def _handler(endpoint: ScriptedEndpoint) -> Any:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            fault = endpoint.arrived(body, self.headers.get("Authorization"))
            try:
                if not self.path.endswith("/chat/completions"):
                    fault = 404
                self._reply(body, fault)
            finally:
                endpoint.left()

        def _reply(self, body: dict[str, Any], fault: Fault | None) -> None:
            if fault == "hang":
                endpoint.wait()
            if fault in ("hang", "drop"):
                self.close_connection = True
                return
            if fault is None:
                self._send(200, json.dumps(endpoint.answer(body)))
            elif fault == "garbage":
                self._send(200, "<html>not what you asked for</html>")
            elif fault == "slow":  # the headers at once, the body never
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.flush()
                endpoint.wait()
                self.close_connection = True
            elif isinstance(fault, dict):
                self._send(fault["status"], fault.get("body", ""), fault.get("headers", {}))
            else:
                self._send(int(fault), json.dumps({"error": {"message": f"scripted fault {fault}"}}))

        def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the address is printed first."""
    parser = argparse.ArgumentParser(prog="mosaic-barlog-scripted", description="A scripted endpoint on loopback.")
    parser.add_argument(
        "--player", choices=sorted(PLAYERS), default="random", help="who answers (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--seed", type=int, default=0, help="of the random player")
    args = parser.parse_args(argv)
    endpoint = ScriptedEndpoint(PLAYERS[args.player](args.seed), port=args.port)
    sys.stdout.write(endpoint.base_url + "\n")
    sys.stdout.flush()
    try:
        endpoint.serve_forever()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
