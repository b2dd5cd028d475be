"""A placement cut into bundles, and what a worker that joins is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptOrder, Joining, WorkerLaunch
from mosaic_cluster.runtime.environment import attempt_environment
from mosaic_cluster.runtime.joining import bundles_of
from mosaic_cluster.supervision import Limits

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def place(**taken: Any) -> Placement:
    return Placement(RUN, "id", "node", **taken)


@pytest.mark.parametrize(
    ("taken", "bundles"),
    [
        ({"cpus": 3.0}, [{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}]),
        ({"cpus": 2.5, "memory": 10}, [{"CPU": 1.5, "memory": 10.0}, {"CPU": 1.0}]),
        ({"cpus": 0.5}, [{"CPU": 0.5}]),
        ({"cpus": 2.0, "gpus": 0.4167}, [{"CPU": 1.0, "GPU": 0.4167}, {"CPU": 1.0}]),
        ({"cpus": 2.0, "gpus": 3.0}, [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}, {"GPU": 1.0}]),
        ({"cpus": 0.0, "gpus": 1.0}, [{"GPU": 1.0}]),
        ({"cpus": 0.0}, [{"CPU": 0.001}]),
    ],
)
def test_bundles_add_up(taken: dict[str, Any], bundles: list[dict[str, float]]) -> None:
    found = bundles_of(place(**taken))
    assert found == bundles
    for name, wanted in (("CPU", taken["cpus"] or 0.001), ("GPU", taken.get("gpus", 0.0))):
        if taken["cpus"] or name == "GPU":
            assert sum(bundle.get(name, 0.0) for bundle in found) == pytest.approx(wanted)


def order(folder: Path, joining: Joining | None) -> AttemptOrder:
    return AttemptOrder(
        experiment_id="e",
        experiment_dir=str(folder),
        run_id=RUN,
        attempt=1,
        worker=WorkerLaunch("w", "w", True, joins=joining is not None),
        config={},
        seed=1,
        placement=place(cpus=2.0, gpus=1.0),
        limits=Limits(),
        joining=joining,
    )


BASE = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "secret",
    "RAY_ADDRESS": "elsewhere:1",
    "RAY_JOB_ID": "1",
    "MOSAIC_PLACEMENT_GROUP": "another run's",
    "CUDA_VISIBLE_DEVICES": "0",
}


def test_who_joins_is_told_how(tmp_path: Path) -> None:
    joining = Joining("10.0.0.1:6379", "mosaic", f"mosaic-{RUN}-1", "10.0.0.2")
    found = attempt_environment(order(tmp_path, joining), BASE, None)
    assert found["MOSAIC_RAY_ADDRESS"] == "10.0.0.1:6379"
    assert found["MOSAIC_RAY_NAMESPACE"] == "mosaic"
    assert found["MOSAIC_RAY_NODE"] == "10.0.0.2"
    assert found["MOSAIC_PLACEMENT_GROUP"] == f"mosaic-{RUN}-1"
    assert sorted(name for name in found if name.startswith("RAY_")) == ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    # What the worker starts in the group has the GPU, not its own process.
    assert found["CUDA_VISIBLE_DEVICES"] == ""


def test_who_does_not_join_knows_of_no_cluster(tmp_path: Path) -> None:
    found = attempt_environment(order(tmp_path, None), BASE, None)
    assert not [name for name in found if name.startswith("RAY_") or name == "MOSAIC_PLACEMENT_GROUP"]
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    given = replace(order(tmp_path, None), environment={"MOSAIC_RAY_ADDRESS": "mine"})
    assert "MOSAIC_RAY_ADDRESS" not in attempt_environment(given, {}, None)
