"""A real S3-protocol server on loopback (moto's), and a proxy in front of it that can be told to fail.

The server is a process of its own: ``python tests/s3_server.py PORT``. moto honours ``If-None-Match: *`` but looks
and writes in two steps; here conditional writes of one server are done one at a time, so that they are atomic as the
protocol has them.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REGION = "us-east-1"
FAULT = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>as the test wants it</Message>"
    "<AWSAccessKeyId>{key}</AWSAccessKeyId></Error>"
)
CODES = {403: "InvalidAccessKeyId", 400: "ExpiredToken", 409: "ConditionalRequestConflict", 500: "InternalError",
         503: "SlowDown"}  # fmt: skip


class Proxy:
    """Stands between client and server; every method may be called at any time.

    Attributes:
        requests: method and path of what came in, in order.
    """

    def __init__(self, server_port: int) -> None:
        self.requests: list[tuple[str, str]] = []
        self._upstream = server_port
        self._lock = threading.Lock()
        self._failures: list[tuple[int, str]] = []
        self._lose = 0
        self._delay = 0.0
        self._open: set[socket.socket] = set()
        self._server: Any = None
        self.port = 0
        self.restore()

    @property
    def url(self) -> str:
        """The endpoint to give to clients."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Drop every connection, refuse new ones."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self._lock:
            for each in self._open:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def restore(self) -> None:
        """Take connections again, on the same port, and forget all faults."""
        self.fail(0)
        self.lose_responses(0)
        self.delay(0)
        if self._server is None:
            self._server = _Listener(("127.0.0.1", self.port), _handler(self))
            self.port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, n: int, status: int = 503, code: str | None = None) -> None:
        """Answer the next ``n`` requests with this status and S3 error code; the server does not see them."""
        with self._lock:
            self._failures = [(status, code or CODES.get(status, "Fault"))] * n

    def lose_responses(self, n: int) -> None:
        """Forward the next ``n`` requests, then cut the connection instead of answering."""
        with self._lock:
            self._lose = n

    def delay(self, seconds: float) -> None:
        """Wait this long before each request is forwarded."""
        self._delay = seconds

    def plan(self, method: str, path: str) -> tuple[float, tuple[int, str] | None, bool]:
        """What happens to a request: the delay, the failure, whether the answer is lost."""
        with self._lock:
            self.requests.append((method, path))
            if self._failures:
                return self._delay, self._failures.pop(), False
            lost = self._lose > 0
            self._lose -= lost
            return self._delay, None, lost

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are no news."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with proxy._lock:
                proxy._open.add(self.connection)

        def finish(self) -> None:
            with proxy._lock:
                proxy._open.discard(self.connection)
            super().finish()

        def serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # killed while it wrote
                self.close_connection = True
                return
            delay, failure, lost = proxy.plan(self.command, self.path)
            time.sleep(delay)
            if failure is not None:
                status, code = failure
                key = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
                self.reply(status, [("Content-Type", "application/xml")], FAULT.format(code=code, key=key).encode())
                return
            status, headers, data = proxy.forward(self.command, self.path, self.headers, body)
            if lost:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.reply(status, headers, data)

        def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            sized = False
            for name, value in headers:
                if name.lower() in ("connection", "transfer-encoding", "keep-alive"):
                    continue
                sized = sized or name.lower() == "content-length"
                self.send_header(name, value)
            if not sized and status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    return Handler


class S3:
    """A fresh bucket on the server, reached through the proxy.

    Attributes:
        proxy: makes faults. ``cut``, ``restore``, ``fail``, ``lose_responses`` and ``delay`` are here, too.
    """

    def __init__(self, server_port: int) -> None:
        self.proxy = Proxy(server_port)
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.cut, self.restore, self.fail = self.proxy.cut, self.proxy.restore, self.proxy.fail
        self.lose_responses, self.delay = self.proxy.lose_responses, self.proxy.delay
        headers = {"Host": "127.0.0.1", "Content-Length": "0"}
        status, _, body = self.proxy.forward("PUT", f"/{self.bucket}", headers, b"")
        assert status == 200, body

    @property
    def uri(self) -> str:
        """A storage in the bucket."""
        return f"s3://{self.bucket}/results"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to reach the bucket."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.proxy.url}


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTSTESTSTESTS1", "AWS_SECRET_ACCESS_KEY": "only-for-tests-secret",
    "AWS_REGION": REGION, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
}  # fmt: skip


@contextmanager
def serving(folder: Path, **env: str) -> Iterator[int]:
    """A server in a process of its own: its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    with open(folder / "s3.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **ENVIRONMENT, **env},
        )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < end, (folder / "s3.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/moto-api/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def bucket(server_port: int) -> Iterator[S3]:
    """A fresh bucket behind a proxy of its own."""
    made = S3(server_port)
    try:
        yield made
    finally:
        made.cut()


def main(port: int) -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    app = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def atomic(environ: Any, start_response: Any) -> Any:
        if "HTTP_IF_NONE_MATCH" not in environ or environ["REQUEST_METHOD"] not in ("PUT", "POST"):
            return app(environ, start_response)
        with one_at_a_time:
            return app(environ, start_response)

    class Quiet(WSGIRequestHandler):
        def log_request(self, *args: Any) -> None:
            """Only errors are said."""

    run_simple("127.0.0.1", port, atomic, threaded=True, request_handler=Quiet)


if __name__ == "__main__":
    main(int(sys.argv[1]))
