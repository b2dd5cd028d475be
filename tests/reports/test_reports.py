"""Reports, from real telemetry files: what is drawn together, what stands in the tables, the page."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab

from mosaic_cluster.app.reporting import read_report
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.reports import Report, RunCurve, combined, draw, gather, html_page, rows
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Batch, HubCore, parse
from mosaic_cluster.worker.errors import InvalidInput

T95 = 4.303  # Student's t, two degrees of freedom


class Stored:
    """An experiment of three libraries: two in one environment, one in another, and a run that said nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = HubCore(Storage.open(folder))
        self.runs: list[dict[str, Any]] = []
        self.trials: dict[str, dict[str, Any]] = {}

    def run(
        self,
        trial: str,
        worker: str,
        seed: int,
        curve: dict[int, float | None],
        state: str = "COMPLETED",
        reason: str = "the worker exited with code 0",
        params: dict[str, Any] | None = None,
        **said: Any,
    ) -> None:
        run_id = f"{trial}-{seed}"
        lines = [{"event": "run_started", "timestamp": 100.0, "payload": said}]
        for step, value in curve.items():
            payload = {"step": step, "episodic_return": value, "loss": 0.5}
            lines.append({"event": "heartbeat", "timestamp": 100.0 + step / 10, "payload": payload})
        texts = [json.dumps(line).encode() for line in lines]
        placed, size = [], 0
        for text in texts:
            placed.append((size, text))
            size += len(text) + 1
        self.hub.append(Batch(run_id, 1, 0, size, parse(placed, run_id, 1).tables))
        self.hub.commit()
        self.runs.append({
            "run_id": run_id, "trial": trial, "worker": worker, "seed": seed, "state": state, "reason": reason,
            "attempt": 1, "elapsed": 12.4, "step": max(curve, default=None),
        })  # fmt: skip
        self.trials.setdefault(trial, {"trial": trial, "params": params or {}})

    def report(self, metric: str = "episodic_return", axis: str = "steps") -> Report:
        status = {
            "experiment_id": "six", "kind": "sweep", "state": "RUNNING", "reason": "", "runs": self.runs,
            "updated_at": 1030.0, "trials": list(self.trials.values()),
        }  # fmt: skip
        return gather(self.folder, status, metric, axis)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    made = Stored(tmp_path)
    for seed in (1, 2, 3):
        curve = {step: step * seed / 10 for step in range(10, 110, 10)}
        made.run("t0001", "cleanrl", seed, curve, params={"lr": 0.001}, env_id="CartPole-v1", algo="ppo")
    for seed in (1, 2):
        made.run("t0002", "ray", seed, {20: 5.0 * seed, 80: 7.0 * seed, 200: 9.0}, env_id="CartPole-v1", algo="dqn")
    made.run("t0003", "barlog", 1, {50: 0.25}, worlds=["babyai", "textworld"], config={"agent": "dummy"})
    made.run("t0004", "mctx", 1, {}, "FAILED", "the worker exited with code 1: <no GPU>", env_id="go_9x9")
    return made


class TestGather:
    def test_series_and_facets(self, stored: Stored) -> None:
        report = stored.report()
        assert [each.label for each in report.series] == [
            "t0001 cleanrl ppo, lr=0.001", "t0002 ray dqn", "t0003 barlog", "t0004 mctx",
        ]  # fmt: skip
        assert {name: [each.worker for each in found] for name, found in report.facets.items()} == {
            "CartPole-v1": ["cleanrl", "ray"],
            "babyai, textworld": ["barlog"],
        }

    def test_over_seconds(self, stored: Stored) -> None:
        (first, *_), *_ = [each.runs for each in stored.report(axis="seconds").series]
        assert first.x == tuple(float(number) for number in range(1, 11))

    def test_a_run_that_goes_on_has_run_until_now(self, tmp_path: Path) -> None:
        made = Stored(tmp_path)
        made.run("t0001", "w", 1, {1: 1.0}, "RUNNING", "", env_id="e")
        made.runs[0]["since"] = 1000.0
        assert made.report().series[0].runs[0].elapsed == pytest.approx(12.4 + 30.0)

    def test_another_metric(self, stored: Stored) -> None:
        assert stored.report("loss").series[0].runs[0].final == 0.5
        with pytest.raises(InvalidInput, match="no run has reported 'los'; reported are episodic_return, loss"):
            stored.report("los")

    def test_values_that_are_no_numbers_are_left_out(self, tmp_path: Path) -> None:
        made = Stored(tmp_path)
        made.run("t0001", "w", 1, {1: 1.0, 2: None, 3: 3.0}, env_id="e")
        assert made.report().series[0].runs[0].x == (1.0, 3.0)

    def test_nothing_stored_yet(self, tmp_path: Path) -> None:
        report = Stored(tmp_path).report()
        assert (report.series, report.facets) == ((), {})
        assert "nothing to draw" in html_page(report, None)


def curve(seed: int, *points: tuple[float, float]) -> RunCurve:
    x, y = zip(*points, strict=True) if points else ((), ())
    return RunCurve(str(seed), seed, "RUNNING", "", 1, 1.0, None, x, y)


