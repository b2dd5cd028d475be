"""Whole sweeps, told against simulated runs."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from simulation import SimBackend

from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.home import ExperimentHome

from .conftest import Killed, Sweeps


def trials_of(conductor: Conductor) -> dict[str, dict[str, Any]]:
    return {trial["trial"]: trial for trial in conductor.status_document()["trials"]}


def best_of(conductor: Conductor) -> dict[str, Any]:
    return conductor.status_document()["sweep"]["best"]


def completions(home: ExperimentHome) -> Counter[str]:
    from mosaic_cluster.experiments.journal import Journal

    return Counter(
        entry["run_id"]
        for entry in Journal(home.storage).entries()
        if entry["type"] == "run_ended" and entry["state"] == "COMPLETED"
    )


def test_a_grid_runs_every_configuration_with_every_seed(sweeps: Sweeps) -> None:
    conductor = sweeps.run()
    assert conductor.state() == "COMPLETED"
    trials = trials_of(conductor)
    assert [trial["params"] for trial in trials.values()] == [{"quality": value} for value in range(1, 7)]
    assert {trial["state"] for trial in trials.values()} == {"COMPLETED"}
    assert [trial["score"] for trial in trials.values()] == [9.0 * value for value in range(1, 7)]
    assert best_of(conductor)["params"] == {"quality": 6}
    assert [run["seed"] for run in conductor.status_document()["runs"]] == [1, 2] * 6
    assert set(completions(conductor.home).values()) == {1}


def test_trials_are_judged_by_the_statistic_over_seeds(sweeps: Sweeps) -> None:
    spread = {"steps": 9, "spread": 0.5}  # seeds 3, 1 and 2 give quality -0.5, 0, +0.5
    for statistic, expected in {"mean": 9.0, "median": 9.0, "min": 4.5, "max": 13.5}.items():
        conductor = sweeps.run(
            config=spread,
            space={"quality": {"choice": [1]}},
            seeds=[1, 2, 3],
            metric={"name": "score", "statistic": statistic},
        )
        (trial,) = trials_of(conductor).values()
        assert trial["score"] == pytest.approx(expected)
        assert sorted(trial["values"]) == [4.5, 9.0, 13.5]


def test_less_is_better_where_the_spec_says_so(sweeps: Sweeps) -> None:
    conductor = sweeps.run(metric={"name": "score", "mode": "min"})
    assert best_of(conductor)["params"] == {"quality": 1}


def test_no_more_than_there_is_room_for_and_no_more_trials_than_allowed(sweeps: Sweeps) -> None:
    sweeps.run(slots=3)
    assert sweeps.backend.most_running == 3
    sweeps.run(slots=8, limits={"max_concurrent_trials": 2})
    assert sweeps.backend.most_running == 4  # two seeds each


def test_asha_stops_what_is_behind_and_every_seed_of_it(sweeps: Sweeps) -> None:
    order = [6, 1, 5, 2, 4, 3]
    conductor = sweeps.run(scheduler="asha", space={"quality": {"choice": order}}, slots=2)
    trials = trials_of(conductor)
    assert conductor.state() == "COMPLETED"
    assert {t["params"]["quality"]: t["state"] for t in trials.values()} == {
        6: "COMPLETED", 1: "STOPPED", 5: "STOPPED", 2: "STOPPED", 4: "STOPPED", 3: "STOPPED",
    }  # fmt: skip
    stopped = [run for run in conductor.status_document()["runs"] if run["state"] == "CANCELLED"]
    assert len(stopped) == 10
    assert {run["code"] for run in stopped} == {"stopped_early"}
    assert "stopped early by asha at rung 1: score 1 is not among the best" in stopped[0]["reason"]
    everything = 6 * 2 * 9
    assert sweeps.backend.steps < everything * 0.5


def test_hyperband_pauses_a_bracket_until_it_is_full(sweeps: Sweeps) -> None:
    values = list(range(17, 0, -1))
    conductor = sweeps.run(scheduler="hyperband", space={"quality": {"choice": values}}, slots=6, seeds=[1])
    states = Counter(trial["state"] for trial in trials_of(conductor).values())
    # Three brackets of 3, 5 and 9 trials, which end with 3, 2 and 1 (Li et al. 2018, table 1, for R = 9, eta = 3).
    assert states == {"COMPLETED": 6, "STOPPED": 11}
    paused = [run for run in conductor.status_document()["runs"] if run["attempt"] > 1]
    assert paused, "nothing was paused and continued"
    assert conductor.state() == "COMPLETED"
    rungs = Counter(t["rung"] for t in trials_of(conductor).values() if t["state"] == "STOPPED")
    assert rungs == {1: 6, 2: 5}
    assert sweeps.backend.steps < 17 * 9 * 0.65


def test_pbt_copies_the_better_and_changes_what_it_copied(sweeps: Sweeps) -> None:
    conductor = sweeps.run(
        scheduler={"kind": "pbt", "quantile_fraction": 0.25},
        search={"kind": "random", "seed": 3},
        samples=8,
        space={"quality": {"uniform": [1, 10]}},
        config={"steps": 40},
        metric={"name": "score", "at": [10, 20, 30, 40]},
        slots=16,
    )
    trials = trials_of(conductor)
    assert conductor.state() == "COMPLETED"
    lineage = [(name, born) for name, trial in trials.items() for born in trial["lineage"]]
    assert len(lineage) == 6  # two of eight, at three rungs
    for name, born in lineage:
        assert 1 <= born["params"]["quality"] <= 10
        source = trials[born["source"]]
        assert [copied["run_id"] for copied in born["runs"].values()] == source["runs"]
        for run_id, copied in born["runs"].items():
            life = conductor.lives[run_id]
            assert run_id in trials[name]["runs"]
            begun = [attempt for attempt in life.attempts if attempt["attempt"] == copied["attempt"]]
            assert begun[0]["resumed_from_step"] == copied["step"]
            assert conductor.home.path.joinpath(copied["path"]).is_file()
    # What was copied counts: no trial ends below what the worst of the first quarter would have had on its own.
    worst_start = min(trial["scores"][0][1] for trial in trials.values())
    assert min(trial["score"] for trial in trials.values()) > 4 * worst_start


def test_optuna_goes_where_it_is_better(sweeps: Sweeps) -> None:
    shared = {"samples": 50, "space": {"quality": {"uniform": [0, 10]}}, "seeds": [1], "slots": 1}
    scores: dict[str, list[float]] = {}
    for search in ("random", "optuna"):
        conductor = sweeps.run(search={"kind": search, "seed": 1}, **shared)
        scores[search] = [trial["score"] for trial in trials_of(conductor).values()]
    late = slice(30, None)
    assert sum(scores["optuna"][late]) > 1.3 * sum(scores["random"][late])


def test_seeds_that_do_not_fit_take_turns_rung_by_rung(sweeps: Sweeps) -> None:
    conductor = sweeps.run(slots=1, scheduler="asha", space={"quality": {"choice": [6, 1, 2]}}, seeds=[1, 2, 3])
    trials = trials_of(conductor)
    assert [trial["state"] for trial in trials.values()] == ["COMPLETED", "STOPPED", "STOPPED"]
    steps = {run["trial"]: [] for run in conductor.status_document()["runs"]}
    for run in conductor.status_document()["runs"]:
        steps[run["trial"]].append(run["step"])
    # No seed of a stopped trial ran on to where it was not wanted.
    assert max(steps["t0002"]) <= 3
    assert max(steps["t0003"]) <= 3


def test_without_a_scheduler_seeds_run_in_whole_waves(sweeps: Sweeps) -> None:
    conductor = sweeps.run(slots=1, seeds=[1, 2, 3], space={"quality": {"choice": [1, 2]}})
    assert {run["attempt"] for run in conductor.status_document()["runs"]} == {1}


def test_a_failing_seed_fails_its_trial_and_no_other(sweeps: Sweeps) -> None:
    conductor = sweeps.run(
        space={"quality": {"choice": [1, 2]}, "fail_seed": {"choice": [2, None]}}, limits={"max_failures": 0}
    )
    trials = trials_of(conductor)
    assert {name: trial["state"] for name, trial in trials.items()} == {
        "t0001": "FAILED", "t0002": "COMPLETED", "t0003": "FAILED", "t0004": "COMPLETED",
    }  # fmt: skip
    assert conductor.state() == "FAILED"
    assert best_of(conductor)["trial"] == "t0004"
    (first, _) = conductor.status_document()["sweep"]["failed"]
    assert first["trial"] == "t0001"
    assert "its run with seed 2 failed: the worker exited with code 1" in first["reason"]
    sibling = conductor.lives[trials["t0001"]["runs"][0]]
    assert sibling.code in ("trial_over", "completed")


def test_a_metric_that_is_never_reported_is_named_with_those_that_are(sweeps: Sweeps) -> None:
    conductor = sweeps.run(metric={"name": "reward", "at": [1, 3, 9]}, space={"quality": {"choice": [1]}})
    (trial,) = trials_of(conductor).values()
    assert trial["state"] == "FAILED"
    assert trial["reason"] == "its run with seed 1 never reported reward; it reported score"


@pytest.mark.parametrize("scheduler", ["none", "asha", "hyperband", "pbt"])
def test_values_that_are_no_number_are_no_success(scheduler: str, sweeps: Sweeps) -> None:
    conductor = sweeps.run(
        scheduler=scheduler, config={"steps": 9, "nan_below": 3}, space={"quality": {"choice": [1, 2, 3, 4]}}
    )
    trials = trials_of(conductor)
    assert best_of(conductor)["params"]["quality"] >= 4
    for trial in trials.values():
        if trial["params"]["quality"] < 3:
            assert trial["score"] is None
            assert "no finite number" in trial["reason"]


def test_several_workers_take_turns(sweeps: Sweeps) -> None:
    conductor = sweeps.run(
        worker={"choice": ["curves", {"name": "other", "config": {"steps": 3}, "space": {"extra": {"choice": [7]}}}]},
        search={"kind": "random", "seed": 0},
        samples=6,
        metric={"name": "score"},
    )
    trials = list(trials_of(conductor).values())
    assert [trial["worker"] for trial in trials] == ["curves", "other"] * 3
    assert all(("extra" in trial["params"]) == (trial["worker"] == "other") for trial in trials)
    steps = {run["trial"]: run["step"] for run in conductor.status_document()["runs"]}
    assert [steps[trial["trial"]] for trial in trials] == [9, 3] * 3


def test_asha_finds_the_best_with_a_fraction_of_the_steps(sweeps: Sweeps) -> None:
    """Known curves, 32 configurations, rungs at 1, 3, 9 and 27 steps."""
    shared = {
        "search": {"kind": "random", "seed": 5},
        "samples": 32,
        "space": {"quality": {"uniform": [0, 10]}},
        "config": {"steps": 27},
        "metric": {"name": "score", "at": [1, 3, 9, 27]},
        "slots": 8,
    }
    full = sweeps.run(scheduler="none", **shared)
    all_steps, best = sweeps.backend.steps, best_of(full)
    early = sweeps.run(scheduler="asha", **shared)
    assert best_of(early)["params"] == best["params"]
    assert best_of(early)["score"] == best["score"]
    assert sweeps.backend.steps <= 0.4 * all_steps, sweeps.backend.steps / all_steps


SPECS: dict[str, dict[str, Any]] = {
    "grid": {"space": {"quality": {"choice": [1, 2, 3]}}, "config": {"steps": 4},
             "metric": {"name": "score", "at": [2, 4]}},
    "asha": {"scheduler": "asha", "space": {"quality": {"choice": [5, 1, 3]}}, "slots": 2},
    "optuna": {
        "search": {"kind": "optuna", "seed": 1}, "samples": 4, "space": {"quality": {"uniform": [0, 9]}},
        "config": {"steps": 3}, "metric": {"name": "score"}, "slots": 1, "seeds": [1],
    },
    "hyperband": {"scheduler": "hyperband", "space": {"quality": {"choice": [1, 4, 2, 5]}}, "seeds": [1],
                  "metric": {"name": "score", "at": [3, 9]}},
    "pbt": {"scheduler": "pbt", "space": {"quality": {"choice": [1, 4, 2, 5]}}, "seeds": [1, 2], "slots": 8,
            "config": {"steps": 6}, "metric": {"name": "score", "at": [2, 4, 6]}},
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_killed_before_any_journal_entry_it_goes_on_to_the_same_end(name: str, sweeps: Sweeps) -> None:
    """The driver dies at every third moment there is, once each; what it began is finished by the next.

    Which third, chance decides (pytest-randomly prints its seed): some runs of the suite see all of them.
    """
    changes = dict(SPECS[name])
    slots = changes.pop("slots", 4)
    undisturbed = sweeps.run(slots=slots, **changes)
    count = len(undisturbed.home.storage.list("journal"))
    assert count > 15
    for die_at in range(3 + random.randrange(3), count + 1, 3):
        before = len(sweeps.homes())
        with pytest.raises(Killed):
            sweeps.run(slots=slots, die_at=die_at, **changes)
        home = sweeps.homes()[before]
        resumed = sweeps.resume(home, slots=slots)
        document = resumed.status_document()
        assert document["state"] == "COMPLETED", die_at
        assert "note" not in document["sweep"], document["sweep"]
        assert max(completions(home).values()) == 1
        assert all(run["state"] in ("COMPLETED", "CANCELLED") for run in document["runs"])
        if name in ("grid", "optuna"):
            assert best_of(resumed)["params"] == best_of(undisturbed)["params"]
            assert [t["params"] for t in trials_of(resumed).values()] == [
                t["params"] for t in trials_of(undisturbed).values()
            ]
            assert [t["score"] for t in trials_of(resumed).values()] == [
                t["score"] for t in trials_of(undisturbed).values()
            ]
        else:
            assert best_of(resumed)["score"] is not None


def test_killed_again_and_again(sweeps: Sweeps) -> None:
    changes: dict[str, Any] = {"scheduler": "asha", "slots": 3}
    with pytest.raises(Killed):
        sweeps.run(die_at=8, **changes)
    (home,) = sweeps.homes()
    for more in range(30):
        try:
            conductor = sweeps.resume(home, slots=3, die_at=16 + 14 * more)
        except Killed:
            continue
        break
    assert more >= 3
    assert conductor.status_document()["state"] == "COMPLETED"
    assert max(completions(home).values()) == 1


def test_failed_trials_are_tried_again_only_when_asked(sweeps: Sweeps) -> None:
    changes: dict[str, Any] = {
        "space": {"quality": {"choice": [1, 2]}}, "limits": {"max_failures": 0}, "config": {"steps": 9, "fail_seed": 2},
    }  # fmt: skip
    conductor = sweeps.run(**changes)
    assert conductor.state() == "FAILED"
    again = sweeps.resume(conductor.home, retry_failed=True)
    assert again.state() == "FAILED"
    assert {life.attempt for life in again.lives.values() if life.plan.seed == 2} == {2}


def test_an_interrupted_sweep_is_cancelled_and_goes_on(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = SimBackend.wait
    turns = [0]

    def interrupting(backend: SimBackend, handles: Any, timeout: float) -> None:
        turns[0] += 1
        if turns[0] == 5:
            assert sweeps.conductor is not None
            sweeps.conductor.request_stop("cancelled", "interrupted (Ctrl-C)")
        wait(backend, handles, timeout)

    monkeypatch.setattr(SimBackend, "wait", interrupting)
    from mosaic_cluster.experiments.launching import launch, prepare

    sweeps.conductor = launch(prepare(sweeps.spec(), sweeps.catalog), sweeps.backend, clock=sweeps.clock)
    assert sweeps.conductor.run_to_end() == "CANCELLED"
    resumed = sweeps.resume(sweeps.conductor.home)
    assert resumed.state() == "COMPLETED"
    assert best_of(resumed)["params"] == {"quality": 6}
    assert max(completions(resumed.home).values()) == 1


def test_hyperband_goes_on_when_the_last_one_awaited_fails(sweeps: Sweeps) -> None:
    """After a first halving, nobody but us tells Tune that a bracket waits for a trial that is gone."""
    for failing in range(1, 18):
        conductor = sweeps.run(
            scheduler={"kind": "hyperband", "reduction_factor": 2},
            space={"quality": {"choice": list(range(1, 18))}},
            config={"steps": 8, "nan_from": 4, "nan_quality": failing},
            metric={"name": "score", "at": [1, 4, 8]}, seeds=[1], slots=20,
        )  # fmt: skip
        states = {trial["state"] for trial in trials_of(conductor).values()}
        assert states <= {"COMPLETED", "STOPPED"}, failing
        assert conductor.state() == "COMPLETED"


def test_what_a_copied_run_reached_before_does_not_count(sweeps: Sweeps) -> None:
    """Runs that trained past the next rung while they were told to pause are judged by the copy's history."""
    conductor = sweeps.run(
        scheduler="pbt", space={"quality": {"choice": [1, 2, 8, 9]}}, seeds=[1], slots=8,
        config={"steps": 60, "stride": 10}, metric={"name": "score", "at": [10, 20, 60]},
    )  # fmt: skip
    trials = trials_of(conductor)
    copied = [trial for trial in trials.values() if trial["lineage"]]
    assert copied
    for trial in copied:
        born = trial["lineage"][0]
        after = [score for at, score in trial["scores"] if at > born["at"]]
        (copy,) = born["runs"].values()
        assert copy["step"] == born["at"]  # what was saved at the rung, though the source trained on
        # The copied checkpoint alone was worth more than twenty steps of the worst.
        assert all(score > 20 * 2 for score in after), trial


