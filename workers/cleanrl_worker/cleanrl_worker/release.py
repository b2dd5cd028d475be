"""The scripts of CleanRL's release as they are: each a child process, whose event files tell how it gets on.

Needs neither torch nor gymnasium: the child imports what the script wants.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleanrl_worker.algorithms import RELEASE, SCRIPTS
from cleanrl_worker.analytics import add_tensorboard
from cleanrl_worker.arguments import command_line, script_file, steps_taken
from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.event_files import EventTail, Scalar
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession
from mosaic_cluster.worker.errors import MosaicError

LOGGER = logging.getLogger(__name__)

POLL_SECONDS = 0.1
TERM_SECONDS = 3.0
"""What a script is given between SIGTERM and SIGKILL: it saves nothing, so there is nothing to wait for."""
LAST_LINES = 15
_ANSWERS = ".script-"
STARTS_ANEW = "the scripts of CleanRL cannot go on from where they were: each attempt starts at step 0"


class ScriptFailed(MosaicError):
    """A script ended before its time."""


class ScriptRuntime:
    """One attempt at a run of a script.

    Args:
        config: its ``algo`` is one of :data:`cleanrl_worker.algorithms.SCRIPTS`.
        dry_run: see whether the script takes the flags and whether its environment can be made; run nothing.
        stop_requested: asked ten times a second; once it says yes, the script is ended.
        worker_id: name of this worker process, for the log.
        environ: for the script, too.
    """

    def __init__(
        self,
        config: CleanRLConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if config.seed is None:
            config = replace(config, seed=secrets.randbits(31))
        self.config = config
        self._dry_run = dry_run
        self._environ = environ
        self._session = WorkerSession(
            "cleanrl",
            config,
            stop_requested=stop_requested,
            worker_id=worker_id,
            environ=environ,
            about={"script": f"cleanrl.{SCRIPTS[config.algo].module}", "release": RELEASE, "resume": STARTS_ANEW},
        )
        self._events = EventTail(self._session.run_dir / "runs")
        self._progress = Progress(self._session)

    def run(self) -> dict[str, Any]:
        """Run the script to its end, or until told to stop.

        Returns:
            the summary; ``status`` is ``completed``, ``cancelled`` or ``dry-run``.

        Raises:
            ConfigError: the release is not installed for this interpreter, the script refuses its flags, or it
                cannot use the environment or the device.
            ScriptFailed: it ended with another exit code than 0.
        """
        summary = self._session.run(self._dry if self._dry_run else self._train, dry_run=self._dry_run)
        if not self._dry_run:
            add_tensorboard(self._session.run_dir, self._events.folders)
        return summary

    def _dry(self, session: WorkerSession) -> dict[str, Any]:
        self._check_here()
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer.json")
            ended = self._ended(self._child(answer, Path(folder), "--dry-run"), answer)
        return {"env_id": self.config.env_id, "algo": self.config.algo, **ended["found"]}

    def _train(self, session: WorkerSession) -> dict[str, Any]:
        self._check_here()
        if session.resume_from is not None:
            LOGGER.warning("MOSAIC_RESUME_FROM=%s is not used: %s", session.resume_from, STARTS_ANEW)
        for leftover in session.run_dir.glob(f"{_ANSWERS}*"):  # of an attempt that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=session.run_dir, prefix=_ANSWERS) as folder:
            answer = Path(folder, "answer.json")
            child = self._child(answer, session.run_dir)
            try:
                stopped = self._follow(child)
            finally:
                child.end()
            self._progress.take(self._events.read())
            self._progress.finish()
            if stopped:
                return self._results("cancelled")
            found = self._ended(child, answer)["found"]
        session.step = max(session.step, steps_taken(self.config))
        return {"device": found["device"], **self._results("completed")}

    def _check_here(self) -> None:
        config = self.config
        if script_file(config.algo) is None:
            raise ConfigError([
                Problem(
                    "algo",
                    f"{config.algo} needs CleanRL {RELEASE}, which is not installed for {sys.executable}; "
                    "`mosaic workers install cleanrl` builds the environments that have it",
                )
            ])  # fmt: skip

    def _child(self, answer: Path, folder: Path, *more: str) -> Child:
        if self.config.device == "cuda":
            more = (*more, "--need-gpu")
        command = [sys.executable, "-m", "cleanrl_worker.script", str(answer), self.config.algo, *more, "--"]
        environ = dict(self._environ)
        # Without a share given, one thread: on networks this small more of them only get in each other's way.
        environ.setdefault("OMP_NUM_THREADS", "1")
        environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # The script's folder of event files, and whatever else it may write, go into the run's folder.
        return Child([*command, *command_line(self.config)], folder, environ)

    def _follow(self, child: Child) -> bool:
        """Report until the script has ended; whether it was made to."""
        while child.running:
            if self._session.stopping:
                return True
            self._progress.take(self._events.read())
            time.sleep(POLL_SECONDS)
        if child.code is not None and child.code < 0:
            time.sleep(POLL_SECONDS)  # a signal to the whole group may reach the script before it reaches us
        return bool(child.code) and self._session.stopping

    def _ended(self, child: Child, answer: Path) -> dict[str, Any]:
        """What the child found.

        Raises:
            ConfigError: it refused flags or environment.
            ScriptFailed: it did not end well.
        """
        child.wait()
        told: dict[str, Any] = json.loads(answer.read_text("utf-8")) if answer.exists() else {}
        if "problems" in told:
            raise ConfigError([Problem(path, message) for path, message in told["problems"]])
        if child.code != 0:
            how = f"exit code {child.code}" if (child.code or 0) >= 0 else f"signal {-(child.code or 0)}"
            last = "\n".join(child.last_lines)
            raise ScriptFailed(f"the script of {self.config.algo} ended with {how}; the last it printed:\n{last}")
        return told

    def _results(self, status: str) -> dict[str, Any]:
        config = self.config
        return {"status": status, "env_id": config.env_id, "algo": config.algo, "seed": config.seed}


class Progress:
    """Turns a script's scalars into heartbeats and episodes.

    Args:
        session: its step follows the scalars'.
    """

    def __init__(self, session: WorkerSession) -> None:
        self._session = session
        self._return: float | None = None

    def take(self, scalars: list[Scalar]) -> None:
        """In the order they were written. What belongs to one step is reported together, once it is all there."""
        for step, tag, value in scalars:
            name = tag.rpartition("/")[2]
            if step > self._session.step:
                if self._session.step:
                    self._session.heartbeat()
                self._session.step = step
            if name == "episodic_return":
                self.finish()
                self._return = value
            elif name == "episodic_length" and self._return is not None:
                self._session.episode(self._return, int(value))
                self._return = None
                self._session.metrics["episodic_length"] = value
            elif name != "SPS":  # the session has its own, which does not count the start
                self._session.metrics[name] = value
        if scalars:
            self._session.heartbeat()

    def finish(self) -> None:
        """No more is to come of an episode whose return is known."""
        if self._return is not None:
            self._session.episode(self._return, 0)
            self._return = None


class Child:
    """A child process whose output goes to stderr, the last lines of it remembered.

    Attributes:
        last_lines: of its output.
    """

    def __init__(self, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code, or minus the signal that ended it."""
        return self._process.returncode

    def wait(self) -> None:
        """Until it has ended, and all that it printed is there."""
        self._process.wait()
        self._reader.join(TERM_SECONDS)

    def end(self) -> None:
        """End it, if it still runs: SIGTERM, and SIGKILL where that is not enough."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(TERM_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()

    def _copy(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.last_lines.append(line.rstrip("\n"))
                sys.stderr.write(line)
                sys.stderr.flush()


__all__ = ["STARTS_ANEW", "Child", "Progress", "ScriptFailed", "ScriptRuntime"]
