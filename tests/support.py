"""What several tests need: packages of workers in temporary folders, the command line, a look at processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mosaic_cluster.logs import Released, read_released
from mosaic_cluster.telemetry import LogTail, TelemetryReader

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parent.parent


def install(folder: Path, source: Path, entry: str, value: str, version: str = "1.0.0") -> Path:
    """Put a worker's package and what an installer would write into ``folder``, which goes on ``PYTHONPATH``."""
    package = source.name
    shutil.copytree(source, folder / package)
    register(folder, package, {entry: value}, version)
    return folder


def register(folder: Path, distribution: str, entries: Mapping[str, str], version: str = "1.0.0") -> None:
    """Write the metadata of an installed distribution with these entry points."""
    info = folder / f"{distribution}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    info.joinpath("entry_points.txt").write_text(f"[mosaic.workers]\n{lines}")


def quick_start(folder: Path) -> Path:
    """The guide's quick-start worker, its one listing split into the files it names."""
    current, found = "", {}
    for line in (FIXTURES / "guide" / "quick_start.txt").read_text().splitlines():
        if line.startswith("# ") and line.endswith((".py", ".toml")):
            current = line[2:]
            found[current] = ""
        else:
            found[current] += line + "\n"
    for name, text in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    register(folder, "my_worker", {"myworker": "my_worker:get_worker_metadata"})
    return folder


def environment(*packages: Path, **more: str) -> dict[str, str]:
    """Environment of a `mosaic` that sees the workers in ``packages``."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MOSAIC_"))}
    base["PYTHONPATH"] = os.pathsep.join(map(str, packages))
    base["COLUMNS"] = "120"
    return {**base, **more}


def mosaic(
    *args: str | Path, env: Mapping[str, str], cwd: Path, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "mosaic_cluster.cli", *map(str, args)]
    return subprocess.run(
        command, env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )  # fmt: skip


def mosaic_process(
    *args: str | Path, env: Mapping[str, str], cwd: Path, output: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    """The command line in the background, in a session of its own."""
    command = [sys.executable, "-m", "mosaic_cluster.cli", *map(str, args)]
    return subprocess.Popen(
        command, env=dict(env), cwd=cwd, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@contextmanager
def started(*args: str | Path, env: Mapping[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command line in the background; killed with its children at the end, if it still runs."""
    process = mosaic_process(*args, env=env, cwd=cwd)
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all its descendants."""
    try:
        top = psutil.Process(pid)
        for each in [*top.children(recursive=True), top]:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return


@dataclass(frozen=True)
class Cluster:
    """A running Ray cluster of one node.

    Attributes:
        env: environment of commands that use it.
        pid: its process, the ancestor of all its others.
        metrics_port: where it tells Prometheus how it is.
    """

    address: str
    env: dict[str, str]
    pid: int
    metrics_port: int


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def private() -> dict[str, str]:
    """Variables of a Ray that only who has them can use: some of its ports listen on every interface."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def ray_cluster(*packages: Path, **more: str) -> Iterator[Cluster]:
    """A real Ray cluster on this machine, with a token, whose nodes see the workers in ``packages``."""
    port, metrics_port = free_port(), free_port()
    # Short: Ray's sockets lie in it, and their paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix="mc-", dir="/tmp")
    env = environment(*packages, **private(), RAY_USAGE_STATS_ENABLED="0", **more)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={port}", f"--metrics-export-port={metrics_port}",
        "--num-cpus=4", "--memory=4000000000", "--object-store-memory=100000000",
        "--include-dashboard=false", f"--temp-dir={folder}",
    ]  # fmt: skip
    with open(Path(folder, "start.log"), "w") as log:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        text = Path(folder, "start.log")
        wait_for(lambda: "Ray runtime started" in text.read_text() or process.poll() is not None, 90, "ray start")
        assert process.poll() is None, text.read_text()
        yield Cluster(f"127.0.0.1:{port}", env, process.pid, metrics_port)
    finally:
        kill_tree(process.pid)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def spec(config: Mapping[str, Any] | None = None, *, worker: str = "scripted", **more: Any) -> dict[str, Any]:
    """A run spec. Without bridges, unless it names some: one more process is no part of most stories."""
    document = {"kind": "run", "name": "test", "worker": worker, "config": dict(config or {}), "seed": 1}
    telemetry = {"bridges": {"tensorboard": False}, **more.pop("telemetry", {})}
    return {**document, "telemetry": telemetry, **more}


def write_spec(folder: Path, document: Any, name: str = "spec.json") -> Path:
    """A spec as a file."""
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, what: str = "", every: float = 0.05) -> Any:
    """The first true value of ``condition``.

    Args:
        seconds: within which it comes on a machine of ones own; on a busy one it may take twice as long.
    """
    seconds *= 2
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"still not after {seconds:g} s: {what or condition}")