def test_an_accepted_change_stays_accepted(sweeps: Sweeps) -> None:
    changes: dict[str, Any] = {"search": {"kind": "random"}, "space": {"quality": {"uniform": [1, 2]}}}
    first = sweeps.run(samples=2, **changes)
    document = sweeps.spec(samples=5, **changes)
    with pytest.raises(Killed):
        sweeps.resume(first.home, document=document, allow_changed=True, die_at=30)
    again = sweeps.resume(first.home)
    assert again.state() == "COMPLETED"
    assert len(trials_of(again)) == 5


def test_retrying_is_not_forgotten_when_the_driver_dies(sweeps: Sweeps) -> None:
    changes: dict[str, Any] = {
        "space": {"quality": {"choice": [1]}}, "limits": {"max_failures": 1}, "config": {"steps": 9, "fail_seed": 2},
    }  # fmt: skip
    conductor = sweeps.run(**changes)
    assert conductor.state() == "FAILED"
    attempts = conductor.lives[trials_of(conductor)["t0001"]["runs"][1]].attempt
    count = len(conductor.home.storage.list("journal"))
    with pytest.raises(Killed):
        sweeps.resume(conductor.home, retry_failed=True, die_at=count + 5)
    again = sweeps.resume(conductor.home)
    life = again.lives[trials_of(again)["t0001"]["runs"][1]]
    assert life.attempt >= attempts + 2  # both attempts of a fresh count
    assert again.state() == "FAILED"


