"""A Ray cluster of many nodes on this machine, with pretend GPUs: for trying specs, and for tests."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from mosaic_cluster.inventory import (
    AGENT_SLOTS_LABEL,
    GPU_MEMORY_LABEL,
    GPU_MODEL_LABEL,
    NODE_NAME_LABEL,
    nodes_of,
    parse_nodes_table,
)
from mosaic_cluster.placement import ClusterView, NodeView
from mosaic_cluster.worker.errors import BackendError, InvalidInput, Problem

if TYPE_CHECKING:
    from ray._private.node import Node

# Not .1: for that Ray puts the address that other machines reach it by.
LOOPBACK = "127.0.0.2"
HEAD = "head"
MOST_NODES = 64
OBJECT_STORE = 80_000_000
START_SECONDS = 120.0

# A dead node is noticed in 2 to 3 seconds; by default it takes Ray a quarter of a minute.
NOTICE_FAST = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


class SimulatedCluster:
    """Nodes as a nodes table or a cluster file describes them, beside a head that takes no work.

    It is reached over loopback only; some of Ray's ports listen on every interface all the same, and a token keeps
    others out. A context manager; its end ends all of Ray that it started.

    Args:
        cluster: a nodes table, or a view whose nodes are to be pretended.
        system_config: Ray's own settings, over :data:`NOTICE_FAST`.

    Attributes:
        address: where Ray is reached, ``127.0.0.2:PORT``.
        env: variables that a process needs to join: ``RAY_ADDRESS``, ``RAY_AUTH_MODE``, a token's path.

    Raises:
        InvalidInput: nodes that cannot be pretended.
        BackendError: Ray does not start.
    """

    def __init__(self, cluster: str | ClusterView, *, system_config: Mapping[str, Any] | None = None) -> None:
        nodes = nodes_of(parse_nodes_table(cluster)) if isinstance(cluster, str) else cluster.nodes
        _check(nodes)
        # Short: Ray's sockets lie in it, and their paths may have 107 characters.
        self._folder = tempfile.mkdtemp(prefix="mc-", dir="/tmp")
        self.env = _set_environment(Path(self._folder))
        logging.getLogger("ray").setLevel(logging.ERROR)
        self.address = ""
        self._nodes: dict[str, Node] = {}
        self._cluster: Any = None
        try:
            self._start(nodes, {**NOTICE_FAST, **(system_config or {})})
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise BackendError(f"cannot start a simulated cluster: {error}") from error
            raise
        self.env["RAY_ADDRESS"] = self.address

    def _start(self, nodes: tuple[NodeView, ...], system_config: dict[str, Any]) -> None:
        # Not sooner: Ray reads how to authenticate when it is loaded.
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **self._common(),
                "num_cpus": 0,
                "memory": 1 << 30,
                "labels": {NODE_NAME_LABEL: HEAD},
                "include_dashboard": False,
                "_system_config": system_config,
            },
        )
        for node in nodes:
            # All at once: each takes seconds until it answers.
            self._nodes[node.name] = self._cluster.add_node(wait=False, **self._common(), **_node_args(node))
        self._cluster.wait_for_nodes(timeout=START_SECONDS)
        self.address = str(self._cluster.address)

    def _common(self) -> dict[str, Any]:
        return {
            "node_ip_address": LOOPBACK,
            "object_store_memory": OBJECT_STORE,
            "temp_dir": str(Path(self._folder, "ray")),
        }

    @property
    def names(self) -> list[str]:
        """Names of the nodes that live, without the head."""
        return [name for name in self._nodes if self.pid(name) is not None]

    def pid(self, name: str) -> int | None:
        """Process id of a node's raylet, the ancestor of all that runs on it; ``None`` if it is dead."""
        process = _raylet(self._nodes[name])
        return process.pid if process.poll() is None else None

    def kill(self, name: str) -> None:
        """Kill a node and all that runs on it at once, as a power cut does."""
        process = _raylet(self._nodes[name])
        if process.poll() is None:
            _kill_tree(process.pid)
            process.wait()

    def look_after(self) -> None:
        """Take note of nodes that somebody has killed. Until then they are zombies, which Ray takes for alive."""
        for node in self._nodes.values():
            _raylet(node).poll()

    def close(self) -> None:
        """End all of it."""
        try:
            if self._cluster is not None:
                self._cluster.shutdown()
        except Exception:  # Ray asserts that killed nodes have left nothing; what they have is ended below
            logging.getLogger(__name__).debug("shutdown of a simulated cluster", exc_info=True)
        self._cluster = None
        _kill_all_of(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> SimulatedCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(nodes: tuple[NodeView, ...]) -> None:
    problems = []
    if not 1 <= len(nodes) <= MOST_NODES:
        problems.append(Problem("", f"{len(nodes)} nodes; one machine can pretend 1 to {MOST_NODES}"))
    for node in nodes:
        models = {(gpu.model, gpu.memory) for gpu in node.gpus}
        if len(models) > 1:
            problem = "mixes models of GPUs, which labels cannot tell apart; pretend one node for each model"
            problems.append(Problem(node.name, problem))
    if problems:
        raise InvalidInput(problems, "cannot simulate this cluster")


def _set_environment(folder: Path) -> dict[str, str]:
    """Ray reads these once in each process, when it is loaded. Returns what others need to join."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Where Ray notes its latest cluster: ours is none that `auto` should find.
    os.environ["RAY_TMPDIR"] = str(folder)
    folder.joinpath("ray").mkdir()
    os.environ.pop("RAY_ADDRESS", None)
    if "RAY_AUTH_MODE" not in os.environ and "ray" in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "disabled"  # as Ray read it when it was loaded
    elif "RAY_AUTH_MODE" not in os.environ:
        # Others on this machine reach loopback, too.
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    named = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
    return {name: os.environ[name] for name in named if name in os.environ}


def _node_args(node: NodeView) -> dict[str, Any]:
    labels = {**node.labels, NODE_NAME_LABEL: node.name}
    resources = {}
    if node.gpus:
        first = node.gpus[0]
        if first.model is not None:
            model = re.sub(r"[^A-Za-z0-9._]+", "-", first.model).strip("-")
            labels.setdefault(GPU_MODEL_LABEL, model)
            resources[f"accelerator_type:{model}"] = 1
        if first.memory is not None:
            labels.setdefault(GPU_MEMORY_LABEL, str(first.memory))
    if node.agent_slots is not None:
        labels.setdefault(AGENT_SLOTS_LABEL, str(node.agent_slots))
    return {
        "num_cpus": int(node.cpus) if node.cpus.is_integer() else node.cpus,
        "num_gpus": len(node.gpus),
        "memory": node.memory,
        "labels": labels,
        "resources": resources,
    }


def _raylet(node: Node) -> Any:
    return node.all_processes["raylet"][0].process


def _kill_tree(pid: int) -> None:
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def _kill_all_of(folder: str) -> None:
    """Kill what was started with a path of ``folder``, which no other cluster has."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(folder in part for part in process.cmdline()):
                process.kill()
        except psutil.Error:
            continue
