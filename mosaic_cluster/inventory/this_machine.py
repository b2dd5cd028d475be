"""This machine as a cluster of one node, for runs without Ray."""

from __future__ import annotations

import os
import socket

import psutil

from mosaic_cluster.placement import ClusterView, NodeView

NODE_ID = "this-machine"


def view_of_this_machine(*, cpus_taken: float, memory_taken: int, taken_at: float) -> ClusterView:
    """One node with this machine's CPUs and memory, less what our own runs hold.

    Args:
        cpus_taken: CPUs held by our runs.
        memory_taken: bytes held by our runs.
        taken_at: unix time in seconds.
    """
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    memory = int(psutil.virtual_memory().total)
    node = NodeView(
        node_id=NODE_ID,
        name=socket.gethostname(),
        alive=True,
        draining=False,
        cpus=cpus,
        cpus_free=max(0.0, cpus - cpus_taken),
        memory=memory,
        memory_free=max(0, memory - memory_taken),
        gpus=(),
        labels={},
        is_head=True,
    )
    return ClusterView(nodes=(node,), taken_at=taken_at)