def test_an_unfinished_sweep_with_a_failed_trial_is_cancelled_not_failed(sweeps: Sweeps) -> None:
    from mosaic_cluster.experiments.launching import launch, prepare

    document = sweeps.spec(space={"quality": {"choice": [1, 2, 3]}}, seeds=[1], limits={"max_failures": 0},
                           config={"steps": 50, "fail_quality": 1})  # fmt: skip
    sweeps.conductor = launch(prepare(document, sweeps.catalog), sweeps.backend, clock=sweeps.clock)
    for _ in range(6):
        sweeps.conductor.step()
    assert trials_of(sweeps.conductor)["t0001"]["state"] == "FAILED"
    sweeps.conductor.request_stop("cancelled", "interrupted (Ctrl-C)")
    assert sweeps.conductor.run_to_end() == "CANCELLED"
    document = sweeps.conductor.status_document()
    assert document["reason"].startswith("interrupted (Ctrl-C)")
    assert [trial["state"] for trial in document["trials"]] == ["FAILED", "CANCELLED", "CANCELLED"]
    resumed = sweeps.resume(sweeps.conductor.home)
    assert [trial["state"] for trial in trials_of(resumed).values()] == ["FAILED", "COMPLETED", "COMPLETED"]


def test_given_up_at_once_it_is_cancelled(sweeps: Sweeps) -> None:
    from mosaic_cluster.experiments.launching import launch, prepare

    sweeps.conductor = launch(prepare(sweeps.spec(), sweeps.catalog), sweeps.backend, clock=sweeps.clock)
    for _ in range(3):
        sweeps.conductor.step()
    assert sweeps.conductor.abandon("interrupted twice") == "CANCELLED"
    assert sweeps.resume(sweeps.conductor.home).state() == "COMPLETED"


