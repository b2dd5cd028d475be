"""A Ray cluster on this machine that starts and ends nodes by itself, with pretend GPUs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from support import FIXTURES, Cluster, environment, free_port, kill_tree, private, wait_for

# Not .1: for that Ray puts the address that other machines reach it by.
LOOPBACK = "127.0.0.2"
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""Ray's name for the head of a cluster with fake nodes."""


def gpu_type(model: str, gib: int, most: int, cpus: int = 4, gpus: int = 1) -> dict[str, Any]:
    """A kind of node, as an autoscaler's config has it.

    Args:
        gib: GiB of each GPU.
        most: nodes of it at once.
    """
    return {
        "resources": {"CPU": cpus, "GPU": gpus, "memory": 4_000_000_000},
        "labels": {"mosaic/gpu-model": model, "mosaic/gpu-memory": str(gib << 30)},
        "node_config": {},
        "min_workers": 0,
        "max_workers": most,
    }


@contextmanager
def autoscaling_cluster(
    types: Mapping[str, Mapping[str, Any]], *packages: Path, idle_minutes: float = 0.1, **more: str
) -> Iterator[Cluster]:
    """A head without CPUs or GPUs, and an autoscaler that knows kinds of nodes.

    Args:
        types: kinds by name: see :func:`gpu_type`.
        packages: folders with workers that the nodes see.
        idle_minutes: after which a node that does nothing is ended.
        more: environment variables of the cluster and of ``env``.
    """
    # Short: Ray's sockets lie in it, and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    port, metrics_port = free_port(), free_port()
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(types, idle_minutes, f"{LOOPBACK}:{port}")))
    env = environment(*packages, FIXTURES / "autoscaling", **private(), RAY_USAGE_STATS_ENABLED="0", **more)
    autoscaler = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "AUTOSCALER_METRIC_PORT": str(free_port())}
    head_env = {**env, "RAY_FAKE_CLUSTER": "1", **autoscaler}
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--node-ip-address={LOOPBACK}",
        f"--port={port}", f"--metrics-export-port={metrics_port}", "--num-cpus=0", "--num-gpus=0",
        "--memory=1000000000", "--object-store-memory=80000000", "--include-dashboard=false",
        f"--temp-dir={folder}", f"--autoscaling-config={config}",
    ]  # fmt: skip
    log = folder / "start.log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, env=head_env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, 90, "ray start")
        assert process.poll() is None, log.read_text()
        yield Cluster(f"{LOOPBACK}:{port}", env, process.pid, metrics_port)
    finally:
        kill_tree(process.pid)
        process.wait()
        _kill_all_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _config(types: Mapping[str, Any], idle_minutes: float, address: str) -> dict[str, Any]:
    head = {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": sum(kind["max_workers"] for kind in types.values()),
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": 100,
        "provider": {
            "type": "external",
            "module": "loopback_nodes.LoopbackNodes",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, **types},
        "head_node_type": "ray.head.default",
        # Ray wants to see these, and has no use for them here.
        **{name: {} for name in ("auth", "docker", "head_node", "worker_nodes", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{name: [] for name in ("initialization_commands", "setup_commands")},
        **{f"{kind}_{name}": [] for kind in ("head", "worker") for name in ("setup_commands", "start_ray_commands")},
        "file_mounts_sync_continuously": False,
    }


def _kill_all_of(folder: Path) -> None:
    """Nodes that were ended or started while the tree was killed."""
    for process in psutil.process_iter():
        try:
            if any(str(folder) in part for part in process.cmdline()):
                process.kill()
        except psutil.Error:
            continue
