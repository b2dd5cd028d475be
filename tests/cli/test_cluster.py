"""``mosaic cluster``, and plans on clusters that are only described."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from conftest import Lab
from rich.console import Console
from support import ROOT, environment, mosaic

from mosaic_cluster.cli.drawing import bar, picture
from mosaic_cluster.experiments.forecasting import with_placements
from mosaic_cluster.inventory import read_cluster
from mosaic_cluster.placement import Placement

TABLE = "2x(4cpu,8GiB,2xA100-40GB,name=big),30x(2cpu,name=small)"
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "torch", "pynvml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def drawn(*args: object, **more: object) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(picture(*args, **more))  # type: ignore[arg-type]
    return console.export_text()


def test_nodes_of_a_described_cluster(tmp_path: Path) -> None:
    env = environment(COLUMNS="80")
    done = mosaic("cluster", "nodes", "--on", TABLE, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "32 nodes, 68 CPUs" in done.stdout
    assert "big-1 and 1 more like it" in done.stdout
    assert "small-1 and 29 more like it" in done.stdout
    assert "GPU 1  ························  A100 40GiB (file), 40GiB free" in done.stdout
    every = mosaic("cluster", "nodes", "--on", TABLE, "--all", env=env, cwd=tmp_path).stdout
    assert "small-30" in every
    document = json.loads(mosaic("cluster", "nodes", "--on", TABLE, "--json", env=env, cwd=tmp_path).stdout)
    assert len(document["nodes"]) == 32
    assert document["nodes"][0]["gpus"][0]["source"] == "file"


def test_a_wrong_cluster_is_refused_whole(tmp_path: Path) -> None:
    for verb in ("nodes", "simulate"):
        option = "--on" if verb == "nodes" else "--nodes"
        done = mosaic("cluster", verb, option, "(8cpu,3foo,4bar)", env=environment(), cwd=tmp_path)
        assert done.returncode == 2
        assert "column 7: '3foo'" in done.stderr
        assert "column 12: '4bar'" in done.stderr
    done = mosaic("cluster", "simulate", "--nodes", "(8cpu,1xA100-40GB,1xT4)", env=environment(), cwd=tmp_path)
    assert done.returncode == 2
    assert "mixes models of GPUs" in done.stderr


def test_what_runs_where() -> None:
    view = read_cluster("(4cpu,8GiB,1xA100-40GB,name=big),(2cpu,name=small)")
    placement = Placement("run-1", "big", "big", 2, 4 * 1024**3, 0.25, 10 * 1024**3, gpu_indices=(0,))
    text = drawn(replace(with_placements(view, [placement]), quarantine={"small": "disk full"}))
    assert "CPUs   aaaaaaaaaaaa············  2 of 4 free" in text
    assert "GPU 0  aaaaaa··················  A100 40GiB (file), 30GiB free" in text
    assert "a run-1 on big: 2 CPUs, 4GiB of memory, 0.25 GPU (10GiB of its memory)" in text
    assert "small  quarantined: disk full" in text


def test_bars_show_that_something_is_taken_and_something_free() -> None:
    assert bar([(0.001, "a", "")], 10).plain == "a" + "·" * 9
    assert bar([(0.999, "a", "")], 10).plain == "a" * 9 + "·"
    assert bar([(0.5, "a", ""), (0.5, "#", "")], 10).plain == "aaaaa#####"
    assert bar([], 4).plain == "····"
    assert len(bar([(0.3, "a", ""), (0.9, "b", "")], 10).plain) == 10


def test_a_plan_on_a_described_cluster_needs_no_ray(tmp_path: Path, workers: Path, own_cache: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(WITHOUT)
    lab = Lab(tmp_path, environment(blocker, workers, MOSAIC_CACHE=str(own_cache), COLUMNS="80"), None, "inline")
    spec = lab.write({"steps": 3}, limits={"max_duration": "30m"})
    done = lab.mosaic("plan", spec, "--on", ROOT / "cluster_configs" / "mixed-gpus.yaml", "--svg", "p.svg")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on mixed-gpus.yaml, were it idle:" in done.stdout
    assert "at once: 1 run of 1" in done.stdout
    assert "when all is done: after at most 30m" in done.stdout
    assert re.search(r"plain-\d\n  CPUs   a·+  31 of 32 free", done.stdout)
    svg = (tmp_path / "p.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "http" not in svg.replace("http://www.w3.org", "").replace("https://www.textualize.io", "")
    document = json.loads(lab.mosaic("plan", spec, "--on", "(1cpu,1xT4)", "--json").stdout)
    assert document["forecast"]["at_once"] == 1
    assert document["forecast"]["makespan"] == 1800
    assert document["forecast"]["gpus"][0]["memory"] == 15 * 1024**3
    assert any("GPU T4: 15GiB, as the table of models has it" in line for line in document["lines"])
    assert not (tmp_path / "results").exists()


def test_a_plan_of_a_sweep_on_a_described_cluster(inline: Lab) -> None:
    spec = inline.folder / "sweep.json"
    document = {
        "kind": "sweep", "name": "s", "worker": "curves", "config": {"steps": 4}, "seeds": [1, 2], "samples": 5,
        "space": {"quality": {"uniform": [0.1, 1.0]}}, "metric": {"name": "score", "mode": "max"},
        "limits": {"max_duration": "1m"}, "resources": {"cpus": 1},
    }  # fmt: skip
    spec.write_text(json.dumps(document))
    done = inline.mosaic("plan", spec, "--on", "2x(2cpu)", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["forecast"]
    assert (made["runs"], made["at_once"], made["waiting"], made["makespan"]) == (10, 4, 6, 180)


def test_a_picture_needs_a_described_cluster(inline: Lab) -> None:
    done = inline.mosaic("plan", inline.write({"steps": 3}), "--svg", "x.svg", *inline.where)
    assert done.returncode == 2
    assert "give one with --on" in done.stderr
