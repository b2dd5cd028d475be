"""Runs a worker's processes for the checks. Each kind of run is made once, and looked at by several of them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog import Catalog, Ready, WorkerEntry, make_ready, worker_command
from mosaic_cluster.catalog.environments import BuildProgress
from mosaic_cluster.conformance.case import ContractCase
from mosaic_cluster.conformance.findings import NotRun
from mosaic_cluster.worker.errors import WorkerError

SEED = 7
_POLL = 0.05
_TAIL = 15


@dataclass(frozen=True)
class Ended:
    """A process of the worker, when it has ended.

    Attributes:
        code: exit code, negative for a signal; ``None``: it took too long and was killed.
        folder: its working directory.
        stdout, stderr: what it printed.
        seconds: how long it ran.
        run_id: which it was given.
        term_seconds: from SIGTERM to its end, if it got one.
    """

    code: int | None
    folder: Path
    stdout: bytes
    stderr: str
    seconds: float
    run_id: str
    term_seconds: float | None = None

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """JSON objects among the lines of stdout."""
        return [line for line in map(_object, self.stdout.splitlines()) if line is not None]

    @property
    def impure(self) -> list[str]:
        """Lines of stdout that are no JSON objects."""
        return [
            line.decode("utf-8", "replace")
            for line in self.stdout.splitlines()
            if line.strip() and _object(line) is None
        ]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Payloads of the lifecycle lines of that name."""
        found = [line.get("payload") for line in self.lines if line.get("event") == name]
        return [each if isinstance(each, dict) else {} for each in found]

    @property
    def tail(self) -> str:
        """The last lines of stderr."""
        return "\n".join([line for line in self.stderr.splitlines() if line.strip()][-_TAIL:])

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code is None:
            return f"was still running after {self.seconds:.0f} s"
        if self.code < 0:
            return f"was killed by signal {-self.code}"
        return f"ended with exit code {self.code}"


