"""``mosaic plan``: what would happen, and nothing does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from conftest import Lab
from support import FIXTURES, environment, install, quick_start


def test_a_plan_says_what_a_restart_means(inline: Lab) -> None:
    done = inline.mosaic("plan", inline.write({"steps": 3}), *inline.where)
    assert done.returncode == 0
    assert "a restart continues from the run's last checkpoint" in done.stdout
    assert "with 1 CPU, 64MiB of memory" in done.stdout
    assert not (inline.folder / "results").exists()


def test_without_checkpoints_it_begins_again(tmp_path: Path, own_cache: Path) -> None:
    source = tmp_path / "source" / "scripted_worker"
    install(tmp_path / "source", FIXTURES / "workers" / "scripted_worker", "x", "x:y")
    init = source / "__init__.py"
    init.write_text(init.read_text().replace("supports_checkpointing=True", "supports_checkpointing=False"))
    packages = install(tmp_path / "packages", source, "scripted", "scripted_worker:get_worker_metadata")
    lab = Lab(tmp_path, environment(packages, MOSAIC_CACHE=str(own_cache)), None, "inline")
    done = lab.mosaic("plan", lab.write({"steps": 3}), *lab.where)
    assert "this worker keeps no checkpoints: a restart begins the run again" in done.stdout
    # And so it does: the second attempt counts from 1, although the first had saved.
    done = lab.run({"steps": 24, "fail_attempts": 1, "checkpoint_every": 5})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restarts from the beginning (this worker keeps no checkpoints)" in done.stdout
    assert lab.experiment.lines(2)[0][1]["payload"]["resumed_from_step"] is None
    beats = [line["payload"]["step"] for _, line in lab.experiment.lines(2) if line.get("event") == "heartbeat"]
    assert beats == list(range(1, 25))


def test_a_plan_as_json(tmp_path: Path, own_cache: Path) -> None:
    packages = quick_start(tmp_path / "packages")
    lab = Lab(tmp_path, environment(packages, MOSAIC_CACHE=str(own_cache)), None, "inline")
    done = lab.mosaic("plan", lab.write({"env_id": "x"}, worker="myworker"), *lab.where, "--json")
    document = json.loads(done.stdout)
    assert document["runs"][0]["answer"] == "placed"
    assert document["spec"]["worker"] == "myworker"


def test_a_dry_run_finds_what_only_the_worker_knows(tmp_path: Path, own_cache: Path) -> None:
    lab = Lab(tmp_path, environment(MOSAIC_CACHE=str(own_cache)), None, "inline")
    good, bad = ({"env_id": name, "total_steps": 100} for name in ("CartPole-v1", "CartPole-v9"))
    done = lab.mosaic("plan", lab.write(good, worker="random"), *lab.where, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dry run of random on this machine: takes it" in done.stdout
    spec = lab.write(bad, worker="random")
    assert lab.mosaic("plan", spec, *lab.where).returncode == 0
    done = lab.mosaic("plan", spec, *lab.where, "--dry-run")
    assert done.returncode == 1
    assert "dry run of random on this machine: the worker refused its config" in done.stdout
    assert "CartPole-v9" in done.stdout
    done = lab.mosaic("plan", spec, "--on", "2x(4cpu)", "--dry-run", "--json")
    assert done.returncode == 1
    (tried,) = json.loads(done.stdout)["dry_runs"]
    assert (tried["worker"], tried["fine"], tried["config"]) == ("random", False, bad)
    assert not (tmp_path / "results").exists()


def test_a_worker_without_a_dry_run(inline: Lab) -> None:
    code = "import argparse; parser = argparse.ArgumentParser(); parser.add_argument('--config'); parser.parse_args()"
    spec = inline.write({"steps": 3}, command=[sys.executable, "-c", code])
    done = inline.mosaic("plan", spec, *inline.where, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert "dry run of scripted on this machine: has no dry run: nothing was checked" in done.stdout


def test_what_can_never_run_is_no_success(inline: Lab) -> None:
    done = inline.mosaic("plan", inline.write({"steps": 3}, resources={"cpus": 999}), *inline.where)
    assert done.returncode == 1
    assert "can never run on this cluster" in done.stdout
