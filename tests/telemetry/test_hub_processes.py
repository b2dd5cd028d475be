"""Hubs as real processes: two at once, one that stands still, one whose storage is slow or gone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server as s3_servers
from s3_server import S3
from support import wait_for

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import TelemetryReader
from mosaic_cluster.telemetry.files import data_files

PROGRAM = Path(__file__).with_name("hub_process.py")
FENCED = 3
RUN = "01JAAAAAAAAAAAAAAAAAAAAAAA"
Start = Callable[..., "Hub"]


class Hub:
    """The other end of ``hub_process.py``."""

    def __init__(self, folder: Path | str, memory: int, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, str(PROGRAM), str(folder), str(memory)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        self.first = 0
        self.rss = self.read()["rss"]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the hub ended with {self.process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.read()

    def send(self, numbers: range, run_id: str = RUN, pad: int = 0) -> dict[str, Any]:
        lines = [json.dumps({"event": "heartbeat", "payload": {"step": n, "pad": "x" * pad}}) for n in numbers]
        answer = self.ask(do="append", run_id=run_id, first=self.first, lines=lines)
        if answer["accepted"] == answer["last"]:
            self.first = answer["last"]
        return answer

    def committed(self) -> bool:
        answer = self.ask(do="watermark", run_id=RUN)
        return bool(answer["committed"] == answer["accepted"] > 0)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    hubs: list[Hub] = []

    def begin(memory: int = 512_000_000, **env: str) -> Hub:
        hubs.append(Hub(tmp_path / "telemetry", memory, env))
        return hubs[-1]

    yield begin
    for hub in hubs:
        hub.end()


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def steps(tmp_path: Path) -> list[int]:
    rows = TelemetryReader(tmp_path / "telemetry").table("lifecycle", view=False).to_pylist()
    return [json.loads(row["payload"])["step"] for row in rows]


def test_two_hubs_never_both_commit(start: Start, tmp_path: Path) -> None:
    """One is stopped with rows in hand, its successor begins, and it wakes: it is fenced, and exits."""
    old = start()
    old.send(range(10))
    old.ask(do="flush", run_id=RUN, upto=old.first)
    wait_for(old.committed, 30)
    old.send(range(10, 20))
    os.kill(old.process.pid, signal.SIGSTOP)
    new = start()
    answer = new.ask(do="watermark", run_id=RUN)
    assert answer["committed"] == answer["accepted"] > 0
    new.first = answer["accepted"]
    os.kill(old.process.pid, signal.SIGCONT)
    assert old.process.wait(30) == FENCED
    new.send(range(10, 25))
    new.ask(do="flush", run_id=RUN, upto=new.first)
    wait_for(new.committed, 30)
    assert steps(tmp_path) == list(range(25))


def test_two_hubs_and_a_bucket_that_one_is_cut_off_from(s3_server: S3, s3_process: int) -> None:
    """A hub that does not reach the bucket any more has rows in hand when its successor begins: it is fenced."""
    uri = f"{s3_server.uri}/telemetry"
    reader = s3_servers.Proxy(s3_process)
    hubs = [Hub(uri, 512_000_000)]
    try:
        (old,) = hubs
        old.send(range(10))
        old.ask(do="flush", run_id=RUN, upto=old.first)
        wait_for(old.committed, 30)
        s3_server.cut()
        old.send(range(10, 20))
        hubs.append(Hub(uri, 512_000_000, {"AWS_ENDPOINT_URL": reader.url}))
        new = hubs[-1]
        new.first = new.ask(do="watermark", run_id=RUN)["accepted"]
        assert new.first > 0
        s3_server.restore()
        assert old.process.wait(60) == FENCED
        new.send(range(10, 25))
        new.ask(do="flush", run_id=RUN, upto=new.first)
        wait_for(new.committed, 30)
        rows = TelemetryReader(uri).table("lifecycle", view=False).to_pylist()
        assert [json.loads(row["payload"])["step"] for row in rows] == list(range(25))
    finally:
        for hub in hubs:
            hub.end()
        reader.cut()


def test_one_that_has_nothing_to_write_is_fenced_too(start: Start) -> None:
    old = start()
    start()
    assert old.process.wait(30) == FENCED


@pytest.mark.parametrize("seed", range(2))
def test_hubs_that_come_and_go(start: Start, tmp_path: Path, seed: int) -> None:
    """Successors begin at any moment, predecessors wake at any moment; each line is there once."""
    rng = random.Random(seed)
    hubs = [start()]
    sent = 0
    for _ in range(4):
        hub = hubs[-1]
        for _ in range(rng.randint(1, 4)):
            count = rng.randint(1, 400)
            hub.send(range(sent, sent + count))
            sent += count
            if rng.random() < 0.5:
                hub.ask(do="flush", run_id=RUN, upto=hub.first)
            time.sleep(rng.random() * 0.3)
        os.kill(hub.process.pid, signal.SIGSTOP)
        new = start()
        if rng.random() < 0.5:
            os.kill(hub.process.pid, signal.SIGCONT)
        answer = new.ask(do="watermark", run_id=RUN)
        new.first = answer["accepted"]
        sent = len(steps(tmp_path))
        hubs.append(new)
    for hub in hubs[:-1]:
        os.kill(hub.process.pid, signal.SIGCONT)
        assert hub.process.wait(30) == FENCED
    hubs[-1].send(range(sent, sent + 5))
    hubs[-1].ask(do="close")
    assert steps(tmp_path) == list(range(sent + 5))


def test_memory_stays_within_what_was_said(start: Start, tmp_path: Path) -> None:
    """Storage takes nothing: the hub takes no more than it may, and has lost nothing once storage is back."""
    memory = 128_000_000
    hub = start(memory)
    hub.send(range(1))
    hub.ask(do="flush", run_id=RUN, upto=hub.first)
    wait_for(hub.committed, 30)
    lifecycle = tmp_path / "telemetry" / "lifecycle"
    aside = lifecycle.rename(tmp_path / "aside")
    lifecycle.write_text("a file where the folder should be: nothing can be written")
    sent, refused, most = 1, 0, 0
    while refused < 20:
        before = hub.first
        answer = hub.send(range(sent, sent + 50), pad=20_000)
        most = max(most, answer["rss"])
        if hub.first == before:
            refused += 1
        else:
            sent += 50
    assert hub.ask(do="stats")["error"]
    assert sent * 20_000 > memory // 8  # it took what it may
    assert most < memory + hub.rss  # beside what the process takes anyway
    lifecycle.unlink()
    aside.rename(lifecycle)
    wait_for(hub.committed, 60)
    assert steps(tmp_path) == list(range(sent))


def test_a_full_disk_loses_nothing(start: Start, tmp_path: Path) -> None:
    """A small file system of its own for the files, filled to the brim, and emptied again."""
    folder = tmp_path / "telemetry"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a small file system")  # everything else is tested above
    try:
        hub = start()
        ballast = folder / "ballast"
        fill(ballast)
        hub.send(range(3000), pad=20)
        hub.ask(do="flush", run_id=RUN, upto=hub.first)
        wait_for(lambda: hub.ask(do="stats")["error"], 30)
        assert not list(data_files(Storage.open(folder), "lifecycle"))
        ballast.unlink()
        wait_for(hub.committed, 30)
        assert steps(tmp_path) == list(range(3000))
        hub.end()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
