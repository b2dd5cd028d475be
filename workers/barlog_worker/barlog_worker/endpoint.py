"""A client of an OpenAI-compatible endpoint: one request, its retries, and what all of them cost.

Only the standard library and the contract: so a policy that asks an endpoint can be loaded in any process.

The key is read from the environment when a client is made, goes into the header ``Authorization`` of requests to
``base_url`` and nowhere else: redirects are not followed, and what an endpoint says in an error is shown with the key
blotted out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from mosaic_cluster.worker import ConfigError, Problem

LOGGER = logging.getLogger(__name__)

Message = dict[str, Any]

LARGEST_REPLY = 16 * 2**20
"""Bytes."""
_AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that another try may better."""


class EndpointError(RuntimeError):
    """The endpoint gave no answer, and another try would not help, or did not. The message says what to do."""


class Closed(RuntimeError):
    """The client was closed while a request was under way."""


class _Retry(Exception):
    """This try failed; another may not."""

    def __init__(self, kind: str, words: str, wait: float | None = None) -> None:
        super().__init__(words)
        self.kind = kind
        self.wait = wait


@dataclass
class Usage:
    """What requests took; prices are per million tokens.

    Attributes:
        requests: tries that were sent, failed ones included.
        retries: tries after a first one.
        errors: failed tries by kind: ``429``, ``timeout``, ``garbage`` ...
        prompt_tokens, completion_tokens: as the endpoint counts them.
        uncounted: answers whose endpoint did not say how many tokens they took.
        seconds: spent waiting for answers, over all threads; delays between tries not included.
    """

    requests: int = 0
    answers: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: Usage) -> None:
        """Sum up."""
        for name in ("requests", "answers", "retries", "prompt_tokens", "completion_tokens", "uncounted", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, number in other.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + number

    def cost(self, price_prompt: float, price_completion: float) -> float:
        """In the currency of the prices, which are per million tokens."""
        return (self.prompt_tokens * price_prompt + self.completion_tokens * price_completion) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Of what :meth:`to_dict` gave; unknown keys are left out."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: what the model said; may be empty.
        usage: what this answer took, its failed tries included.
        finish_reason: ``stop``, ``length`` ..., as the endpoint says.
    """

    text: str
    usage: Usage
    finish_reason: str | None = None


class ChatClient:
    """Asks one model at one endpoint. Thread-safe.

    Args:
        base_url: ``/chat/completions`` is added.
        model: its name there.
        api_key_env: environment variable of the key; unset or empty: no key is sent.
        temperature: ``None`` leaves it to the endpoint.
        max_tokens, max_tokens_name: limit of an answer, and how the endpoint calls it.
        timeout: seconds of one try, from connecting to the last byte.
        max_retries: tries after the first.
        retry_delay, retry_delay_max: seconds before the first retry, doubled each time up to the second; each is
            drawn from the upper half of that. ``Retry-After`` of the endpoint wins, and ends it if it is longer
            than ``retry_delay_max``.
        rng: draws the jitter.
        environ: where the key and proxies are looked up.
        clock: seconds, monotonic.

    Raises:
        ConfigError: the key has characters that no header can hold.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float | None = None,
        max_tokens: int = 1024,
        max_tokens_name: str = "max_tokens",
        timeout: float = 60.0,
        max_retries: int = 5,
        retry_delay: float = 1.0,
        retry_delay_max: float = 60.0,
        rng: random.Random | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.max_retries = max_retries
        self._key = environ.get(api_key_env, "").strip()
        self._key_name = api_key_env
        if not (self._key.isascii() and self._key.isprintable()):  # http.client would show it in its error
            words = f"the key in {api_key_env} has characters that no header can hold: set it again"
            raise ConfigError([Problem("api_key_env", words)])
        self._options: dict[str, Any] = {max_tokens_name: max_tokens}
        if temperature is not None:
            self._options["temperature"] = temperature
        self._timeout = timeout
        self._delay, self._longest = retry_delay, retry_delay_max
        self._rng = rng or random.Random()
        self._clock = clock
        self._parts = urlsplit(self.url)
        self._proxy = _proxy(self._parts.scheme, self._parts.hostname or "")
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: list[_Line] = []

    def __repr__(self) -> str:
        return f"ChatClient({self.url!r}, {self.model!r})"

    def ask(self, messages: Sequence[Message], *, seed: int | None = None) -> Reply:
        """The model's answer to a conversation.

        Args:
            messages: in the format of chat completions: ``role`` and ``content``.
            seed: sent along, where given.

        Raises:
            EndpointError: refused, or no usable answer after all tries.
            Closed: :meth:`close` was called.
        """
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), **self._options}
        if seed is not None:
            body["seed"] = seed
        data = json.dumps(body).encode()
        usage = Usage()
        for number in range(self.max_retries + 1):
            began = self._clock()
            usage.requests += 1
            try:
                text, finish_reason = self._try(data, usage)
            except _Retry as failure:
                usage.seconds += self._clock() - began
                usage.errors[failure.kind] = usage.errors.get(failure.kind, 0) + 1
                self._wait(number, failure)
                usage.retries += 1
                continue
            usage.seconds += self._clock() - began
            usage.answers += 1
            return Reply(text, usage, finish_reason)
        raise AssertionError("unreachable: the last failure raises")

    def close(self) -> None:
        """End all requests that are under way, in whichever thread: they raise :class:`Closed`."""
        self._closed.set()
        with self._lock:
            lines = list(self._open)
        for line in lines:
            line.shut()

    def _wait(self, number: int, failure: _Retry) -> None:
        """Before the next try; raises if there is to be none."""
        if self._closed.is_set():
            raise Closed("the endpoint's client was closed")
        if number >= self.max_retries:
            tries = f"{number + 1} tries" if number else "1 try"
            raise EndpointError(
                f"{self.url} gave no answer in {tries}; the last: {failure}. See that the endpoint is up, or raise "
                "max_retries, retry_delay_max or timeout, or lower concurrency; what is finished is kept"
            )
        if failure.wait is None:
            step = min(self._longest, self._delay * 2.0**number)
            wait = step * (0.5 + self._rng.random() / 2)
        elif failure.wait > self._longest:
            raise EndpointError(
                f"{self.url} asks for {failure.wait:.0f} s of patience ({failure}), more than retry_delay_max "
                f"({self._longest:g} s): raise that, or start the run again later; what is finished is kept"
            )
        else:
            wait = failure.wait * (1.0 + self._rng.random() / 10)
        LOGGER.warning("%s: %s; try %d of %d in %.1f s", self.url, failure, number + 2, self.max_retries + 1, wait)
        if self._closed.wait(wait):
            raise Closed("the endpoint's client was closed")

    def _try(self, data: bytes, usage: Usage) -> tuple[str, str | None]:
        line = _Line(self._connection())
        with self._lock:
            self._open.append(line)
        try:
            if self._closed.is_set():  # it may have been closed before it could see this one
                raise Closed("the endpoint's client was closed")
            status, headers, content = self._exchange(line, data)
        except TimeoutError:
            raise _Retry("timeout", f"no answer within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            words = blot(f"{type(error).__name__}: {error}", self._key)  # a status line that is none is shown in it
            raise _Retry("connection", f"the connection failed ({words})") from None
        finally:
            with self._lock:
                self._open.remove(line)
            line.connection.close()
        if status != 200:
            raise self._refusal(status, headers, content)
        return _answer(content, usage, self._key)

    def _exchange(self, line: _Line, data: bytes) -> tuple[int, Any, bytes]:
        """Within ``timeout``, however slowly single bytes come."""
        until = self._clock() + self._timeout
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "mosaic-barlog"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        target = self._parts.path if self._proxy is None or self._tls else self.url
        guard = threading.Timer(self._timeout, line.shut)  # headers, too, may come byte by byte
        guard.daemon = True
        guard.start()
        try:
            line.connect()
            line.connection.request("POST", target, body=data, headers=headers)
            with line.connection.getresponse() as response:
                content = response.read(LARGEST_REPLY + 1)
        except (OSError, http.client.HTTPException) as error:
            if self._clock() >= until and not self._closed.is_set():
                raise TimeoutError from error
            raise
        finally:
            guard.cancel()
        if self._clock() >= until:
            raise TimeoutError
        return response.status, response.headers, content

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._proxy is not None:
            proxy_host, proxy_port = self._proxy
            if self._tls:
                secure = http.client.HTTPSConnection(proxy_host, proxy_port, timeout=self._timeout, context=self._tls)
                secure.set_tunnel(host, port or 443)
                return secure
            return http.client.HTTPConnection(proxy_host, proxy_port, timeout=self._timeout)
        if self._tls:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _refusal(self, status: int, headers: Any, content: bytes) -> Exception:
        said = _said(content, self._key)
        words = f"status {status}" + (f": {said}" if said else "")
        if status in _AGAIN or status >= 500:
            return _Retry(str(status), words, _retry_after(headers.get("Retry-After")))
        if status in (401, 403):
            key = (
                f"the key in {self._key_name} was refused"
                if self._key
                else f"no key was sent: {self._key_name} is unset"
            )
            return EndpointError(f"{self.url} answered {words}; {key}")
        if status == 404:
            return EndpointError(f"{self.url} answered {words}; see base_url and model ({self.model!r})")
        if 300 <= status < 400:
            return EndpointError(
                f"{self.url} answered {words}, a redirect, which is not followed with a key: give the final base_url"
            )
        return EndpointError(
            f"{self.url} answered {words}; it does not take this request: see max_tokens, max_tokens_name, "
            "temperature, vision and history"
        )


class _Line:
    """A connection, and its socket: ``http.client`` forgets that where the server closes after its answer."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self._socket: socket.socket | None = None
        self._shut = False

    def connect(self) -> None:
        self.connection.connect()
        self._socket = self.connection.sock
        if self._shut:  # while there was no socket yet
            self.shut()

    def shut(self) -> None:
        """End what is under way, in whichever thread."""
        self._shut = True
        sock = self._socket or self.connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def blot(text: str, key: str) -> str:
    """Without the key; to be done before a text is shortened, which may leave a part of it."""
    return text.replace(key, "[key]") if key else text


def _answer(content: bytes, usage: Usage, key: str) -> tuple[str, str | None]:
    """Text of a response; tokens are added to ``usage``."""
    if len(content) > LARGEST_REPLY:
        raise _Retry("garbage", f"an answer of more than {LARGEST_REPLY} bytes")
    try:
        data = json.loads(content)
        choice = data["choices"][0]
        said = choice["message"].get("content")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _Retry("garbage", f"not a chat completion: {_said(content, key)!r}") from None
    if isinstance(said, list):  # parts, as some endpoints have them
        said = "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    counted = data.get("usage")
    if isinstance(counted, dict):
        usage.prompt_tokens += _count(counted.get("prompt_tokens"))
        usage.completion_tokens += _count(counted.get("completion_tokens"))
    else:
        usage.uncounted += 1
    finish_reason = choice.get("finish_reason")
    return str(said or ""), finish_reason if isinstance(finish_reason, str) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _said(content: bytes, key: str) -> str:
    """What an error's body says, in short."""
    text = blot(content.decode("utf-8", "replace"), key)
    try:
        data = json.loads(text)
    except ValueError:
        return _short(text)
    if isinstance(data, dict):
        error = data.get("error", data)
        if isinstance(error, dict):
            error = error.get("message", error)
        text = blot(str(error), key)  # once more: JSON may have written it with escapes
    return _short(text)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."


def _retry_after(value: str | None) -> float | None:
    """Seconds, of a number or a date; ``None`` where there is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _proxy(scheme: str, host: str) -> tuple[str, int] | None:
    """Host and port of the proxy that the environment names for this host."""
    if urllib.request.proxy_bypass(host):
        return None
    given = urllib.request.getproxies().get(scheme)
    if not given:
        return None
    parts = urlsplit(given if "//" in given else f"http://{given}")
    return (parts.hostname, parts.port or 80) if parts.hostname else None


__all__ = ["ChatClient", "Closed", "EndpointError", "Message", "Reply", "Usage", "blot"]
