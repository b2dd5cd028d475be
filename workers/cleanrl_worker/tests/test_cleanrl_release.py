"""The real release of CleanRL, in the environments that environment.toml declares, built where they are not yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cleanrl_worker.algorithms import FLAGS, SCRIPTS, flag_of

from mosaic_cluster.telemetry import TelemetryReader

pytestmark = [pytest.mark.workers, pytest.mark.timeout(1800)]

DEFAULTS = """
import argparse, importlib, json, sys
seen = {}
def remember(self, *args, **more):
    seen[module] = {action.dest.replace("_", "-"): action.default for action in self._actions}
    raise KeyboardInterrupt
argparse.ArgumentParser.parse_args = remember
for module in sys.argv[1:]:
    try:
        importlib.import_module("cleanrl." + module).parse_args()
    except KeyboardInterrupt:
        pass
print(json.dumps(seen))
"""


class Ran:
    """A run of an algorithm by the whole program, to its end."""

    def __init__(self, folder: Path, algo: str, **config: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "kind": "run", "name": "release", "worker": "cleanrl", "seed": 7, "config": {"algo": algo, **config},
            "telemetry": {"bridges": {"tensorboard": False}},
        }  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(spec))
        env = {**os.environ, "MOSAIC_STORAGE": str(folder / "results")}
        if os.environ.get("MOSAIC_TEST_ENVIRONMENTS"):
            env["MOSAIC_CACHE"] = os.environ["MOSAIC_TEST_ENVIRONMENTS"]
        command = [sys.executable, "-m", "mosaic_cluster.cli", "run", "spec.json", "--backend", "inline"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said
        (self.folder,) = (folder / "results").iterdir()
        (self.run_dir,) = (self.folder / "runs").iterdir()
        self.reader = TelemetryReader(self.folder / "telemetry")

    @property
    def python(self) -> str:
        """The interpreter that the worker ran in."""
        launch = json.loads((self.run_dir / "attempts" / "1" / "launch.json").read_text())
        return str(launch["command"][0])

    def episodes(self) -> list[tuple[float, int]]:
        table = self.reader.table("episodes", columns=["total_reward", "steps"])
        return [(row["total_reward"], row["steps"]) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("algo", "config"),
    [
        ("cleanrl.ppo", {"total_steps": 4096}),
        ("cleanrl.dqn", {"total_steps": 3000, "learning_starts": 500}),
    ],
)
def test_a_script_runs_unmodified(algo: str, config: dict[str, Any], tmp_path: Path) -> None:
    first, again = Ran(tmp_path / "first", algo, **config), Ran(tmp_path / "again", algo, **config)
    assert not Path(first.python).is_relative_to(sys.prefix)
    assert len(first.episodes()) > 30
    assert first.episodes() == again.episodes()  # one seed, one run
    steps = first.reader.table("metrics", columns=["step"])["step"].to_pylist()
    assert max(steps) == config["total_steps"]
    manifest = json.loads((first.run_dir / "analytics.json").read_text())
    assert list((first.run_dir / manifest["artifacts"]["tensorboard"]["log_dir"]).glob("events.out.tfevents.*"))
    _assert_defaults(first.python, SCRIPTS[algo].library)


def _assert_defaults(python: str, library: str) -> None:
    """What the table of settings says of the scripts of this environment is what they have."""
    modules = {script.module: script for script in SCRIPTS.values() if script.library == library}
    done = subprocess.run([python, "-c", DEFAULTS, *modules], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for module, script in modules.items():
        for name, default in {**script.defaults, "gamma": 0.99}.items():
            flag = flag_of(name)
            assert flag in found[module], f"{module} has no --{flag}"
            if name != "env_id":
                assert found[module][flag] == default, f"{module} --{flag}"
        assert all(flag in found[module] for flag in FLAGS.values())
