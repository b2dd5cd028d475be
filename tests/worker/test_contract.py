"""The names a worker may import, and what importing them costs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import mosaic_cluster.worker as contract

NAMES = {
    "POLICY_ENTRY_POINT_GROUP",
    "WORKER_ENTRY_POINT_GROUP",
    "ArtifactsMetadata",
    "CheckpointMetadata",
    "ConfigError",
    "DiscoveredWorker",
    "LifecycleEvent",
    "LifecycleEventType",
    "MosaicError",
    "Policy",
    "PolicyClient",
    "PolicyError",
    "Problem",
    "StopRequest",
    "TelemetryEmitter",
    "TensorBoardMetadata",
    "WandBMetadata",
    "WorkerAnalyticsManifest",
    "WorkerCLI",
    "WorkerCapabilities",
    "WorkerConfig",
    "WorkerDiscovery",
    "WorkerMetadata",
    "WorkerRuntime",
    "WorkerSession",
    "build_config",
    "config_field",
    "config_problems",
    "describe_config",
    "discover_workers",
    "extract_worker_config",
    "installed_version",
    "lazy_names",
    "load_worker_config_from_file",
    "refuse_game",
    "run_program",
    "serve_policy",
}


def test_exported_names() -> None:
    assert set(contract.__all__) == NAMES
    assert set(dir(contract)) >= NAMES
    for name in NAMES:
        assert getattr(contract, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        contract.Nothing  # noqa: B018
    assert contract.WORKER_ENTRY_POINT_GROUP == "mosaic.workers"


def test_importing_is_cheap_and_pulls_in_nothing_heavy(sandbox: Any) -> None:
    done = sandbox.code("""
    import json, sys
    import mosaic_cluster.worker
    light = sorted(sys.modules)
    from mosaic_cluster.worker import *
    print(json.dumps([light, sorted(sys.modules)]))
    """)
    light, everything = map(set, json.loads(done.stdout))
    assert not light & {"dataclasses", "json.encoder", "mosaic_cluster.worker.telemetry"} - {"json.encoder"}
    foreign = {name.partition(".")[0] for name in everything} & {"numpy", "pydantic", "pyarrow", "ray", "torch", "rich"}
    assert not foreign
    assert not everything & {"argparse", "importlib.metadata", "logging", "traceback"} - light


def _old_python() -> str | None:
    candidates = [shutil.which("python3.8"), *Path.home().glob(".pyenv/versions/3.8.*/bin/python")]
    for candidate in candidates:
        if candidate is None:
            continue
        done = subprocess.run([str(candidate), "-c", ""], capture_output=True, check=False)
        if done.returncode == 0:
            return str(candidate)
    return None


def test_on_the_oldest_python(sandbox: Any) -> None:
    python = _old_python()
    if python is None:
        pytest.skip("no Python 3.8 here")
    code = """
from __future__ import annotations
from dataclasses import dataclass
from mosaic_cluster.worker import *
import mosaic_cluster.worker.probe

@dataclass
class Config:
    run_id: str
    seed: int | None = None
    sizes: list[int] | None = None
    names: dict[str, int] = config_field({}, help="x")

assert build_config(Config, {"run_id": "r", "seed": 3, "sizes": [1.0]}).sizes == [1]
problems = config_problems(Config, {"run_id": "r", "seed": "x", "sizes": ["y"]})
assert [problem.path for problem in problems] == ["seed", "sizes[0]"]
assert describe_config(Config)[1]["type"] == "int | None"
assert discover_workers() == []
TelemetryEmitter("run").heartbeat({"x": {1}, "y": float("nan"), "z": {2: 1, "2": 3}})
"""
    (sandbox.folder / "pycache").mkdir()
    done = subprocess.run(
        [python, "-W", "error", "-c", code],
        env={
            "PYTHONPATH": str(Path(contract.__file__).parents[2]),
            "PYTHONPYCACHEPREFIX": str(sandbox.folder / "pycache"),
        },
        cwd=sandbox.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["payload"] == {"x": [1], "y": "NaN", "z": {"2": 1, "2#2": 3}}
