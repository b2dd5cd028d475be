"""Placement: requests and a view of the cluster in, a plan out, or all reasons why not.

Pure: no I/O, no clock. GPU memory means bytes on *one* GPU. It becomes a share of that GPU's size, since Ray
knows GPUs by fraction only.
"""

from __future__ import annotations

from mosaic_cluster.placement.answers import Answer, Infeasible, Placement, Plan, Waiting
from mosaic_cluster.placement.planner import plan
from mosaic_cluster.placement.requests import Declares, Request, request_for
from mosaic_cluster.placement.view import ClusterView, Gpu, NodeView

__all__ = [
    "Answer",
    "ClusterView",
    "Declares",
    "Gpu",
    "Infeasible",
    "NodeView",
    "Placement",
    "Plan",
    "Request",
    "Waiting",
    "plan",
    "request_for",
]
