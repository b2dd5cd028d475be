"""The client of an endpoint, against a real server on loopback that fails in every way it can think of."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest
from barlog_corridors import KEY
from barlog_worker.endpoint import ChatClient, Closed, EndpointError
from barlog_worker.scripted import ScriptedEndpoint

from mosaic_cluster.worker import ConfigError

ASK = [{"role": "user", "content": "Which door?"}]


def client(endpoint: ScriptedEndpoint | str, **options: Any) -> ChatClient:
    given = {"retry_delay": 0.01, "timeout": 5.0, "environ": {}, **options}
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    return ChatClient(url, "the-model", rng=random.Random(0), **given)


def test_an_answer_with_what_it_took() -> None:
    with ScriptedEndpoint("door 3") as endpoint:
        reply = client(endpoint, temperature=0.5, max_tokens=7).ask(ASK, seed=9)
    assert (reply.text, reply.finish_reason) == ("door 3", "stop")
    assert (reply.usage.requests, reply.usage.answers, reply.usage.retries) == (1, 1, 0)
    assert reply.usage.prompt_tokens == len("Which door?") // 4
    assert reply.usage.completion_tokens == 1
    assert reply.usage.cost(1_000_000, 3_000_000) == 2 + 3
    (body,) = endpoint.requests
    assert body == {"model": "the-model", "messages": ASK, "temperature": 0.5, "max_tokens": 7, "seed": 9}


def test_what_is_not_set_is_not_sent() -> None:
    with ScriptedEndpoint("x") as endpoint:
        client(endpoint, max_tokens_name="max_completion_tokens").ask(ASK)
    assert set(endpoint.requests[0]) == {"model", "messages", "max_completion_tokens"}


class TestRetries:
    @pytest.mark.parametrize("fault", [429, 500, 502, 503, 408, "garbage", "drop"])
    def test_what_may_pass_is_tried_again(self, fault: Any) -> None:
        with ScriptedEndpoint("door 1", faults=[fault, fault]) as endpoint:
            reply = client(endpoint).ask(ASK)
        kind = {"garbage": "garbage", "drop": "connection"}.get(fault, str(fault))
        assert reply.text == "door 1"
        assert reply.usage.errors == {kind: 2}
        assert (reply.usage.requests, reply.usage.retries) == (3, 2)

    @pytest.mark.parametrize(
        "body",
        ["", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', '{"choices": {"0": 1}}', "null"],
    )
    def test_answers_that_are_none(self, body: str) -> None:
        with ScriptedEndpoint("ok", faults=[{"status": 200, "body": body}]) as endpoint:
            assert client(endpoint).ask(ASK).usage.errors == {"garbage": 1}

    @pytest.mark.parametrize("fault", ["hang", "slow"])
    def test_a_timeout_holds_for_headers_and_body(self, fault: str) -> None:
        with ScriptedEndpoint("door 1", faults=[fault]) as endpoint:
            began = time.monotonic()
            reply = client(endpoint, timeout=0.3).ask(ASK)
        assert reply.usage.errors == {"timeout": 1}
        assert 0.3 <= time.monotonic() - began < 3

    def test_nobody_listens(self) -> None:
        with socket.socket() as taken:  # bound, so that nobody else gets it; not listening
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            with pytest.raises(EndpointError, match=r"gave no answer in 3 tries; the last: the connection failed"):
                client(url, max_retries=2).ask(ASK)

    def test_the_last_reason_is_told(self) -> None:
        with (
            ScriptedEndpoint("x", faults=[503, 503]) as endpoint,
            pytest.raises(EndpointError, match=r"no answer in 2 tries; the last: status 503: scripted fault 503\. See"),
        ):
            client(endpoint, max_retries=1).ask(ASK)

    def test_delays_double_with_jitter_up_to_the_longest(self, caplog: pytest.LogCaptureFixture) -> None:
        waits: list[float] = []
        with ScriptedEndpoint("x", faults=[500] * 6) as endpoint:
            asked = client(endpoint, retry_delay=1.0, retry_delay_max=6.0, max_retries=6)

            class Waits(threading.Event):
                def wait(self, timeout: float | None = None) -> bool:
                    waits.append(timeout or 0.0)
                    return False

            asked._closed = Waits()
            asked.ask(ASK)
        for wait, step in zip(waits, [1, 2, 4, 6, 6, 6], strict=True):
            assert step / 2 <= wait <= step
        assert len(set(waits)) == 6

    @pytest.mark.parametrize("dated", [False, True])
    def test_retry_after(self, dated: bool) -> None:
        # A date has no fractions: the moment that it names is up to a second earlier.
        value, least = (formatdate(time.time() + 1.6, usegmt=True), 0.5) if dated else ("0.4", 0.4)
        fault = {"status": 429, "headers": {"Retry-After": value}}
        with ScriptedEndpoint("x", faults=[fault]) as endpoint:
            began = time.monotonic()
            client(endpoint, retry_delay=0.0).ask(ASK)
        assert least < time.monotonic() - began < 5

    def test_retry_after_that_is_too_long(self) -> None:
        fault = {"status": 429, "headers": {"Retry-After": "3600"}, "body": '{"error": "quota"}'}
        with (
            ScriptedEndpoint("x", faults=[fault]) as endpoint,
            pytest.raises(EndpointError, match=r"asks for 3600 s of patience \(status 429: quota\)"),
        ):
            client(endpoint, retry_delay_max=60).ask(ASK)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (400, "does not take this request"),
            (401, "no key was sent: OPENAI_API_KEY is unset"),
            (404, "see base_url and model"),
            (307, "a redirect, which is not followed"),
        ],
    )
    def test_what_another_try_would_not_better(self, status: int, words: str) -> None:
        with ScriptedEndpoint("x", faults=[status]) as endpoint, pytest.raises(EndpointError, match=words):
            client(endpoint).ask(ASK)
        assert len(endpoint.requests) == 1

    def test_an_answer_without_words_or_counts(self) -> None:
        body = '{"choices": [{"message": {"content": null}}]}'
        with ScriptedEndpoint("x", faults=[{"status": 200, "body": body}]) as endpoint:
            reply = client(endpoint).ask(ASK)
        assert (reply.text, reply.usage.uncounted, reply.usage.prompt_tokens) == ("", 1, 0)

    def test_words_in_parts(self) -> None:
        body = '{"choices": [{"message": {"content": [{"type": "text", "text": "door "}, {"text": "2"}]}}]}'
        with ScriptedEndpoint("x", faults=[{"status": 200, "body": body}]) as endpoint:
            assert client(endpoint).ask(ASK).text == "door 2"


class TestKey:
    def test_it_goes_into_the_header_alone(self) -> None:
        with ScriptedEndpoint("x") as endpoint:
            asked = client(endpoint, api_key_env="MY_KEY", environ={"MY_KEY": KEY})
            asked.ask(ASK)
        assert endpoint.authorizations == [f"Bearer {KEY}"]
        assert KEY not in repr(asked) + str(endpoint.requests)

    def test_without_one_no_header_is_sent(self) -> None:
        with ScriptedEndpoint("x") as endpoint:
            client(endpoint).ask(ASK)
        assert endpoint.authorizations == [None]

    def test_an_endpoint_that_repeats_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        said = {"status": 401, "body": f'{{"error": {{"message": "Incorrect API key: {KEY}"}}}}'}
        again = {"status": 500, "body": f"your key {KEY} met an error"}
        with ScriptedEndpoint("x", faults=[again, said]) as endpoint, pytest.raises(EndpointError) as caught:
            client(endpoint, api_key_env="MY_KEY", environ={"MY_KEY": KEY}).ask(ASK)
        assert "the key in MY_KEY was refused" in str(caught.value)
        assert "Incorrect API key: [key]" in str(caught.value)
        assert KEY not in str(caught.value) + caplog.text

    @pytest.mark.parametrize("status", [200, 500])
    @pytest.mark.parametrize(
        "body",
        [
            f'{{"error": {{"message": "quota of {KEY} is used up"}}}}',
            f'{{"error": {{"message": "quota of {KEY.replace("-", chr(92) + "u002d")} is used up"}}}}',
            "x" * (295 - len(KEY) // 2) + KEY,
            f'{{"error": {{"message": "{"x" * (295 - len(KEY) // 2) + KEY}"}}}}',
        ],
        ids=["said", "escaped", "cut", "said and cut"],
    )
    def test_no_part_of_it_is_told(self, caplog: pytest.LogCaptureFixture, status: int, body: str) -> None:
        said = {"status": status, "body": body}
        with ScriptedEndpoint("x", faults=[said, said]) as endpoint, pytest.raises(EndpointError) as caught:
            client(endpoint, api_key_env="MY_KEY", environ={"MY_KEY": KEY}, max_retries=1).ask(ASK)
        assert KEY[:7] not in str(caught.value) + caplog.text

    def test_nor_what_is_no_answer_at_all(self) -> None:
        with Drips(f"{KEY}\r\n".encode()) as url, pytest.raises(EndpointError, match="the connection failed") as caught:
            client(url, api_key_env="MY_KEY", environ={"MY_KEY": KEY}, max_retries=0).ask(ASK)
        assert KEY not in str(caught.value)

    def test_one_that_no_header_can_hold_is_not_shown(self) -> None:
        with pytest.raises(ConfigError, match="MY_KEY") as caught:
            client("http://127.0.0.1:9/v1", api_key_env="MY_KEY", environ={"MY_KEY": "sk-a\nb-sécret"})
        assert "sk-a" not in str(caught.value)


class Drips:
    """A server that says some words at once, and then a space every 20 ms until the client is gone."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __exit__(self, *_: Any) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        taken, _ = self._listener.accept()
        with taken, contextlib.suppress(OSError):
            taken.recv(65536)
            taken.sendall(self._words)
            self.asked.set()
            until = time.monotonic() + 5
            while time.monotonic() < until:
                time.sleep(0.02)
                taken.sendall(b" ")


