"""What placement answers: a place, a wait, or never; and the plan that holds one answer a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from mosaic_cluster.placement.sentences import Sentences
from mosaic_cluster.units import format_bytes, format_number


class _Answer:
    answer: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``answer`` is ``placed``, ``waiting`` or ``infeasible``."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        plain = {name: list(value) if isinstance(value, tuple | Sentences) else value for name, value in named.items()}
        return {"answer": self.answer, **plain}


@dataclass(frozen=True)
class Placement(_Answer):
    """A run's place.

    Attributes:
        node_id: the node.
        node_name: its name, for people.
        cpus: CPUs, in steps of 1/10,000.
        memory: bytes of host memory; ``None``: none reserved.
        gpus: what Ray is asked for: a whole number of GPUs, or a fraction of one, rounded up to 1/10,000.
        gpu_memory: bytes the run may use on each GPU; ``None``: all of it.
        reasons: why this node.
        gpu_indices: the GPUs meant, by their number on the node. Ray chooses itself: these are the ones it would take.
        agents: agent slots it takes.
        accelerator: model of its GPUs, where that is known, and all GPUs of the node are of one.
        gang: of which gang it is; empty: none.
    """

    answer: ClassVar[str] = "placed"
    run_id: str
    node_id: str
    node_name: str
    cpus: float
    memory: int | None = None
    gpus: float = 0.0
    gpu_memory: int | None = None
    reasons: Sequence[str] = ()
    gpu_indices: tuple[int, ...] = ()
    agents: int = 1
    accelerator: str | None = None
    gang: str = ""

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Placement:
        """The way back from :meth:`to_dict`; keys of a later version are ignored."""
        known = {item.name: document[item.name] for item in fields(cls) if item.name in document}
        for name in ("reasons", "gpu_indices"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)

    def resources(self) -> str:
        """What it takes, for people: ``2 CPUs, 4GiB, 0.4167 GPU (10GiB)``."""
        parts = [f"{format_number(self.cpus)} CPU{'' if self.cpus == 1 else 's'}"]
        if self.memory:
            parts.append(f"{format_bytes(self.memory)} of memory")
        if self.gpus:
            share = f" ({format_bytes(self.gpu_memory)} of its memory)" if self.gpu_memory else ""
            parts.append(f"{format_number(self.gpus)} GPU{'s' if self.gpus > 1 else ''}{share}")
        return ", ".join(parts)

    def lines(self) -> list[str]:
        """For people."""
        return [f"run {self.run_id}: on {self.node_name} with {self.resources()}", *_indented(self.reasons)]


@dataclass(frozen=True)
class Waiting(_Answer):
    """It would fit an idle node, or one that could be started, but none has room now.

    Attributes:
        reasons: one sentence for each class of nodes that could run it.
        launch: name of the kind of node whose start would make room for it; ``None``: it waits for nodes there are.
    """

    answer: ClassVar[str] = "waiting"
    run_id: str
    reasons: tuple[str, ...]
    launch: str | None = None

    def lines(self) -> list[str]:
        """For people."""
        return [f"run {self.run_id}: waits", *_indented(self.reasons)]


@dataclass(frozen=True)
class Infeasible(_Answer):
    """No node of this cluster could ever run it.

    Attributes:
        reasons: each demand that is too large, with the largest there is and what to lower it to.
    """

    answer: ClassVar[str] = "infeasible"
    run_id: str
    reasons: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        return [f"run {self.run_id}: can never run on this cluster", *_indented(self.reasons)]


Answer = Placement | Waiting | Infeasible
_KINDS: dict[str, type[Waiting] | type[Infeasible]] = {"waiting": Waiting, "infeasible": Infeasible}


@dataclass(frozen=True)
class Plan:
    """One answer for each request, in the order they were asked.

    Attributes:
        taken_at: unix time of the cluster view it was made for, in seconds.
    """

    answers: tuple[Answer, ...]
    taken_at: float

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The requests that have a place."""
        return tuple(answer for answer in self.answers if isinstance(answer, Placement))

    def lines(self) -> list[str]:
        """The plan in words, one or more lines a request."""
        return [line for answer in self.answers for line in answer.lines()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"answers": [answer.to_dict() for answer in self.answers], "taken_at": self.taken_at}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """The way back from :meth:`to_dict`."""
        answers: list[Answer] = []
        for entry in document["answers"]:
            kind = _KINDS.get(entry["answer"])
            if kind is None:
                answers.append(Placement.from_dict(entry))
            else:
                known = {item.name: entry[item.name] for item in fields(kind) if item.name in entry}
                answers.append(kind(**{**known, "reasons": tuple(entry["reasons"])}))
        return cls(tuple(answers), float(document["taken_at"]))


def _indented(reasons: Sequence[str]) -> list[str]:
    return [f"  {reason}" for reason in reasons]
