"""How far the building of an environment is, for verbs that need one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.cli.output import note

if TYPE_CHECKING:
    from mosaic_cluster.catalog.environments import BuildProgress


class Building:
    """Says once a step how far an environment is."""

    def __init__(self) -> None:
        self._told = (0, "")

    def tell(self, progress: BuildProgress) -> None:
        """A line on stderr where there is news."""
        if (progress.step, progress.name) != self._told:
            self._told = (progress.step, progress.name)
            note(progress.sentence())