class Interrupted(BaseException):
    """What a signal raises in the middle of a call, as Ctrl-C does."""


@contextmanager
def interrupting(seconds: float = 0.2) -> Iterator[threading.Timer]:
    """A timer, to be started, that interrupts this thread with :class:`Interrupted`."""

    def interrupt(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    try:
        yield timer
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def processes_of(run_id: str) -> list[psutil.Process]:
    """Living processes that belong to a run: its supervisors, its worker, all their children."""
    found = []
    for process in psutil.process_iter():
        try:
            values = process.environ()
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
        if values.get("MOSAIC_RUN_ID") == run_id or values.get("MOSAIC_SUPERVISES", "").startswith(run_id):
            found.append(process)
    return found


class Experiment:
    """The folder of the one experiment in a storage, while it runs and after."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage

    @property
    def path(self) -> Path:
        (found,) = [entry for entry in self.storage.iterdir() if (entry / "experiment.json").exists()]
        return found

    @property
    def run_dir(self) -> Path:
        (found,) = (self.path / "runs").iterdir()
        return found

    @property
    def run_id(self) -> str:
        return self.run_dir.name

    def status(self) -> dict[str, Any]:
        """The status of the one run."""
        document = json.loads((self.path / "status.json").read_text())
        return {**document, **document["runs"][0]}

    def reached(self, step: int, attempt: int = 1) -> bool:
        """Whether the attempt has printed the heartbeat of ``step``."""
        return f'"step":{step}' in self.text(attempt)

    def text(self, attempt: int = 1) -> str:
        """What an attempt has printed so far."""
        log = self._log(attempt)
        return "" if log is None else log.read_text()

    def _log(self, attempt: int) -> Path | None:
        try:
            log = self.run_dir / "attempts" / str(attempt) / "stdout.log"
        except (FileNotFoundError, ValueError):
            return None
        return log if log.exists() else None

    def launch(self, attempt: int = 1) -> dict[str, Any]:
        """What the supervisor recorded when it started the worker."""
        return json.loads((self.run_dir / "attempts" / str(attempt) / "launch.json").read_text())

    def outcome(self, attempt: int = 1) -> dict[str, Any]:
        """How an attempt ended."""
        return json.loads((self.run_dir / "attempts" / str(attempt) / "outcome.json").read_text())

    def attempts(self) -> list[int]:
        """Numbers of the attempts."""
        return sorted(int(entry.name) for entry in (self.run_dir / "attempts").iterdir())

    def lines(self, attempt: int = 1) -> list[tuple[int, dict[str, Any]]]:
        """Telemetry lines of an attempt's raw log, with their byte offsets."""
        tail = LogTail(self._attempt(attempt) / "stdout.log")
        found = []
        while lines := tail.read(final=True):
            found += [(offset, json.loads(line)) for offset, line in lines if line.startswith(b"{")]
        return found

    def released(self, attempt: int = 1) -> Released | None:
        """What of an attempt's log was let go."""
        return read_released(self._attempt(attempt) / "stdout.log")

    def _attempt(self, attempt: int) -> Path:
        return self.run_dir / "attempts" / str(attempt)


def assert_tables_equal_logs(experiment: Experiment) -> None:
    """Every telemetry line of the raw logs is in its table exactly once, and nothing else is.

    But for what was let go of a log: of that, the tables must have each row once, and nobody can say more here.
    """
    reader = TelemetryReader(experiment.path / "telemetry")
    lifecycle, episodes = [], []
    for attempt in experiment.attempts():
        for offset, line in experiment.lines(attempt):
            if line.get("type") == "episode":
                episodes.append((attempt, offset, line["episode"], line["total_reward"]))
            else:
                lifecycle.append((attempt, offset, line["event"]))
    gaps = {attempt: experiment.released(attempt) for attempt in experiment.attempts()}

    def left(table: str) -> list[dict[str, Any]]:
        rows = reader.table(table, view=False).to_pylist()
        assert len({(row["attempt"], row["offset"]) for row in rows}) == len(rows)
        return [
            row for row in rows
            if (gap := gaps[row["attempt"]]) is None or not gap.first <= row["offset"] < gap.upto
        ]  # fmt: skip

    rows = left("lifecycle")
    assert [(row["attempt"], row["offset"], row["event"]) for row in rows] == lifecycle
    rows = left("episodes")
    assert [(row["attempt"], row["offset"], row["episode"], row["total_reward"]) for row in rows] == episodes


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes: a tmpfs of its own. Mounting needs root, or sudo without a password."""
    folder.mkdir(parents=True)
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*sudo, "umount", "--lazy", folder], check=True)