class TestCombined:
    def test_between_reports_it_is_linear_and_only_where_all_have_a_value(self) -> None:
        band = combined([curve(1, (0, 0.0), (10, 10.0)), curve(2, (5, 0.0), (20, 0.0)), curve(3)])
        assert band is not None
        assert (band.x, band.mean, band.kind) == ((5, 10), (2.5, 5.0), "range")
        assert (band.low, band.high) == ((0.0, 0.0), (5.0, 10.0))

    def test_three_seeds_have_an_interval(self) -> None:
        band = combined([curve(seed, (0, float(seed)), (1, float(seed))) for seed in (1, 2, 3)])
        assert band is not None
        assert band.kind == "interval"
        half = T95 * 1.0 / 3**0.5
        assert band.low == pytest.approx((2 - half, 2 - half), abs=1e-3)
        assert band.high == pytest.approx((2 + half, 2 + half), abs=1e-3)

    def test_long_curves_are_thinned_and_keep_their_ends(self) -> None:
        band = combined([curve(1, *((float(at), float(at)) for at in range(5000)))])
        assert band is not None
        assert (band.x[0], band.x[-1], len(band.x)) == (0.0, 4999.0, 200)
        assert band.mean == pytest.approx(band.x)

    def test_without_a_common_stretch_there_is_no_mean(self) -> None:
        assert combined([curve(1, (0, 1.0), (1, 1.0)), curve(2, (2, 1.0), (3, 1.0))]) is None
        assert combined([]) is None


class TestOutput:
    def test_rows(self, stored: Stored) -> None:
        first, second, third, fourth = rows(stored.report())
        assert (first.final, first.seeds, first.steps, first.time) == ("20 [-4.843, 44.84]", "3", "100", "12s")
        assert second.final == "9 (9 to 9)"
        assert (third.environment, third.final) == ("babyai, textworld", "0.25")
        assert (fourth.state, fourth.final) == ("FAILED", "")
        assert fourth.reason == "the worker exited with code 1: <no GPU>; nothing reported episodic_return"

    def test_picture_and_page(self, stored: Stored) -> None:
        report = stored.report()
        picture = draw(report)
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", picture[16:24])
        assert (width, height) == (1440, 468)  # two small ones, side by side
        page = html_page(report, picture)
        (inside,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
        assert base64.b64decode(inside) == picture
        assert not re.findall(r'(?:src|href)="(?!data:)', page)
        assert "&lt;no GPU&gt;" in page
        assert "<no GPU>" not in page
        assert page.count("<tr>") == 2 + 4 + 7

    def test_many_trials_are_named_by_their_worker(self, tmp_path: Path) -> None:
        made = Stored(tmp_path)
        for number in range(14):
            made.run(f"t{number:04}", "ab"[number % 2], 1, {1: 1.0, 2: float(number)}, env_id="e")
        drawn = _drawn_labels(made.report())
        assert drawn == [["a", "b"]]

    def test_only_facets_with_values_are_drawn(self, stored: Stored) -> None:
        assert _drawn_labels(stored.report()) == [["t0001 cleanrl ppo, lr=0.001", "t0002 ray dqn"], ["t0003 barlog"]]


def _drawn_labels(report: Report) -> list[list[str]]:
    """Legends of the small pictures, in order."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *args, **more: figures.append(self))
        draw(report)
    (figure,) = figures
    legends = [axes.get_legend() for axes in figure.axes if axes.get_visible()]
    return [[text.get_text() for text in legend.get_texts()] for legend in legends]


def test_by_default_a_sweep_is_drawn_by_what_it_is_judged_by(tmp_path: Path) -> None:
    home = ExperimentHome.create(Storage.open(tmp_path), "judged", {"kind": "sweep", "name": "judged"})
    made = Stored(tmp_path / "judged" / "telemetry")
    made.run("t0001", "w", 1, {1: 1.0, 2: 2.0}, env_id="e")
    status = {"experiment_id": "judged", "kind": "sweep", "state": "COMPLETED", "runs": made.runs, "trials": []}
    home.storage.put_json("status.json", status)
    assert read_report(home, None, "steps").metric == "episodic_return"
    home.storage.put_json("status.json", {**status, "sweep": {"metric": "loss"}})
    assert read_report(home, None, "steps").metric == "loss"


def test_of_an_experiment(inline: Lab) -> None:
    """The verb, after a real run."""
    done = inline.run({"steps": 12, "pause": 0})
    assert done.returncode == 0, done.stderr
    answer = inline.mosaic("report", "--metric", "value")
    assert answer.returncode == 0, answer.stderr
    assert "18" in answer.stdout  # 1.5 a step
    folder = inline.experiment.path / "report"
    assert answer.stderr.splitlines() == [str(folder / "report.png"), str(folder / "report.html")]
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    answer = inline.mosaic("report", "latest", "--metric", "value", "--x", "seconds", "--out", "here")
    assert answer.returncode == 0, answer.stderr
    assert (inline.folder / "here" / "report.html").read_text().startswith("<!DOCTYPE html>")
    for arguments, expected in (
        (["--metric", "valu"], "--metric: no run has reported 'valu'; reported are"),
        (["--x", "hours"], "--x: there is no 'hours'; give one of: steps, seconds"),
    ):
        answer = inline.mosaic("report", "latest", *arguments)
        assert answer.returncode == 2
        assert expected in answer.stderr
