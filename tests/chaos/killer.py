"""Kills, at random moments, whatever takes part in an experiment."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

KINDS = ("hub", "actor", "supervisor", "worker")
FIND_SECONDS = 300.0
END_SECONDS = 15.0
COMMIT_SECONDS = 5.0
TITLES = {"hub": "ray::HubActor", "actor": "ray::WorkerActor"}


class Targets:
    """Finds the processes of one experiment on one cluster, and never anybody else's.

    Args:
        cluster: the process that all of the cluster's others descend from.
        results: the storage; it holds one experiment.
    """

    def __init__(self, cluster: int, results: Path) -> None:
        self._cluster = cluster
        self._results = results

    def of(self, kind: str) -> list[psutil.Process]:
        """Living processes of a kind, in the order of their pids."""
        found = self._actors(TITLES[kind]) if kind in TITLES else self._of_runs(kind)
        return sorted(found, key=lambda process: process.pid)

    def _actors(self, title: str) -> Iterator[psutil.Process]:
        for process in psutil.Process(self._cluster).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title) and _lives(process):
                    yield process
            except (psutil.Error, OSError, IndexError):
                continue

    def _of_runs(self, kind: str) -> Iterator[psutil.Process]:
        """Their environment says of which run they are."""
        runs = {path.name for path in self._results.glob("*/runs/*")}
        for process in psutil.process_iter():
            try:
                values = process.environ()
                supervises = values.get("MOSAIC_SUPERVISES", "").partition("/")[0]
                run = supervises if kind == "supervisor" else "" if supervises else values.get("MOSAIC_RUN_ID", "")
                if run in runs and _lives(process):
                    yield process
            except (psutil.Error, OSError):
                continue

    def files(self) -> int:
        """How many files the hubs have written or begun."""
        return sum(1 for _ in self._results.glob("*/telemetry/*/*"))

    def of_runs(self) -> list[psutil.Process]:
        """Supervisors and workers: what may outlive cluster and driver for a moment."""
        return [*self.of("supervisor"), *self.of("worker")]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


class Killer:
    """Sends SIGKILL, makes sure that it landed, and keeps a list.

    Args:
        targets: whom.
        draw: every choice comes from it.
        log: one JSON object a line, for each signal.
        say: is told each.
    """

    def __init__(self, targets: Targets, draw: random.Random, log: Path, say: Callable[[str], None]) -> None:
        self.targets = targets
        self.draw = draw
        self._log = log
        self._say = say
        self._begun = time.monotonic()

    def kill(self, *kinds: str) -> None:
        """One of each of these kinds, all at once as far as there can be such a thing."""
        victims: list[tuple[str, psutil.Process]] = []
        for kind in kinds:
            victims.append((kind, self.find(kind, {process.pid for _, process in victims})))
        if "hub" in kinds and self.draw.random() < 0.5:
            self._wait_for_a_commit()
        missed = [kind for kind, process in victims if not self._kill(kind, process)]
        for kind, process in victims:
            psutil.wait_procs([process], timeout=END_SECONDS)
            assert not _lives(process), f"{kind} {process.pid} survived kill -9"
        for kind in missed:  # it had gone before: another one then
            self.kill(kind)

    def _wait_for_a_commit(self) -> None:
        """Most commits last some milliseconds: by chance alone, hardly any kill would fall between two files of one."""
        before, end = self.targets.files(), time.monotonic() + COMMIT_SECONDS
        while self.targets.files() == before and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(self.draw.choice([0.0, self.draw.uniform(0.0, 0.02)]))

    def _kill(self, kind: str, process: psutil.Process) -> bool:
        if not _lives(process) or not self._send(process, signal.SIGKILL):
            return False
        self.note(kind, process.pid, "SIGKILL")
        return True

    def kill_hub_twice(self) -> None:
        """The hub, and the next one as soon as it is there, or soon after."""
        self.kill("hub")
        self.find("hub", set())
        time.sleep(self.draw.choice([0.0, 0.0, self.draw.uniform(0.0, 2.0)]))
        self.kill("hub")

    def freeze_hub(self, seconds: float) -> None:
        """A hub that does not answer for a while, and then goes on as if nothing had been."""
        process = self.find("hub", set())
        if self._send(process, signal.SIGSTOP):
            self.note("hub", process.pid, "SIGSTOP")
            try:
                time.sleep(seconds)
            finally:
                self._send(process, signal.SIGCONT)

    def find(self, kind: str, but: set[int]) -> psutil.Process:
        """One of a kind; waits until there is one."""
        end = time.monotonic() + FIND_SECONDS
        while time.monotonic() < end:
            found = [process for process in self.targets.of(kind) if process.pid not in but]
            if found:
                return self.draw.choice(found)
            time.sleep(0.1)
        raise AssertionError(f"there has been no {kind} to kill for {FIND_SECONDS:g} s")

    def _send(self, process: psutil.Process, number: int) -> bool:
        try:
            process.send_signal(number)  # psutil knows when a pid has become another's
        except psutil.NoSuchProcess:
            return False
        return True

    def note(self, kind: str, pid: int, name: str) -> None:
        """Put a signal on the list."""
        at = round(time.monotonic() - self._begun, 3)
        entry: dict[str, Any] = {"at": at, "kind": kind, "pid": pid, "signal": name}
        with self._log.open("a") as log:
            log.write(json.dumps(entry) + "\n")
        self._say(f"{at:7.1f} s  {name} to {kind} {pid}")

    def kill_driver(self, pid: int) -> None:
        """The process of `mosaic run`, a child of ours."""
        os.kill(pid, signal.SIGKILL)
        self.note("driver", pid, "SIGKILL")


def deck(draw: random.Random, kills: dict[str, int]) -> list[tuple[str, ...]]:
    """Who dies when: groups of kinds that die at once, in a random order that holds each as often as asked."""
    kinds = [kind for kind, count in kills.items() for _ in range(count)]
    draw.shuffle(kinds)
    groups: list[tuple[str, ...]] = []
    while kinds:
        group = kinds[: draw.choice([1, 1, 1, 2, 2, 4])]
        kinds = kinds[len(group) :]
        # There is one hub: a second one in a group waits for its turn.
        kinds += ["hub"] * (group.count("hub") - 1)
        groups.append(tuple(kind for place, kind in enumerate(group) if kind != "hub" or "hub" not in group[:place]))
    return groups
