"""What would happen on a cluster that is only described."""

from __future__ import annotations

import pytest

from mosaic_cluster.experiments.forecasting import AS_MANY, Everything, forecast, with_placements
from mosaic_cluster.inventory import read_cluster
from mosaic_cluster.placement import Placement, Request, plan

GIB = 1024**3


def wanted(count: int, *, runs: int | None = None, at_once: int | None = None, **more: float | int) -> Everything:
    requests = tuple(Request(f"r{number}", **{"duration": 60.0, **more}) for number in range(count))  # type: ignore[arg-type]
    return Everything(requests, runs or count, at_once)


def test_waves_of_equal_runs() -> None:
    made = forecast(wanted(10), read_cluster("2x(2cpu)"))
    assert len(made.first.placements) == 4
    assert made.makespan == 180
    text = "\n".join(made.lines())
    assert "at once: 4 runs of 10" in text
    assert "6 runs would wait:" in text
    assert "after at most 3m, if each run takes as long as it may (1m)" in text


def test_runs_of_different_length_fill_gaps() -> None:
    durations = (100.0, 10.0, 20.0, 30.0)
    requests = tuple(Request(f"r{number}", duration=each) for number, each in enumerate(durations))
    assert forecast(Everything(requests, 4), read_cluster("(2cpu)")).makespan == 100
    assert forecast(Everything(requests, 4), read_cluster("(1cpu)")).makespan == 160


def test_no_more_at_once_than_the_spec_allows() -> None:
    made = forecast(wanted(4, at_once=1), read_cluster("(8cpu)"))
    assert made.makespan == 240
    assert made.to_dict()["waiting"] == 3
    assert AS_MANY in "\n".join(made.lines())


@pytest.mark.parametrize(
    ("everything", "words"),
    [
        (wanted(2, duration=None), "not known; limits.max_duration in the spec would bound it"),  # type: ignore[arg-type]
        (wanted(2, runs=5), "not known"),
        (wanted(1, cpus=99), "never, as some can never run"),
    ],
)
def test_an_end_that_is_not_known(everything: Everything, words: str) -> None:
    made = forecast(everything, read_cluster("(8cpu)"))
    assert made.makespan is None
    assert made.lines()[-1] == f"when all is done: {words}"


def test_use_of_each_gpu() -> None:
    made = forecast(wanted(5, gpus=1, gpu_memory=10 * GIB), read_cluster("(8cpu,1xA100-40GB),(8cpu,1xRTX4090)"))
    use = {each["model"]: each for each in made.gpus()}
    assert use["A100"]["used"] + use["RTX 4090"]["used"] > 0.99
    assert sum(len(each["runs"]) for each in made.gpus()) == 5
    assert all(each["used"] <= 1 for each in made.gpus())
    assert "GPUs: " in "\n".join(made.lines())


def test_what_is_placed_is_taken_from_the_view() -> None:
    view = read_cluster("(4cpu,8GiB,agents=10,2xA100-40GB)")
    requests = [
        Request("a", cpus=1.5, memory=GIB, gpus=1, gpu_memory=10 * GIB),
        Request("b", cpus=1, gpus=1, whole_gpus=True, agents=3),
    ]
    placements = [answer for answer in plan(requests, view).answers if isinstance(answer, Placement)]
    assert len(placements) == 2
    after = with_placements(view, placements)
    (node,) = after.nodes
    assert (node.cpus_free, node.memory_free) == (1.5, 7 * GIB)
    assert sorted(gpu.free for gpu in node.gpus) == [0.0, 0.75]
    assert node.agents == sum(placement.agents for placement in placements)
    assert [holding.placement for holding in after.holdings] == placements
    assert not plan([Request("c", gpus=1, whole_gpus=True)], after).placements
