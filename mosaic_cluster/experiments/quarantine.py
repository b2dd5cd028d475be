"""Nodes that an experiment keeps off, because failures follow them and not a config. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.supervision import Outcome

EARLY_SECONDS = 60.0
EARLY_RUNS = 3
"""So many different runs that die in their first minute are the node's fault, if it lets none live."""

QUARANTINED, RELEASED = "node_quarantined", "node_released"

_SIGNS: Mapping[str, re.Pattern[str] | str] = {
    "its disk is full": re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded"),
    "an environment cannot be had there": "environment_failed",
    "something is missing there": re.compile(r"\b(?:ModuleNotFoundError|ImportError): |cannot open shared object file"),
    # Not what a config brings about: an assertion on the device, an illegal access, too little memory.
    "its GPU does not work": re.compile(
        r"no CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver|uncorrectable ECC|CUDA unknown error"
        r"|CUDA driver (?:initialization failed|error|version is insufficient)|CUDA-capable device\(s\) is/are busy"
        r"|CUDA error: (?:unknown error|initialization error|invalid device ordinal|no kernel image|hardware"
        r"|unspecified launch failure|system not yet initialized)"
        r"|CUDNN_STATUS_NOT_INITIALIZED|CUDA_ERROR_(?:NO_DEVICE|UNKNOWN|NOT_INITIALIZED|SYSTEM|ECC|HARDWARE)"
        r"|NVRM: Xid|GPU is lost|Unable to determine the device handle",
    ),
}
"""What gives a node away: words of a failure, or its code."""


@dataclass(frozen=True)
class Failure:
    """An attempt that failed.

    Attributes:
        lived: seconds it ran; at: unix time of its end.
        words: what it said last.
    """

    run_id: str
    worker: str
    node_id: str
    node_name: str
    code: str
    words: str
    lived: float
    at: float

    @classmethod
    def of(cls, run_id: str, worker: str, node_id: str, node_name: str, outcome: Outcome, at: float) -> Failure:
        """From how the attempt ended."""
        words = "\n".join([outcome.message, *outcome.stderr_tail])
        return cls(run_id, worker, node_id, node_name, outcome.code, words, outcome.duration, at)


@dataclass(frozen=True)
class Verdict:
    """What a failure says of its node.

    Attributes:
        blamed: whether the node is to blame, and not the run.
        kept: the node, if it is kept off from now on.
        released: nodes that are not any more, since the same failure came on another node: it follows the worker then.
    """

    blamed: bool = False
    kept: Kept | None = None
    released: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Kept:
    """A node that is kept off.

    Attributes:
        reason: one sentence.
        since: unix time in seconds.
        sign: what gave it away; empty: that runs died early on it.
        forgiven: failures, by run, that were the node's and not the run's.
    """

    node_id: str
    node_name: str
    reason: str
    since: float
    sign: str = ""
    forgiven: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """One entry of the status document."""
        return {"node_id": self.node_id, "node": self.node_name, "reason": self.reason, "since": self.since}


class Quarantine:
    """Which nodes an experiment keeps off, and why."""

    def __init__(self) -> None:
        self.nodes: dict[str, Kept] = {}
        self._early: dict[str, dict[str, int]] = {}
        self._signs: dict[tuple[str, str], set[str]] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """By node id."""
        return {node_id: kept.reason for node_id, kept in self.nodes.items()}

    def release(self, node_id: str) -> None:
        """Use a node again."""
        self.nodes.pop(node_id, None)

    def went_well(self, node_id: str) -> None:
        """A run ended well on a node, or lived on beyond its first minute: the node is not to blame for the others."""
        self._early.pop(node_id, None)

    def failed(self, failure: Failure, *, elsewhere: bool) -> Verdict:
        """Judge a failure.

        Args:
            failure: of an attempt that another attempt might end better than.
            elsewhere: whether the run could go to another node; the last one is never kept off.
        """
        node = failure.node_id
        if failure.lived < EARLY_SECONDS:
            early = self._early.setdefault(node, {})
            early[failure.run_id] = early.get(failure.run_id, 0) + 1
        sign = next((name for name, mark in _SIGNS.items() if _shows(failure, mark)), None)
        if sign is not None:
            seen = self._signs.setdefault((failure.worker, sign), set())
            seen.add(node)
            if len(seen) > 1:
                released = tuple(each for each in self.nodes.values() if each.sign == sign and each.node_id in seen)
                for each in released:
                    del self.nodes[each.node_id]
                return Verdict(released=released)
        if node in self.nodes:
            # It was on it already.
            return Verdict(blamed=sign is not None or failure.lived < EARLY_SECONDS)
        kept = self._judge(failure, sign) if elsewhere else None
        return Verdict(kept is not None, kept)

    def _judge(self, failure: Failure, sign: str | None) -> Kept | None:
        node = failure.node_id
        early = self._early.get(node, {})
        if sign is not None:
            forgiven = {failure.run_id: 1}
            why = f"{sign}: {_line_with(failure, _SIGNS[sign])}"
        elif len(early) >= EARLY_RUNS and not self._early_elsewhere(node):
            forgiven = dict(early)
            why = f"{len(early)} different runs died on it in their first minute, and none lived"
        else:
            return None
        kept = Kept(node, failure.node_name, why, failure.at, sign or "", forgiven)
        self.nodes[node] = kept
        self._early.pop(node, None)
        return kept

    def _early_elsewhere(self, node_id: str) -> bool:
        """Whether runs die as early on another node: then it is not the node."""
        return any(len(runs) >= EARLY_RUNS - 1 for other, runs in self._early.items() if other != node_id)

    def told(self) -> list[dict[str, Any]]:
        """For the status document."""
        return [kept.to_dict() for kept in self.nodes.values()]


def _shows(failure: Failure, mark: re.Pattern[str] | str) -> bool:
    return failure.code == mark if isinstance(mark, str) else mark.search(failure.words) is not None


def _line_with(failure: Failure, mark: re.Pattern[str] | str) -> str:
    """The line that says it; of a code, the outcome's own message, which comes first."""
    lines: Sequence[str] = [line.strip() for line in failure.words.splitlines() if line.strip()]
    found = lines[:1] if isinstance(mark, str) else [line for line in lines if mark.search(line)]
    return found[-1][:200] if found else "see the run's stderr"
