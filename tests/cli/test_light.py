"""The small client: what it loads, and that it needs no Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Lab
from support import environment, mosaic

HEAVY = ("ray", "torch", "pyarrow", "numpy", "pydantic", "gymnasium", "obstore")
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "torch", "gymnasium", "pettingzoo"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import mosaic_cluster", HEAVY),
        ("import mosaic_cluster.cli as cli; cli.build()", HEAVY),
        ("import mosaic_cluster.app.listing, mosaic_cluster.app.progress", HEAVY),  # `mosaic ls` and `mosaic status`
        ("import mosaic_cluster.app.driving", ("ray", "torch", "gymnasium", "duckdb", "pandas")),  # `mosaic run`
        ("import mosaic_cluster.runtime.attempt, mosaic_cluster.runtime.hub_service", ("pydantic", "duckdb")),  # actors
    ],
    ids=["package", "help", "reading", "running", "actors"],
)
def test_what_is_not_loaded_to_begin_with(code: str, heavy: tuple[str, ...]) -> None:
    check = f"{code}\nimport sys, json; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_without_ray_torch_and_gymnasium(tmp_path: Path, workers: Path, own_cache: Path) -> None:
    """As after `pip install mosaic-cluster`: check, run here, read."""
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCK)
    lab = Lab(tmp_path, environment(blocker, workers, MOSAIC_CACHE=str(own_cache)), None, "inline")
    done = lab.run({"steps": 3})
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(lab.mosaic("status", "--json").stdout)["state"] == "COMPLETED"
    assert "RunSpec" in json.loads(lab.mosaic("schema").stdout)["$defs"]
    refused = lab.mosaic("run", lab.write({"steps": 3}))
    assert refused.returncode == 1
    assert "pip install 'mosaic-cluster[cluster]'" in refused.stderr


def test_help_of_every_verb(tmp_path: Path) -> None:
    verbs = "run plan resume ls status logs stop pause unpause bridge workers cluster schema"
    for verb in verbs.split():
        done = mosaic(verb, "--help", env=environment(), cwd=tmp_path)
        assert done.returncode == 0
        assert f"mosaic {verb}" in done.stdout.replace("python -m mosaic_cluster.cli", "mosaic")