CLOSING = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}
"""Answers after which ``http.client`` lets go of its socket."""


@pytest.mark.parametrize("words", CLOSING.values(), ids=CLOSING)
class TestAServerThatCloses:
    def test_a_timeout_holds_to_the_last_byte(self, words: bytes) -> None:
        with Drips(words) as url:
            began = time.monotonic()
            with pytest.raises(EndpointError, match=r"no answer within 0\.3 s"):
                client(url, timeout=0.3, max_retries=0).ask(ASK)
            assert time.monotonic() - began < 3

    def test_closing_ends_its_requests(self, words: bytes) -> None:
        drips = Drips(words)
        with drips as url:
            asked = client(url, timeout=30)
            closing = threading.Thread(target=lambda: (drips.asked.wait(5), time.sleep(0.1), asked.close()))
            closing.start()
            began = time.monotonic()
            with pytest.raises(Closed):
                asked.ask(ASK)
            took = time.monotonic() - began
            closing.join(5)
        assert took < 3


def test_closing_ends_requests_and_delays() -> None:
    with ScriptedEndpoint("x", faults=["hang", {"status": 429, "headers": {"Retry-After": "30"}}]) as endpoint:
        asked = client(endpoint, timeout=30)
        ended: list[type[BaseException]] = []

        def ask() -> None:
            try:
                asked.ask(ASK)
            except Closed as error:
                ended.append(type(error))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(endpoint.requests) < 2:
            time.sleep(0.01)
        time.sleep(0.05)
        began = time.monotonic()
        asked.close()
        for thread in threads:
            thread.join(5)
        assert time.monotonic() - began < 3
    assert ended == [Closed, Closed]
