"""What a bridge to a tracker is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Setup:
    """Which experiment a bridge writes.

    Attributes:
        experiment_id: its id.
        name: as its spec names it.
        folder: the experiment's folder.
        log: takes a line for the bridge's log.
    """

    experiment_id: str
    name: str
    folder: Path
    log: Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run, as a tracker shows it.

    Attributes:
        label: short name: its trial and seed, or the experiment's name.
        config: what its worker was given.
        attempt: the attempt whose points come next.
        rows: log lines that were written to this tracker before.
    """

    run_id: str
    label: str
    config: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    rows: int = 0


@dataclass(frozen=True)
class Points:
    """Points of one attempt of one run, in the order reported. All columns are of one length.

    Attributes:
        first_row: number, within the run and this tracker, of the first log line.
        lines: byte offsets of the lines; points of one line follow each other.
        times: unix time in microseconds.
        values: may be NaN or infinite.
    """

    run_id: str
    attempt: int
    first_row: int
    lines: list[int]
    times: list[int]
    names: list[str]
    steps: list[int]
    values: list[float]

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self) -> Iterator[tuple[int, int, int, dict[str, float]]]:
        """Number, time, step and values by name, of one log line after the other."""
        columns = zip(self.lines, self.times, self.steps, self.names, self.values, strict=True)
        for number, ((_, time, step), points) in enumerate(
            groupby(columns, key=lambda point: point[:3]), self.first_row
        ):
            yield number, time, step, {name: value for *_, name, value in points}

    def row_count(self) -> int:
        """How many :meth:`rows` there are."""
        return sum(1 for _ in groupby(zip(self.lines, self.times, self.steps, strict=True)))


class Bridge(Protocol):
    """Writes points to one tracker. Made in a process of its own; whatever it raises ends that process only."""

    most_open: int
    """Runs that may be open at once: of more, those not written for longest are put aside."""

    settle_seconds: float
    """How often all open runs are put aside before :meth:`flush`, where it can only then do what it promises."""

    def declined(self, run_id: str) -> str | None:
        """Why this tracker is not to have this run; asked again and again. Called once more after a run's end."""

    def start(self, run: Run) -> str:
        """Begin a run, or take it up again; returns where it can be found: a path or URL."""

    def write(self, points: Points) -> None:
        """Take points of a run that is open."""

    def end(self, run_id: str, state: str | None) -> None:
        """Close a run: COMPLETED, FAILED or CANCELLED; ``None``: it is put aside, and more may come."""

    def flush(self) -> None:
        """Return once what was taken would survive the end of this process."""

    def close(self) -> None:
        """Nothing more comes; open runs have been ended before."""
