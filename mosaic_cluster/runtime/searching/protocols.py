"""What a sweep asks of a searcher and of a scheduler, as plain data. No Ray here."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # every actor of a cluster imports this module, and none reads specs
    from mosaic_cluster.specs.space import Space

CONTINUE, STOP, PAUSE, EXPLOIT = "continue", "stop", "pause", "exploit"


@dataclass(frozen=True)
class Decision:
    """What becomes of one trial.

    Attributes:
        action: ``continue``, ``stop``, ``pause``, or ``exploit``: go on from another trial's checkpoint,
            with changed settings.
        source: that other trial.
        params: the changed settings, by dotted name.
    """

    trial: str
    action: str
    source: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, what is not set left out."""
        found: dict[str, Any] = {"trial": self.trial, "action": self.action}
        if self.source is not None:
            found |= {"source": self.source, "params": dict(self.params)}
        return found

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Decision:
        """The way back."""
        return cls(document["trial"], document["action"], document.get("source"), dict(document.get("params") or {}))


@dataclass(frozen=True)
class Suggestion:
    """A configuration to try.

    Attributes:
        part: index of the worker it is for.
        params: by dotted name.
    """

    part: int
    params: Mapping[str, Any]


class Searcher(Protocol):
    """Suggests configurations. Told the same in the same order, it suggests the same."""

    def suggest(self, trial: str) -> Suggestion | None:
        """The next configuration; ``None`` when there are no more."""

    def report(self, trial: str, rung: int, score: float) -> None:
        """A trial reached a rung (counted from 1)."""

    def complete(self, trial: str, score: float | None, *, failed: bool = False) -> None:
        """A trial is over; ``None``: it has no score."""


class Scheduler(Protocol):
    """Decides at rungs. Told the same in the same order, it decides the same."""

    eager: bool
    """Whether it wants all trials before the first result."""

    def add(self, trial: str, params: Mapping[str, Any]) -> None:
        """A new trial, waiting."""

    def choose(self) -> str | None:
        """The waiting or paused trial to start next; ``None`` if none should be."""

    def started(self, trial: str) -> None:
        """A trial is under way (again)."""

    def report(self, trial: str, rung: int, score: float) -> list[Decision]:
        """A trial reached a rung (counted from 1) and is not at its end."""

    def complete(self, trial: str, score: float | None) -> list[Decision]:
        """A trial is over."""

    def fail(self, trial: str) -> list[Decision]:
        """A trial is over without a score."""


@dataclass(frozen=True)
class SearchSetup:
    """What a search is about.

    Attributes:
        kind: ``random``, ``grid`` or ``optuna``.
        parts: the space of each worker.
        samples: how many configurations; ``None``: all there are.
        mode: ``max`` or ``min``.
    """

    kind: str
    seed: int
    parts: tuple[Space, ...]
    samples: int | None
    mode: str


@dataclass(frozen=True)
class SchedulerSetup:
    """What a scheduler is about.

    Attributes:
        kind: ``none``, ``asha``, ``hyperband`` or ``pbt``.
        mode: ``max`` or ``min``.
        rungs: how many there are.
        options: settings of the kind; what is left out has its default.
        space: what is varied; pbt changes it as it goes.
        seed: of its random choices.
    """

    kind: str
    mode: str
    rungs: int
    options: Mapping[str, Any]
    space: Space
    seed: int


class RandomSearch:
    """Independent draws. Several workers take turns, so that each gets as many as the others (or one less).

    The n-th configuration depends on the seed and n alone: more samples later are more of the same row.
    """

    def __init__(self, setup: SearchSetup) -> None:
        self._setup = setup
        self._next = 0

    def suggest(self, trial: str) -> Suggestion | None:
        """See :class:`Searcher`."""
        del trial
        if self._setup.samples is not None and self._next >= self._setup.samples:
            return None
        number, self._next = self._next, self._next + 1
        part = number % len(self._setup.parts)
        rng = random.Random(f"mosaic sweep {self._setup.seed} {number}")
        return Suggestion(part, self._setup.parts[part].sample(rng))

    def report(self, trial: str, rung: int, score: float) -> None:
        """Draws do not depend on results."""

    def complete(self, trial: str, score: float | None, *, failed: bool = False) -> None:
        """Draws do not depend on results."""


class GridSearch:
    """Every combination once, worker by worker."""

    def __init__(self, setup: SearchSetup) -> None:
        self._combinations: Iterator[Suggestion] = (
            Suggestion(index, params) for index, part in enumerate(setup.parts) for params in part.grid()
        )

    def suggest(self, trial: str) -> Suggestion | None:
        """See :class:`Searcher`."""
        del trial
        return next(self._combinations, None)

    def report(self, trial: str, rung: int, score: float) -> None:
        """A grid does not depend on results."""

    def complete(self, trial: str, score: float | None, *, failed: bool = False) -> None:
        """A grid does not depend on results."""


class NoScheduler:
    """First come, first started; nothing ends early."""

    eager = False

    def __init__(self) -> None:
        self._waiting: list[str] = []

    def add(self, trial: str, params: Mapping[str, Any]) -> None:
        """See :class:`Scheduler`."""
        del params
        self._waiting.append(trial)

    def choose(self) -> str | None:
        """The oldest that waits."""
        return self._waiting[0] if self._waiting else None

    def started(self, trial: str) -> None:
        """See :class:`Scheduler`."""
        if trial in self._waiting:
            self._waiting.remove(trial)

    def report(self, trial: str, rung: int, score: float) -> list[Decision]:
        """It goes on."""
        del rung, score
        return [Decision(trial, CONTINUE)]

    def complete(self, trial: str, score: float | None) -> list[Decision]:
        """Nothing follows."""
        del score
        self.started(trial)
        return []

    def fail(self, trial: str) -> list[Decision]:
        """Nothing follows."""
        self.started(trial)
        return []


def plain_searcher(setup: SearchSetup) -> Searcher | None:
    """The searchers that need no library; ``None`` for other kinds."""
    if setup.kind == "random":
        return RandomSearch(setup)
    return GridSearch(setup) if setup.kind == "grid" else None


def kinds_beyond(search: str, scheduler: str) -> Sequence[str]:
    """Which of the two need Ray Tune."""
    beyond = [] if search in ("random", "grid") else [f"search: {search}"]
    return beyond + ([] if scheduler == "none" else [f"scheduler: {scheduler}"])
