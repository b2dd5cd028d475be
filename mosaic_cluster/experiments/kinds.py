"""The kinds of experiments there are. A new kind is a class, and its line in ``KINDS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.forecasting import Everything
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.experiments.planning import Part, Prepared
from mosaic_cluster.experiments.single import SingleRun
from mosaic_cluster.experiments.sweeps.kind import Sweep
from mosaic_cluster.placement import ClusterView
from mosaic_cluster.runtime.backend import Backend
from mosaic_cluster.specs import Spec
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import Problem


class Kind(Protocol):
    """The story of one kind, told against a conductor."""

    def check(
        self, document: Mapping[str, Any], spec: Spec | None, catalog: Catalog
    ) -> tuple[tuple[Part, ...], list[Problem]]:
        """What no room can see alone: the workers exist, and accept the configs.

        Args:
            document: as submitted.
            spec: as read; ``None`` if it has problems of its own: as much as can be is checked then.
        """

    def prepare(self, spec: Spec, parts: tuple[Part, ...], storage: Storage) -> Prepared:
        """Draw what is to be drawn, and make the plans. Writes nothing."""

    def check_backend(self, prepared: Prepared, backend: Backend) -> None:
        """Refuse what this backend cannot do.

        Raises:
            BackendError: says what it can.
        """

    def begin(self, prepared: Prepared, conductor: Conductor) -> None:
        """Hand a new experiment to a conductor."""

    def take_up(
        self,
        prepared: Prepared,
        conductor: Conductor,
        entries: Sequence[Mapping[str, Any]],
        *,
        retry_failed: bool,
    ) -> list[RunLife]:
        """Hand over an experiment as far as its journal tells; returns runs whose last attempt must be closed."""

    def go_on(self, conductor: Conductor, *, retry_failed: bool) -> None:
        """Called once these are closed."""

    def describe(self, prepared: Prepared, view: ClusterView) -> tuple[list[str], list[dict[str, Any]]]:
        """What running it would do: lines for people, and JSON-ready answers of placement."""

    def everything(self, prepared: Prepared) -> Everything:
        """What all its runs will ask for, for a forecast."""


KINDS: Mapping[str, Kind] = {"run": SingleRun(), "sweep": Sweep()}
