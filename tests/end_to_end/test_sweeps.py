"""Sweeps with real Ray, real worker processes and real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from support import started, wait_for, write_spec

from mosaic_cluster.telemetry import TelemetryReader


def sweep(**changes: Any) -> dict[str, Any]:
    """A sweep of the curves worker; ``None`` takes a key out."""
    base: dict[str, Any] = {
        "kind": "sweep",
        "name": "sweep",
        "worker": "curves",
        "config": {"steps": 30, "pause": 0.02},
        "space": {"quality": {"choice": [1, 2, 3]}},
        "search": "grid",
        "seeds": [1, 2],
        "metric": {"name": "score", "at": [5, 10, 30]},
        "limits": {"grace": 10},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def run(lab: Lab, **changes: Any) -> subprocess.CompletedProcess[str]:
    return lab.mosaic("run", write_spec(lab.folder, sweep(**changes)), *lab.where, timeout=170)


def status_of(lab: Lab) -> dict[str, Any]:
    return json.loads((lab.experiment.path / "status.json").read_text())


def journal_of(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((lab.experiment.path / "journal").iterdir())]


def assert_curves_continue(lab: Lab, steps: int) -> None:
    """Each completed run's visible curve has every step once, and every raw line is in Parquet once."""
    reader = TelemetryReader(lab.experiment.path / "telemetry")
    for run in status_of(lab)["runs"]:
        if run["state"] == "COMPLETED":
            seen = reader.metric("score", run["run_id"])["step"].to_pylist()
            assert seen == list(range(1, steps + 1)), (run["run_id"], seen)
    rows = reader.table("metrics", view=False, columns=["run_id", "attempt", "offset"]).to_pylist()
    printed = Counter()
    for log in lab.experiment.path.glob("runs/*/attempts/*/stdout.log"):
        offset = 0
        for line in log.read_bytes().splitlines(keepends=True):
            if line.startswith(b'{"event":"heartbeat"'):
                printed[(log.parts[-4], int(log.parts[-2]), offset)] += 1
            offset += len(line)
    assert Counter((row["run_id"], row["attempt"], row["offset"]) for row in rows) == printed


