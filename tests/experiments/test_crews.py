"""Agents, and the runs they are split over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.experiments.launching import prepare
from mosaic_cluster.experiments.planning import Prepared
from mosaic_cluster.worker import WorkerCapabilities
from mosaic_cluster.worker.errors import SpecError


class FakeCatalog(Catalog):
    """Two workers: of 16 and of 100 agents."""

    def entries(self) -> tuple[WorkerEntry, ...]:
        return tuple(self.get(name) for name in ("few", "many"))

    def get(self, name: str) -> WorkerEntry:
        capabilities = WorkerCapabilities(worker_type=name, max_agents={"few": 16, "many": 100}[name])
        return WorkerEntry(name, "x:y", "x", "1", "x", "python", capabilities=capabilities)

    def check_configs(self, entry: WorkerEntry, configs: Any) -> list[list[Any]]:
        return [[] for _ in configs]


def prepared(tmp_path: Path, **more: Any) -> Prepared:
    document = {"kind": "run", "name": "x", "worker": "few", "seed": 5, "storage": str(tmp_path), **more}
    return prepare(document, FakeCatalog())


def test_a_population_is_split_evenly_and_placed_as_one(tmp_path: Path) -> None:
    plans = prepared(tmp_path, population={"agents": 40, "strategy": "spread"}).plans
    assert [plan.request.agents for plan in plans] == [14, 13, 13]
    assert {(plan.request.gang, plan.request.spread) for plan in plans} == {("population", True)}
    assert [plan.environment["MOSAIC_POPULATION_FIRST"] for plan in plans] == ["0", "14", "27"]
    assert {plan.environment["MOSAIC_POPULATION_AGENTS"] for plan in plans} == {"40"}
    assert [plan.seed for plan in plans] == [5, 6, 7]
    assert len({plan.run_id for plan in plans}) == 3


def test_a_population_that_one_worker_serves_is_one_run(tmp_path: Path) -> None:
    (plan,) = prepared(tmp_path, population={"agents": 16}).plans
    assert (plan.request.agents, plan.request.gang) == (16, "")


@pytest.mark.parametrize(
    ("given", "path"),
    [({"resources": {"agents": 20}}, "resources.agents"), ({"config": {"num_agents": 20}}, "config.num_agents")],
)
def test_agents_of_one_environment_are_never_split(given: dict[str, Any], path: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        prepared(tmp_path, **given)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert problem.message == (
        "20 agents are more than worker few serves; give 16 or fewer, or take another worker (many serves up to 100)"
    )


def test_agents_come_from_the_config_or_the_spec(tmp_path: Path) -> None:
    (plan,) = prepared(tmp_path, config={"n_agents": 3}).plans
    assert plan.request.agents == 3
    (plan,) = prepared(tmp_path, config={"n_agents": 3}, resources={"agents": 7}).plans
    assert plan.request.agents == 7
    (plan,) = prepared(tmp_path, priority=2, weight=3).plans
    assert (plan.request.agents, plan.request.priority, plan.request.weight) == (1, 2, 3.0)
