"""Ray clusters of many nodes on this machine, with pretend GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from support import environment, kill_tree, private, wait_for


@dataclass(frozen=True)
class SimulatedNode:
    """One node of a simulated cluster."""

    name: str
    pid: int

    def kill(self) -> None:
        """Kill it and all that runs on it at once, as a power cut does."""
        kill_tree(self.pid)

    def alive(self) -> bool:
        """Whether its raylet lives."""
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Simulated:
    """A running simulated cluster.

    Attributes:
        address: where Ray is reached.
        env: environment of commands that use it.
        nodes: by name; the head is not among them.
        pid: of the process that keeps it up.
    """

    address: str
    env: dict[str, str]
    nodes: dict[str, SimulatedNode]
    pid: int


@contextmanager
def simulated_cluster(nodes: str, *packages: Path, **more: str) -> Iterator[Simulated]:
    """``mosaic cluster simulate`` in the background, whose nodes see the workers in ``packages``.

    Args:
        nodes: a nodes table, or the path of a cluster file.
        more: environment variables of the cluster and of ``env``.
    """
    env = environment(*packages, **private(), RAY_USAGE_STATS_ENABLED="0", **more)
    process, told = _begin(nodes, env)
    try:
        made = {name: SimulatedNode(name, pid) for name, pid in told["nodes"].items()}
        yield Simulated(told["address"], {**env, **told["env"]}, made, process.pid)
    finally:
        end(process)


def _begin(nodes: str, env: dict[str, str]) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A cluster that has started. Ray gives each node half a minute, which a busy machine may not keep: three tries."""
    command = [sys.executable, "-m", "mosaic_cluster.cli", "cluster", "simulate", "--json", "--nodes", nodes]
    pipe, said = subprocess.PIPE, ""
    for _ in range(3):
        process = subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if line:
            return process, json.loads(line)
        said = process.stderr.read()
        end(process)
    raise AssertionError(f"no simulated cluster: {said}")


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, which cleans up; what is left after that is killed."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        try:
            wait_for(lambda: process.poll() is not None, 30, "a simulated cluster to end")
        finally:
            kill_tree(process.pid)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