@pytest.mark.parametrize("backend", ["lab", "inline"])
def test_a_grid_on_any_backend(backend: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(backend)
    done = run(lab)
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    assert [trial["score"] for trial in status["trials"]] == [30.0, 60.0, 90.0]
    assert status["sweep"]["best"]["params"] == {"quality": 3}
    for line in (
        "best: t0003  quality: 3",
        "  score 90, the mean over seeds 1, 2; 95 % interval 90 to 90",
        "runner-up: t0002  quality: 2",
        "trials: 3 of 3 (3 completed); grid search, scheduler none",
    ):
        assert line in done.stdout
    assert_curves_continue(lab, 30)
    manifest = json.loads((lab.experiment.path / "analytics.json").read_text())
    assert manifest["sweep"]["best"]["trial"] == "t0003"
    assert {run["trial"] for run in manifest["runs"]} == {"t0001", "t0002", "t0003"}
    shown = lab.mosaic("status")
    assert "best: t0003  quality: 3" in shown.stdout


def test_nested_settings_and_conditions_reach_the_worker(inline: Lab) -> None:
    done = run(
        inline,
        config={"steps": 2, "optimizer": {"kind": "adam"}},
        space={
            "momentum": {"choice": [0.1, 0.9], "when": {"algo": "b"}},
            "algo": {"choice": ["a", "b"]},
            "optimizer": {"lr": {"choice": [0.5]}},
        },
        metric={"name": "score"},
        seeds=[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    configs = [json.loads(path.read_text()) for path in inline.experiment.path.glob("runs/*/config.json")]
    found = sorted((each["algo"], each.get("momentum")) for each in configs)
    assert found == [("a", None), ("b", 0.1), ("b", 0.9)]
    assert all(each["optimizer"] == {"kind": "adam", "lr": 0.5} for each in configs)


@pytest.mark.slow
def test_asha_on_ray_stops_all_seeds_of_what_is_behind(lab: Lab) -> None:
    done = run(lab, scheduler="asha", space={"quality": {"choice": [9, 1, 2, 3]}}, config={"steps": 60, "pause": 0.1},
               metric={"name": "score", "at": [3, 9, 60]},
               # One after the other: who comes to a rung first is not for the machine's load to say.
               limits={"grace": 10, "max_concurrent_trials": 1})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    states = {trial["params"]["quality"]: trial["state"] for trial in status["trials"]}
    assert states == {9: "COMPLETED", 1: "STOPPED", 2: "STOPPED", 3: "STOPPED"}
    for run_entry in status["runs"]:
        assert run_entry["state"] == ("COMPLETED" if run_entry["trial"] == "t0001" else "CANCELLED")
        assert run_entry["trial"] == "t0001" or run_entry["step"] < 60
    assert_curves_continue(lab, 60)


@pytest.mark.long
def test_hyperband_on_ray_pauses_and_continues(lab: Lab) -> None:
    done = run(lab, scheduler="hyperband", space={"quality": {"choice": list(range(8, 0, -1))}}, seeds=[1],
               config={"steps": 18, "pause": 0.2}, metric={"name": "score", "at": [6, 18]})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    states = Counter(trial["state"] for trial in status["trials"])
    # Two rungs: a bracket of 2 that all go to the end, one of 3 of which 1 does; then the same again.
    assert states["STOPPED"] >= 2
    assert states["COMPLETED"] + states["STOPPED"] == 8
    continued = [each for each in status["runs"] if each["attempt"] > 1 and each["state"] == "COMPLETED"]
    assert continued
    assert_curves_continue(lab, 18)


@pytest.mark.long
def test_pbt_on_ray_goes_on_from_copies(lab: Lab) -> None:
    done = run(lab, scheduler="pbt", search={"kind": "random", "seed": 2}, samples=4, seeds=[1],
               space={"quality": {"uniform": [1, 10]}}, config={"steps": 24, "pause": 0.3},
               metric={"name": "score", "at": [8, 16, 24]})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    lineage = [(trial, born) for trial in status["trials"] for born in trial["lineage"]]
    assert len(lineage) == 2
    for trial, born in lineage:
        (run_id,) = trial["runs"]
        copied = born["runs"][run_id]
        assert Path(copied["path"]).is_file()
        assert Path(copied["path"]).is_relative_to(lab.experiment.path / "runs" / run_id / "checkpoints")
        attempt = lab.experiment.path / "runs" / run_id / "attempts" / str(copied["attempt"])
        begun = json.loads((attempt / "attempt.json").read_text())
        assert begun["resumed_from"] == copied["path"]
        assert begun["resumed_from_run"] == copied["run_id"]
        steps = TelemetryReader(lab.experiment.path / "telemetry").metric("score", run_id)["step"].to_pylist()
        assert steps == sorted(set(steps))
        assert steps[-1] == 24
        manifest = json.loads((lab.experiment.path / f"runs/{run_id}/analytics.json").read_text())
        assert manifest["metadata"]["mosaic"]["lineage"]
    configs = json.loads((lab.experiment.path / "runs" / lineage[0][0]["runs"][0] / "config.json").read_text())
    assert configs["quality"] == lineage[-1 if lineage[0][0] is lineage[1][0] else 0][1]["params"]["quality"]


@pytest.mark.long
def test_optuna_on_ray(lab: Lab) -> None:
    done = run(lab, search={"kind": "optuna", "seed": 0}, samples=5, seeds=[1], config={"steps": 2},
               space={"quality": {"uniform": [0, 10]}, "algo": {"choice": ["a", "b"]},
                      "momentum": {"uniform": [0, 1], "when": {"algo": "b"}}},
               constraints=["quality > 2"], metric={"name": "score"})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trials = status_of(lab)["trials"]
    assert len(trials) == 5
    assert all(trial["params"]["quality"] > 2 for trial in trials)
    assert all(("momentum" in trial["params"]) == (trial["params"]["algo"] == "b") for trial in trials)


def test_two_workers_in_one_sweep(inline: Lab) -> None:
    worker = {
        "choice": [
            {"name": "curves", "config": {"steps": 3}, "space": {"quality": {"choice": [2, 4]}}},
            {"name": "scripted", "config": {"steps": 3}, "space": {"episode_every": {"choice": [1, 2]}}},
        ]
    }
    done = run(inline, worker=worker, config={}, space=None, metric={"name": "score"}, seeds=[1])
    assert done.returncode == 1  # the scripted worker calls its metric otherwise
    status = status_of(inline)
    assert [(trial["worker"], trial["state"]) for trial in status["trials"]] == [
        ("curves", "COMPLETED"), ("curves", "COMPLETED"), ("scripted", "FAILED"), ("scripted", "FAILED"),
    ]  # fmt: skip
    assert "never reported score; it reported episode/length, episode/return, value" in done.stdout
    assert "mosaic resume" in done.stdout
    assert "--retry-failed" in done.stdout


def test_what_the_inline_backend_cannot_do_is_refused_by_name(inline: Lab) -> None:
    changes = {"scheduler: asha": {"scheduler": "asha"}, "search: optuna": {"search": "optuna", "samples": 3}}
    for name, change in changes.items():
        done = run(inline, **change)
        assert done.returncode == 1
        assert f"error: {name} needs Ray: the inline backend has search: random and grid" in done.stderr
        assert not (inline.folder / "results").exists()


def kill_and_resume(lab: Lab, kills: int, rng: random.Random, steps: int) -> None:
    spec = write_spec(lab.folder, sweep(
        space={"quality": {"choice": [1, 2, 3, 4, 5, 6]}}, config={"steps": steps, "pause": 0.02},
        metric={"name": "score", "at": [5, 20, steps]},
    ))  # fmt: skip
    with started("run", spec, *lab.where, env=lab.env, cwd=lab.folder) as process:
        wait_for(lambda: (lab.folder / "results").exists() and list((lab.folder / "results").glob("*/journal/*")), 60)
        time.sleep(rng.uniform(0.0, 4.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    name = lab.experiment.path.name
    for _ in range(kills - 1):
        before = len(list((lab.experiment.path / "journal").iterdir()))
        with started("resume", name, *lab.where, env=lab.env, cwd=lab.folder) as process:
            wait_for(
                lambda before=before: len(list((lab.experiment.path / "journal").iterdir())) > before
                or process.poll() is not None,
                60,
            )
            time.sleep(rng.uniform(0.0, 4.0))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    done = lab.mosaic("resume", name, *lab.where, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    assert len(status["runs"]) == 12
    assert {entry["state"] for entry in status["runs"]} == {"COMPLETED"}
    ended = Counter(e["run_id"] for e in journal_of(lab) if e["type"] == "run_ended" and e["state"] == "COMPLETED")
    assert set(ended.values()) == {1}
    # The same as undisturbed: the curves are known.
    assert status["sweep"]["best"]["params"] == {"quality": 6}
    assert [trial["score"] for trial in status["trials"]] == [float(steps * value) for value in range(1, 7)]
    for trial in status["trials"]:
        quality = trial["params"]["quality"]
        assert trial["scores"] == [[5, 5.0 * quality], [20, 20.0 * quality]]
    assert_curves_continue(lab, steps)


@pytest.mark.slow
def test_two_kills_of_the_driver(lab: Lab) -> None:
    kill_and_resume(lab, kills=2, rng=random.Random(1), steps=60)


@pytest.mark.long
@pytest.mark.timeout(500)
def test_ten_kills_of_the_driver(lab: Lab) -> None:
    kill_and_resume(lab, kills=10, rng=random.Random(10), steps=250)


@pytest.mark.long
def test_two_resumers_at_once(lab: Lab) -> None:
    with lab_started(lab, config={"steps": 400, "pause": 0.02}, space={"quality": {"choice": [1]}}) as process:
        wait_for(lambda: lab.experiment_started() and lab.run_ids(), 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    name = lab.experiment.path.name
    first = started("resume", name, *lab.where, env=lab.env, cwd=lab.folder)
    second = started("resume", name, *lab.where, env=lab.env, cwd=lab.folder)
    with first as one, second as two:
        outputs = [process.communicate(timeout=120)[0] for process in (one, two)]
        codes = sorted((one.returncode, two.returncode))
    assert codes == [0, 2], outputs
    assert sum("is being driven already" in output for output in outputs) == 1
    assert [entry["type"] for entry in journal_of(lab)].count("driver_started") == 2


def lab_started(lab: Lab, **changes: Any) -> Any:
    return started("run", write_spec(lab.folder, sweep(**changes)), *lab.where, env=lab.env, cwd=lab.folder)


def test_an_edited_spec_is_refused_with_what_differs(inline: Lab) -> None:
    space = {"quality": {"uniform": [1, 2]}}
    shared: dict[str, Any] = {"search": {"kind": "random"}, "space": space, "seeds": [1], "config": {"steps": 2}}
    assert run(inline, samples=1, **shared).returncode == 0
    name = inline.experiment.path.name
    edited = write_spec(inline.folder, sweep(**shared, samples=3, limits={"max_failures": 5, "grace": 10}), "more.json")
    refused = inline.mosaic("resume", name, "--spec", edited, *inline.where)
    assert refused.returncode == 2
    assert f"error: the spec differs from the one that {name} was started with" in refused.stderr
    assert "  samples: 1 -> 3: more trials, after those there are\n" in refused.stderr
    assert "  limits.max_failures: 2 -> 5: holds for each run from its next attempt on\n" in refused.stderr
    assert "  to go on with this: --allow-changed" in refused.stderr
    done = inline.mosaic("resume", name, "--spec", edited, "--allow-changed", *inline.where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed: samples: 1 -> 3: more trials" in done.stderr
    assert len(status_of(inline)["trials"]) == 3
    # From now on that is the spec: the first one would be an edit.
    impossible = write_spec(inline.folder, sweep(**{**shared, "seeds": [1, 2]}, samples=3), "seeds.json")
    refused = inline.mosaic("resume", name, "--spec", impossible, "--allow-changed", *inline.where)
    assert refused.returncode == 2
    assert "seeds: [1] -> [1, 2]: cannot change: start a new experiment with it" in refused.stderr


@pytest.mark.long
def test_stop_and_go_on(lab: Lab) -> None:
    with lab_started(lab, config={"steps": 100, "pause": 0.15}, metric={"name": "score", "at": [100]}) as process:
        wait_for(lambda: lab.experiment_started() and lab.run_ids(), 60)
        time.sleep(1)
        stopped = lab.mosaic("stop", "latest")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
    status = status_of(lab)
    assert status["state"] == "CANCELLED"
    assert status["reason"].startswith("stopped by ")
    assert {trial["state"] for trial in status["trials"]} == {"CANCELLED"}
    assert "CANCELLED in " in output
    heading = lab.mosaic("status").stdout.splitlines()[0]
    time.sleep(1.5)
    assert lab.mosaic("status").stdout.splitlines()[0] == heading  # what is over grows no older
    logs = lab.mosaic("logs", "latest", "t0001").stdout
    assert logs.count("run_started") == 2
    assert "t0001 " in logs
    done = lab.mosaic("resume", "latest", *lab.where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert status_of(lab)["sweep"]["best"]["score"] == 300.0
    assert_curves_continue(lab, 100)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_asha_finds_the_same_best_with_a_fraction_of_the_steps(lab: Lab) -> None:
    """Known curves, real processes: the best trial, with at most 40 % of the steps that all to their end would take.

    Forty trials: who is first at a rung is a matter of chance, and the first few are compared with nobody.
    """
    qualities = random.Random(7).sample(range(1, 100), 40)
    done = lab.mosaic(
        "run",
        write_spec(lab.folder, sweep(
            scheduler="asha", space={"quality": {"choice": [value / 10 for value in qualities]}}, seeds=[1],
            config={"steps": 81, "pause": 0.4}, metric={"name": "score", "at": [3, 9, 27, 81]},
        )),
        *lab.where, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status = status_of(lab)
    best = status["sweep"]["best"]
    assert best["params"] == {"quality": max(qualities) / 10}
    assert best["score"] == pytest.approx(81 * max(qualities) / 10)
    share = sum(run["step"] for run in status["runs"]) / (81 * len(qualities))
    print(f"asha: {share:.0%} of the steps")
    assert share <= 0.4
