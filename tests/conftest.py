"""One Ray cluster for the whole session, and a place for each test to run experiments in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server as s3_servers
from hypothesis import settings
from support import (
    FIXTURES,
    Cluster,
    Experiment,
    environment,
    install,
    mosaic,
    processes_of,
    ray_cluster,
    spec,
    started,
    wait_for,
    write_spec,
)

settings.register_profile("any machine", deadline=None)  # how long an example takes is a busy machine's affair
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from or left in the user's cache; but `make test-workers` says where environments are built."""
    folder = tmp_path_factory.mktemp("cache")
    built = os.environ.get("MOSAIC_TEST_ENVIRONMENTS")
    for name in ("environments", "interpreters") if built else ():
        Path(built or "", name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path(built or "", name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOSAIC_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests' own workers, as if installed."""
    folder = tmp_path_factory.mktemp("workers")
    for name in ("scripted", "curves", "chaos", "joining"):
        package = f"{name}_worker"
        install(folder, FIXTURES / "workers" / package, name, f"{package}:get_worker_metadata")
    return folder


@pytest.fixture(scope="session")
def cluster(workers: Path, own_cache: Path) -> Iterator[Cluster]:
    """A real Ray cluster on this machine, that a token keeps others out of, with the scripted worker on its nodes."""
    with ray_cluster(workers, MOSAIC_CACHE=str(own_cache)) as running:
        yield running


class Lab:
    """Where a test runs experiments: a folder of its own, and the command line.

    Args:
        folder: working directory; results go to ``<folder>/results``.
        env: environment of the commands.
        address: Ray cluster, or ``None`` for an embedded one.
        backend: ``ray`` or ``inline``.
    """

    def __init__(self, folder: Path, env: dict[str, str], address: str | None, backend: str = "ray") -> None:
        self.folder = folder
        self.env = {**env, "MOSAIC_STORAGE": str(folder / "results")}
        self.where = ["--backend", backend] + (["--address", address] if address else [])

    @property
    def experiment(self) -> Experiment:
        """The one experiment of this lab."""
        return Experiment(self.folder / "results")

    def experiment_started(self) -> bool:
        """Whether its attempt's log exists."""
        return any((self.folder / "results").glob("*/runs/*/attempts/*/stdout.log"))

    def write(self, config: dict[str, Any] | None = None, **more: Any) -> Path:
        """A spec file."""
        return write_spec(self.folder, spec(config, **more))

    def run(self, config: dict[str, Any] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
        """``mosaic run`` to its end."""
        return self.mosaic("run", self.write(config, **more), *self.where)

    def start(self, config: dict[str, Any] | None = None, **more: Any) -> Any:
        """``mosaic run`` in the background."""
        return started("run", self.write(config, **more), *self.where, env=self.env, cwd=self.folder)

    def mosaic(self, *args: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Any other verb."""
        return mosaic(*args, env=self.env, cwd=self.folder, timeout=timeout)

    def run_ids(self) -> list[str]:
        """Of every experiment here."""
        return [path.name for path in (self.folder / "results").glob("*/runs/*")]


def assert_nothing_left(lab: Lab) -> None:
    """No process of any run of this lab lives."""
    for run_id in lab.run_ids():
        wait_for(lambda run_id=run_id: not processes_of(run_id), 15, f"processes of {run_id} to end")


@pytest.fixture
def lab(tmp_path: Path, cluster: Cluster) -> Iterator[Lab]:
    """Experiments on the session's cluster. At the end no process of theirs may be left."""
    made = Lab(tmp_path, cluster.env, cluster.address)
    yield made
    assert_nothing_left(made)


@pytest.fixture
def embedded(tmp_path: Path, workers: Path, own_cache: Path) -> Iterator[Lab]:
    """Experiments that each start a Ray of their own."""
    made = Lab(tmp_path, environment(workers, MOSAIC_CACHE=str(own_cache)), None)
    yield made
    assert_nothing_left(made)


@pytest.fixture
def inline(tmp_path: Path, workers: Path, own_cache: Path) -> Iterator[Lab]:
    """Experiments without Ray."""
    made = Lab(tmp_path, environment(workers, MOSAIC_CACHE=str(own_cache)), None, "inline")
    yield made
    assert_nothing_left(made)


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real S3-protocol server on loopback: its port."""
    with s3_servers.serving(tmp_path_factory.mktemp("s3")) as port:
        yield port


@pytest.fixture
def s3_server(s3_process: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_servers.S3]:
    """A fresh bucket there, behind a proxy that makes faults.

    This process's environment is as its ``env`` says, and that of processes started from now on.
    """
    with s3_servers.bucket(s3_process) as made:
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made


def pytest_report_header() -> str:
    """Where a stray Ray would be taken from."""
    return f"RAY_ADDRESS: {os.environ.get('RAY_ADDRESS', 'not set')}"
