"""Placement: requests and a view of the cluster in, a plan out, or all reasons why not.

Pure: no I/O, no clock. GPU memory means bytes on *one* GPU. It becomes a share of that GPU's size, since Ray
knows GPUs by fraction only.
"""

from __future__ import annotations

from mosaic_cluster.placement.answers import Answer, Infeasible, Placement, Plan, Waiting
from mosaic_cluster.placement.planner import Planner
from mosaic_cluster.placement.populations import split_agents
from mosaic_cluster.placement.queueing import plan
from mosaic_cluster.placement.requests import Declares, Request, request_for
from mosaic_cluster.placement.view import AGENTS_PER_CPU, ClusterView, Gpu, Holding, NodeType, NodeView

__all__ = [
    "AGENTS_PER_CPU",
    "Answer",
    "ClusterView",
    "Declares",
    "Gpu",
    "Holding",
    "Infeasible",
    "NodeType",
    "NodeView",
    "Placement",
    "Plan",
    "Planner",
    "Request",
    "Waiting",
    "plan",
    "request_for",
    "split_agents",
]
