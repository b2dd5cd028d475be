"""The driver's side: a process for each bridge, started, watched, and ended in time whatever it does."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry.bridges import BRIDGES, FOLDER
from mosaic_cluster.telemetry.bridges.process import WRITTEN

GRACE_SECONDS = 20.0
POLL_SECONDS = 0.1
BACKOFF_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)
HEALTHY_SECONDS = 300.0
NOTICE_SECONDS = 2.0
LARGEST_LOG = 10 << 20

Notice = Callable[[str], None]


class Bridges:
    """Runs an experiment's bridges while it is entered. Nothing here raises, and leaving takes ``grace`` at most.

    Args:
        folder: the experiment's folder, or what stands in for it on this machine.
        storage: the experiment's folder in storage; default: ``folder``.
        wanted: options of each bridge, by name.
        notice: is told in a line what a person has to know.
        grace: seconds that bridges have at the end to write the rest.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Mapping[str, Mapping[str, Any]],
        *,
        storage: Storage | None = None,
        notice: Notice | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._notice = notice
        self._grace = grace
        self._all: list[_Process] = []
        location = str(folder) if storage is None else storage.location
        for name, options in wanted.items():
            missing = BRIDGES[name].missing()
            if missing is None:
                self._all.append(_Process(folder, location, name, options))
            else:
                self._say(f"bridge {name} is off: {missing}")
        self._over = threading.Event()
        self._hurry = threading.Event()
        # One thread for their whole life: Linux takes the end of the thread that started a process, not only that
        # of its process, for the parent's death.
        self._thread = threading.Thread(target=self._keep, name="bridges", daemon=True)

    def __enter__(self) -> Bridges:
        if self._all:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._all:
            return
        self._over.set()
        try:
            self._thread.join(NOTICE_SECONDS)
            busy = [process.name for process in self._all if process.alive]
            if self._thread.is_alive() and busy:
                self._say(f"waiting for {' and '.join(busy)}, {self._grace:.0f}s at most (Ctrl-C: not at all) ...")
            self._thread.join()
        except KeyboardInterrupt:
            self._hurry.set()
            self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._over.wait(POLL_SECONDS):
                for process in self._all:
                    process.turn()
            self._end()
        except Exception:
            logging.getLogger(__name__).exception("bridges are off")
        finally:
            for process in self._all:
                process.kill()

    def _end(self) -> None:
        deadline = time.monotonic() + self._grace
        for process in self._all:
            process.finish()
        while any(process.alive for process in self._all) and time.monotonic() < deadline:
            if self._hurry.wait(POLL_SECONDS):
                break
        for process in self._all:
            line = process.verdict(self._grace, hurried=self._hurry.is_set())
            if line is not None:
                self._say(line)

    def _say(self, line: str) -> None:
        if self._notice is not None:
            self._notice(line)


class _Process:
    """One bridge's process, over its restarts."""

    def __init__(self, folder: Path, location: str, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._folder = folder
        self._location = location
        self._options = options
        self._log = folder / FOLDER / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._started = 0.0
        self._again = 0.0
        self._refused: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs now, or is stopped."""
        return self._process is not None and self._process.poll() is None

    def turn(self) -> None:
        """Start it, or start it again when it is time."""
        now = time.monotonic()
        if self.alive:
            if self._failures and now - self._started > HEALTHY_SECONDS:
                self._failures = 0
            return
        if self._process is not None:
            self._gone()
            self._process = None
            if self._failures < len(BACKOFF_SECONDS):
                self._again = now + BACKOFF_SECONDS[self._failures]
            self._failures += 1
        if self._failures <= len(BACKOFF_SECONDS) and now >= self._again:
            self._start()

    def finish(self) -> None:
        """Nothing more comes: write the rest and end. One that lies down gets a last try."""
        if not self.alive:
            self._start()
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass

    def verdict(self, grace: float, *, hurried: bool) -> str | None:
        """After the end: what went wrong, in one line; ``None`` if all is written."""
        process = self._process
        if process is not None and process.poll() == WRITTEN:
            return None
        again = f"to go on: mosaic bridge {self._folder.name} {self.name}"
        if process is not None and process.poll() is None:
            self.kill()
            what = "was not waited for" if hurried else f"had not written everything after {grace:.0f}s, and was ended"
        else:
            what = f"failed: {self._refused or self._last_words()}"
        return f"bridge {self.name} {what}; the experiment has everything; {again} (its log: {self._log})"

    def kill(self) -> None:
        """End it at once, also if it is stopped. One that hangs in the kernel is left to that."""
        if self._process is None:
            return
        self._gone()
        if self._process.poll() is None:
            self._process.kill()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                logging.getLogger(__name__).warning("bridge %s cannot be killed", self.name)

    def _start(self) -> None:
        self._started = time.monotonic()
        # -P: a folder "wandb" in the working directory, which W&B leaves in many, is not the package.
        command = [sys.executable, "-P", "-m", "mosaic_cluster.telemetry.bridges.process"]
        where = [str(self._folder), self._location]
        arguments = [*where, self.name, json.dumps(dict(self._options)), str(os.getpid())]
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            full = self._log.exists() and self._log.stat().st_size > LARGEST_LOG
            with open(self._log, "wb" if full else "ab") as log:
                self._process = subprocess.Popen(
                    [*command, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            self._refused = f"cannot be started: {error}"
            self._failures += 1
            self._again = self._started + BACKOFF_SECONDS[-1]

    def _gone(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace")[-4000:].split("\n")
        except OSError as error:
            return str(error)
        code = None if self._process is None else self._process.poll()
        said = [line.strip() for line in lines if line.strip()]
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"{how}: {said[-1]}" if said and (code is None or code > 0) else how