@dataclass
class Laboratory:
    """A worker, a folder for its runs, and what was seen of them.

    Args:
        case: what it is checked with.
        folder: where its runs lie.
        catalog: where it is looked up.
        report: told how far the building of its environment is.

    Attributes:
        refused: values that its config class is known to refuse.
    """

    case: ContractCase
    folder: Path
    catalog: Catalog = field(default_factory=Catalog)
    report: Callable[[BuildProgress], None] | None = None
    refused: list[dict[str, Any]] | None = None
    _count: int = 0
    _ready: dict[str, Ready] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def temporary(
        cls, case: ContractCase, report: Callable[[BuildProgress], None] | None = None
    ) -> Iterator[Laboratory]:
        """In a folder that is removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="mosaic-check-"))
        try:
            yield cls(case, folder, report=report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def entry(self) -> WorkerEntry:
        """The worker.

        Raises:
            WorkerError: it is not installed, or cannot be loaded.
        """
        return self.catalog.get(self.case.worker)

    @property
    def usable(self) -> WorkerEntry:
        """The worker, for checks of what comes after its discovery."""
        try:
            return self.entry
        except WorkerError:
            raise NotRun("the worker cannot be loaded") from None

    @cached_property
    def dry(self) -> Ended:
        """A dry run of the small config."""
        return self.run(self.case.config, "--dry-run")

    @cached_property
    def whole(self) -> Ended:
        """A run of the small config, to its end."""
        return self.run(self.case.config)

    @property
    def trained(self) -> Ended:
        """The same, for checks that need it to have gone well."""
        if self.whole.code != 0:
            raise NotRun("the run did not end well")
        return self.whole

    @cached_property
    def again(self) -> Ended:
        """The same once more."""
        return self.run(self.case.config)

    @cached_property
    def stopped(self) -> Ended:
        """A run of the long config that gets SIGTERM once it has reported, and saved if it saves."""
        return self._interrupted(self.case.stopped_config, resume=None, kill=False)

    @cached_property
    def resumed(self) -> Ended:
        """A run that goes on from the last checkpoint of :attr:`stopped` (or of :attr:`whole`, if that has none)."""
        checkpoint = self.checkpoint
        assert checkpoint is not None
        return self._interrupted(self._config_of(checkpoint[0]), resume=str(checkpoint[1]["path"]), kill=True)

    @property
    def checkpoint(self) -> tuple[Ended, dict[str, Any]] | None:
        """The last checkpoint that was announced and is there, with its run: the stopped one, else the whole one."""
        for run in (self.stopped, self.whole):
            found = [each for each in run.events("checkpoint_saved") if _there(run, each)]
            if found:
                last = dict(found[-1])
                last["path"] = str(run.folder / str(last["path"]))
                return run, last
        return None

    def _config_of(self, run: Ended) -> Mapping[str, Any]:
        return self.case.config if run is self.whole else self.case.stopped_config

    def run(self, config: Mapping[str, Any], *words: str, payload: bool = False) -> Ended:
        """The worker's process to its end."""
        with self._started(config, words, payload, None) as (process, folder, run_id, began):
            code: int | None
            try:
                code = process.wait(self.case.seconds)
            except subprocess.TimeoutExpired:
                code = None
            seconds = time.monotonic() - began
        return _ended(code, folder, seconds, run_id)

    def _interrupted(self, config: Mapping[str, Any], *, resume: str | None, kill: bool) -> Ended:
        """A run that is ended once it has reported: by SIGTERM, or at once."""
        with self._started(config, (), False, resume) as (process, folder, run_id, began):
            log = folder / "stdout.log"
            seen_at: float | None = None
            term_at: float | None = None
            while process.poll() is None:
                now = time.monotonic()
                text = log.read_bytes()
                if seen_at is None and b'"heartbeat"' in text:
                    seen_at = now
                # A heartbeat after one: that it really goes on. A checkpoint, where one soon comes.
                enough = seen_at is not None and (b'"checkpoint_saved"' in text or now > seen_at + 2)
                if term_at is None and (enough or now > began + self.case.seconds):
                    if kill:
                        break
                    process.send_signal(signal.SIGTERM)
                    term_at = time.monotonic()
                if term_at is not None and now > term_at + self.case.grace:
                    break
                time.sleep(_POLL)
            code = process.poll()
            ended = time.monotonic()
        return _ended(code, folder, ended - began, run_id, None if term_at is None else ended - term_at)

    @contextlib.contextmanager
    def _started(
        self, config: Mapping[str, Any], words: Sequence[str], payload: bool, resume: str | None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path, str, float]]:
        entry = self.usable
        self._count += 1
        folder = self.folder / f"run{self._count}"
        folder.mkdir(parents=True)
        run_id = f"check{self._count}{secrets.token_hex(4)}"
        document: dict[str, Any] = {**config, "run_id": run_id, "seed": SEED}
        if payload:
            document = {"metadata": {"worker": {"worker_id": entry.name, "config": document}}}
        path = self.folder / f"config{self._count}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        ready = self.ready(config)
        environ = {**ready.variables(os.environ), **ready.declared_variables, **_variables(folder, run_id)}
        if resume is not None:
            environ["MOSAIC_RESUME_FROM"] = resume
        command = ready.command(
            [*worker_command(entry.package, entry.has_cli, str(path), ready.python), *words],
            name=f"mosaic-{run_id}", cwd=str(folder), variables=environ, write=(self.folder,),
        )  # fmt: skip
        with open(folder / "stdout.log", "wb") as out, open(folder / "stderr.log", "wb") as errors:
            process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            try:
                yield process, folder, run_id, time.monotonic()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def ready(self, config: Mapping[str, Any]) -> Ready:
        """What a run with this config runs in, built if it is not there; without the library, this interpreter.

        Raises:
            EnvironmentFailed: it cannot be had.
        """
        entry = self.usable
        environment = entry.environment_for(config) if self.case.library else None
        if environment is None:
            return Ready(sys.executable)
        key = environment.name
        if key not in self._ready:
            self._ready[key] = make_ready(
                entry.name, entry.distribution, entry.package, environment, report=self.report
            )
        return self._ready[key]


def files_of(run: Ended) -> list[str]:
    """What a run left in its folder, but for what the laboratory put there."""
    ours = {"stdout.log", "stderr.log"}
    found = (path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if not path.is_dir())
    return sorted(each for each in found if each not in ours)


def _there(run: Ended, saved: Mapping[str, Any]) -> bool:
    return bool(saved.get("path")) and (run.folder / str(saved["path"])).exists()


def _variables(folder: Path, run_id: str) -> dict[str, str]:
    """As the supervisor sets them."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC")
    return {
        **dict.fromkeys(threads, "1"),
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MOSAIC_RUN_ID": run_id,
        "MOSAIC_RUN_DIR": str(folder),
        "MOSAIC_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "MOSAIC_ATTEMPT": "1",
        "MOSAIC_CPUS": "1",
        "MOSAIC_AGENTS": "1",
    }


def _ended(code: int | None, folder: Path, seconds: float, run_id: str, term: float | None = None) -> Ended:
    stderr = (folder / "stderr.log").read_text(encoding="utf-8", errors="replace")
    return Ended(code, folder, (folder / "stdout.log").read_bytes(), stderr, seconds, run_id, term)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
