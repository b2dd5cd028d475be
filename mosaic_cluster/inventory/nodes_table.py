"""A cluster in one line: ``4x(8cpu,2xA100-40GB),2x(4cpu,1xRTX4090)``.

Groups of nodes, each ``COUNTx(ITEMS)`` or ``(ITEMS)``. Items: CPUs (``8cpu``), host memory (``64GiB``), GPUs
(``2xA100-40GB``, ``1xRTX4090``), agent slots (``agents=500``), a name (``name=big``), and labels (``zone=a``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mosaic_cluster.inventory.groups import MOST_NODES, GpuKind, NodeGroup
from mosaic_cluster.placement.accelerators import known_accelerator, stated_size
from mosaic_cluster.specs.problems import shown
from mosaic_cluster.units import parse_bytes
from mosaic_cluster.worker.errors import InvalidInput, Problem

EXAMPLE = "4x(8cpu,2xA100-40GB),2x(4cpu,64GiB,1xRTX4090)"
_ITEMS = (
    "give CPUs (8cpu), memory (64GiB), GPUs (2xA100-40GB, 1xRTX4090), agent slots (agents=500), a name (name=big) "
    "or a label (zone=a)"
)
_GROUP = re.compile(r"\s*(?:(\d+)\s*[xX×*]\s*)?\(")
_CPUS = re.compile(r"(\d+(?:\.\d+)?)\s*cpus?", re.IGNORECASE)
_GPUS = re.compile(r"(\d+)\s*[xX×*]\s*(\S.*)")
_MEMORY = re.compile(r"[\d.]+\s*[A-Za-z]+")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
MOST_GPUS = 1024


def is_nodes_table(text: str) -> bool:
    """Whether this is meant as a nodes table, and not as a file's name."""
    return "(" in text


def parse_nodes_table(text: str, heading: str | None = None) -> list[NodeGroup]:
    """Read a nodes table.

    Returns:
        One group for each ``COUNTx(...)``, in order. Memory that is not given is ``None``.

    Raises:
        InvalidInput: with every problem, each with the column it begins in, counted from 1.
    """
    groups, problems, place = [], [], 0
    while True:
        found = _GROUP.match(text, place)
        if found is None:
            problems.append(_problem(place, f"{_given(text[place:])} is no group of nodes; write them as in {EXAMPLE}"))
            break
        end = text.find(")", found.end())
        if end < 0:
            problems.append(_problem(found.end() - 1, "this bracket is never closed; add )"))
            break
        reader = _Reader(NodeGroup(count=int(found[1] or 1)))
        if not 1 <= reader.group.count <= MOST_NODES:
            problems.append(_problem(place, f"{found[1]} nodes; give 1 to {MOST_NODES:,}"))
        reader.read(text, found.end(), end)
        groups.append(reader.group)
        problems += reader.problems
        rest = re.compile(r"\s*(,?)\s*").match(text, end + 1)
        assert rest is not None
        place = rest.end()
        if place == len(text) and not rest[1]:
            break
        if not rest[1]:
            problems.append(_problem(place, "groups of nodes are parted by commas; put one here"))
            break
    if problems:
        raise InvalidInput(problems, heading or "nodes table")
    return groups


@dataclass
class _Reader:
    """Reads the items of one group."""

    group: NodeGroup
    problems: list[Problem] = field(default_factory=list)

    def read(self, text: str, place: int, end: int) -> None:
        """The items between two brackets."""
        seen: dict[str, str] = {}
        for item in text[place:end].split(","):
            at = place + len(item) - len(item.lstrip())
            place += len(item) + 1
            try:
                what = self._take(item.strip())
            except ValueError as error:
                self.problems.append(_problem(at, str(error)))
                continue
            if what in seen:
                message = f"{shown(item.strip())} gives {what} a second time, after {shown(seen[what])}; keep one"
                self.problems.append(_problem(at, message))
            elif what:
                seen[what] = item.strip()

    def _take(self, item: str) -> str:
        """Take one item; returns what may be given only once."""
        for shape, take in self._shapes():
            found = shape.fullmatch(item)
            if found is not None:
                return take(found)
        if "=" in item:
            return self._setting(*(part.strip() for part in item.split("=", 1)))
        raise ValueError(f"{_given(item)} is not understood; {_ITEMS}")

    def _shapes(self) -> tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]:
        return (_CPUS, self._cpus), (_GPUS, self._gpus), (_MEMORY, self._memory)

    def _cpus(self, found: re.Match[str]) -> str:
        self.group = replace(self.group, cpus=float(found[1]))
        return "cpus"

    def _memory(self, found: re.Match[str]) -> str:
        try:
            self.group = replace(self.group, memory=parse_bytes(found[0]))
        except ValueError:
            raise ValueError(f"{shown(found[0])} is not understood; {_ITEMS}") from None
        return "memory"

    def _gpus(self, found: re.Match[str]) -> str:
        count, name = int(found[1]), found[2].strip()
        if not 1 <= count <= MOST_GPUS:
            raise ValueError(f"{count} GPUs; give 1 to {MOST_GPUS}")
        memory = stated_size(name)
        if memory is None and known_accelerator(name) is None:
            raise ValueError(f"nothing is known of the GPU {shown(name)}; give its memory too: {found[0]}-24GB")
        self.group = replace(self.group, gpus=(*self.group.gpus, GpuKind(name, count, memory)))
        return ""

    def _setting(self, name: str, value: str) -> str:
        if not value:
            raise ValueError(f"{shown(name)} has no value; write {name or 'zone'}=VALUE")
        if name == "agents":
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"{shown(value)} agent slots; give a whole number, e.g. agents=500")
            self.group = replace(self.group, agent_slots=int(value))
        elif _LABEL.fullmatch(name) is None or _LABEL.fullmatch(value) is None:
            raise ValueError(
                f"{shown(f'{name}={value}')} is no label; its parts have letters, digits, '.', '_', '-' and '/'"
            )
        elif name == "name":
            self.group = replace(self.group, name=value)
        else:
            self.group = replace(self.group, labels={**self.group.labels, name: value})
        return name


def _given(text: str) -> str:
    return shown(text.strip()) if text.strip() else "nothing"


def _problem(place: int, message: str) -> Problem:
    return Problem(f"column {place + 1}", message)