@pytest.mark.parametrize("unpause_after", [1, 2, 5])
@pytest.mark.parametrize("scheduler", ["none", "hyperband"])
def test_a_pause_taken_back_before_it_took_effect(scheduler: str, unpause_after: int, sweeps: Sweeps) -> None:
    from mosaic_cluster.experiments import control
    from mosaic_cluster.experiments.launching import launch, prepare

    document = sweeps.spec(scheduler=scheduler, config={"steps": 9, "fail_quality": 3}, limits={"max_failures": 1})
    conductor = launch(prepare(document, sweeps.catalog), sweeps.backend, clock=sweeps.clock)
    for verb in ("pause", "unpause", "pause", "unpause"):
        for _ in range(unpause_after):
            conductor.step()
        control.send(conductor.home.storage, verb)
    for _ in range(600):
        if not conductor._goes_on():
            break
        conductor.step()
    assert conductor.state() == "FAILED"  # only for the one that fails
    states = {trial["params"]["quality"]: trial["state"] for trial in trials_of(conductor).values()}
    assert states[3] == "FAILED"
    assert all(state in ("COMPLETED", "STOPPED") for quality, state in states.items() if quality != 3)


def test_a_checkpoint_that_cannot_be_copied_is_told(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    from mosaic_cluster.runtime import copying

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "copy_checkpoint", full)
    conductor = sweeps.run(**{**SPECS["pbt"], "slots": 8})
    assert conductor.state() == "COMPLETED"
    assert not any(trial["lineage"] for trial in trials_of(conductor).values())
    from mosaic_cluster.experiments.journal import Journal

    told = [entry.get("skipped", "") for entry in Journal(conductor.home.storage).entries()]
    assert any("checkpoint cannot be copied: [Errno 28] No space left on device" in each for each in told)
