"""Episodes that are played for a score. Needs nothing of XuanCe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Stopped(Exception):
    """Raised through XuanCe's loops when the run must end."""


class Enough(Exception):
    """Raised through XuanCe's loop of tests when all episodes have been played."""


class Quota:
    """Watches environments that play side by side, each its own number of episodes.

    The first so many episodes to end, wherever they do, would be the short ones rather than the long ones.

    Args:
        episodes: over all environments.
        environments: how many there are; at most as many as episodes.
        stopping: asked at every step.
    """

    def __init__(self, episodes: int, environments: int, stopping: Callable[[], bool]) -> None:
        self._wanted = [episodes // environments + (each < episodes % environments) for each in range(environments)]
        self._found: list[list[float]] = [[] for _ in range(environments)]
        self._stopping = stopping

    @property
    def scores(self) -> list[float]:
        """Returns of the episodes that count, environment by environment; of several agents their sum."""
        return [score for found in self._found for score in found]

    def __call__(self, infos: Sequence[dict[str, Any]], ended: Sequence[int]) -> None:
        """A step of all environments was made.

        Raises:
            Enough: it was the last one that was needed.
            Stopped: the run must end.
        """
        for each in ended:
            if len(self._found[each]) < self._wanted[each]:
                score = infos[each]["episode_score"]
                self._found[each].append(float(sum(score.values()) if isinstance(score, dict) else score))
        if all(len(found) == wanted for found, wanted in zip(self._found, self._wanted, strict=True)):
            raise Enough
        if self._stopping():
            raise Stopped


__all__ = ["Enough", "Quota", "Stopped"]
