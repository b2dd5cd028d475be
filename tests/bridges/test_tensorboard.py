"""TensorBoard shows what the tables have, and keeps away from what workers write themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from trackers import Written, tensorboard_curves


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "exp-1")


def shown(written: Written, run_id: str) -> dict[str, list[tuple[int, float]]]:
    return tensorboard_curves(written.folder / "runs" / run_id / "tensorboard")


def test_every_run_and_metric_is_there(written: Written) -> None:
    for run_id in ("a", "b"):
        written.train(run_id, 1, 500, scale=0.5 if run_id == "a" else 0.25)
        written.lines(run_id, {"type": "episode", "episode": 1, "total_reward": 3.0, "steps": 7})
    assert written.bridge("tensorboard") == 4
    for run_id in ("a", "b"):
        curves = shown(written, run_id)
        assert set(curves) == {"loss", "episode/return", "episode/length"}
        for name, points in curves.items():
            assert points == written.curve(run_id, name)
            assert points


def test_wall_times_are_those_of_the_lines(written: Written) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written.lines("a", {"event": "heartbeat", "timestamp": 1234.5, "payload": {"step": 1, "loss": 2.0}})
    written.bridge("tensorboard")
    found = EventAccumulator(str(written.folder / "runs/a/tensorboard")).Reload()
    assert [each.wall_time for each in found.Scalars("loss")] == [1234.5]


def test_what_is_no_number_and_what_has_no_step(written: Written) -> None:
    values = [1.0, math.nan, math.inf, -math.inf, 1e300]
    written.lines("a", *({"event": "heartbeat", "payload": {"loss": value}} for value in values))
    written.lines("a", {"event": "heartbeat", "payload": {"loss": 4.0}})
    written.bridge("tensorboard")
    points = shown(written, "a")["loss"]
    # Without any step, points are counted, on from one file to the next.
    assert [step for step, _ in points] == [0, 1, 2, 3, 4, 5]
    assert points[0][1] == 1.0
    assert math.isnan(points[1][1])
    assert [value for _, value in points[2:5]] == [math.inf, -math.inf, math.inf]
    assert points[5][1] == 4.0


def test_only_what_is_new_is_written(written: Written) -> None:
    written.train("a", 1, 5)
    assert written.bridge("tensorboard") == 1
    assert written.bridge("tensorboard") == 0
    written.train("a", 6, 9)
    assert written.bridge("tensorboard") == 1
    assert shown(written, "a")["loss"] == written.curve("a", "loss")


def test_a_later_attempt_takes_back_what_it_does_again(written: Written) -> None:
    written.begins("a", 1)
    written.train("a", 1, 10)
    saved = written.train("a", 11, 11)
    written.train("a", 12, 20)
    written.bridge("tensorboard")  # another process wrote the first attempt
    written.begins("a", 2, saved)
    written.train("a", 12, 30, attempt=2, scale=2.0)
    written.bridge("tensorboard")
    curve = shown(written, "a")["loss"]
    assert curve == written.curve("a", "loss")
    assert [step for step, _ in curve] == list(range(1, 31))


def test_more_runs_than_may_be_open(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    from mosaic_cluster.telemetry.bridges.tensorboard import TensorBoard

    monkeypatch.setattr(TensorBoard, "most_open", 2)
    for first in (1, 4):
        for run_id in "abcde":
            written.train(run_id, first, first + 2)
    written.bridge("tensorboard")
    for run_id in "abcde":
        assert shown(written, run_id)["loss"] == written.curve(run_id, "loss")


def test_a_worker_with_event_files_keeps_its_folder_to_itself(written: Written) -> None:
    theirs = written.folder / "runs/a/tensorboard/events.out.tfevents.1.host"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    written.train("a", 1, 3)
    written.train("b", 1, 3)
    written.bridge("tensorboard")
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
    assert theirs.read_bytes() == b"theirs"
    assert shown(written, "b")["loss"] == written.curve("b", "loss")
    assert any("a is not written: its worker writes its own: tensorboard/events" in line for line in written.log)


@pytest.mark.parametrize("name", ["analytics.json", "a_analytics.json"])
def test_a_manifest_that_names_event_files_later_takes_ours_away(written: Written, name: str) -> None:
    written.train("a", 1, 3)
    written.bridge("tensorboard")
    assert shown(written, "a")["loss"]
    manifest = {"run_id": "a", "artifacts": {"tensorboard": {"log_dir": "elsewhere"}}}
    written.storage.put("runs/a/" + name, json.dumps(manifest).encode())
    written.train("a", 4, 6)
    written.bridge("tensorboard")
    assert list((written.folder / "runs/a/tensorboard").iterdir()) == []
    mark = written.storage.get_json("bridges/tensorboard.json")["runs"]["a"]
    assert (mark["where"], mark["declined"]) == (None, "its worker writes its own: elsewhere")


def test_half_a_record_of_a_killed_process_hides_nothing(written: Written) -> None:
    written.train("a", 1, 3)
    written.bridge("tensorboard")
    (first,) = (written.folder / "runs/a/tensorboard").iterdir()
    first.write_bytes(first.read_bytes() + b"\x20\x00\x00")
    written.train("a", 4, 6)
    written.bridge("tensorboard")
    assert shown(written, "a")["loss"] == written.curve("a", "loss")


def test_what_is_too_dense_is_thinned_to_the_ends_of_intervals(written: Written) -> None:
    beats = []
    for number in range(2000):
        payload = {"step": number, "loss": number, **({"rare": 1} if number % 1000 == 0 else {})}
        beats.append({"event": "heartbeat", "timestamp": 1000 + number / 1000, "payload": payload})
    written.lines("a", *beats)
    written.bridge("tensorboard", points_per_second=10.0)
    curves = shown(written, "a")
    assert [step for step, _ in curves["loss"]] == sorted([*range(0, 2000, 200), *range(199, 2000, 200)])
    assert [step for step, _ in curves["rare"]] == [0, 1000]
    assert sum("thinned" in line for line in written.log) == 1
    assert len(written.curve("a", "loss")) == 2000
