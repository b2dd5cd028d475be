"""Kind ``sweep`` as the launcher sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ulid import ULID

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.forecasting import Everything
from mosaic_cluster.experiments.life import RunLife
from mosaic_cluster.experiments.planning import Part, Prepared, run_plan
from mosaic_cluster.experiments.replay import Replay
from mosaic_cluster.experiments.sweeps.checking import check_sweep, config_of, planned, unknown_names
from mosaic_cluster.experiments.sweeps.describing import describe_sweep, everything_of
from mosaic_cluster.experiments.sweeps.story import SweepStory, advisors
from mosaic_cluster.placement import ClusterView
from mosaic_cluster.runtime.backend import Backend
from mosaic_cluster.runtime.searching.protocols import kinds_beyond
from mosaic_cluster.specs import Spec, SweepSpec
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import Problem


class Sweep:
    """See :class:`mosaic_cluster.experiments.kinds.Kind`."""

    def check(
        self, document: Mapping[str, Any], spec: Spec | None, catalog: Catalog
    ) -> tuple[tuple[Part, ...], list[Problem]]:
        """See :class:`Kind`."""
        if not isinstance(spec, SweepSpec):
            return (), unknown_names(document, catalog)
        return check_sweep(spec, catalog)

    def prepare(self, spec: Spec, parts: tuple[Part, ...], storage: Storage) -> Prepared:
        """See :class:`Kind`."""
        assert isinstance(spec, SweepSpec)
        first = planned(spec, parts, 2 * len(parts)) or []
        plans = []
        for index, part in enumerate(parts):
            params = next((each.params for each in first if each.part == index), {})
            config = config_of(part, params)
            plans += [run_plan(spec, part.worker, str(ULID()), config=config, seed=seed) for seed in spec.seeds]
        return Prepared(spec, spec.to_document(), parts, tuple(plans), storage)

    def check_backend(self, prepared: Prepared, backend: Backend) -> None:
        """See :class:`Kind`."""
        spec = prepared.spec
        assert isinstance(spec, SweepSpec)
        if kinds_beyond(spec.search.kind, spec.scheduler.kind):
            advisors(spec, prepared.parts, backend)

    def begin(self, prepared: Prepared, conductor: Conductor) -> None:
        """See :class:`Kind`."""
        conductor.story = SweepStory(prepared, conductor)

    def take_up(
        self,
        prepared: Prepared,
        conductor: Conductor,
        entries: Sequence[Mapping[str, Any]],
        *,
        retry_failed: bool,
    ) -> list[RunLife]:
        """See :class:`Kind`."""
        del retry_failed
        story = SweepStory(prepared, conductor)
        replay = Replay(conductor.home, conductor.now(), conductor.lives)
        for entry in entries:
            story.replay(entry)
            replay.take(entry)
        conductor.story = story
        return replay.unclosed()

    def go_on(self, conductor: Conductor, *, retry_failed: bool) -> None:
        """See :class:`Kind`."""
        assert isinstance(conductor.story, SweepStory)
        conductor.story.go_on(retry_failed=retry_failed)

    def describe(self, prepared: Prepared, view: ClusterView) -> tuple[list[str], list[dict[str, Any]]]:
        """See :class:`Kind`."""
        return describe_sweep(prepared, view)

    def everything(self, prepared: Prepared) -> Everything:
        """See :class:`Kind`."""
        return everything_of(prepared)
