"""What `make demo` does, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import Lab
from support import ROOT, assert_tables_equal_logs, environment, write_spec

from mosaic_cluster.telemetry import TelemetryReader

EXAMPLE = ROOT / "docs" / "examples" / "cartpole.yaml"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1, marks=pytest.mark.long),
        pytest.param(2, marks=pytest.mark.workers),
        pytest.param(3, marks=pytest.mark.workers),
    ],
)
def test_the_demo_learns(seed: int, tmp_path: Path, own_cache: Path) -> None:
    lab = Lab(tmp_path, environment(MOSAIC_CACHE=str(own_cache)), None)
    document = {**yaml.safe_load(EXAMPLE.read_text().replace("150_000", "150000")), "seed": seed}
    document["storage"] = str(tmp_path / "results")
    done = lab.mosaic("run", write_spec(tmp_path, document), *lab.where, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = lab.experiment
    assert_tables_equal_logs(experiment)
    rows = TelemetryReader(experiment.path / "telemetry").table("episodes")
    last = rows["total_reward"].to_pylist()[-20:]
    assert sum(last) / len(last) >= 400
    manifest = json.loads((experiment.run_dir / "analytics.json").read_text())
    for name in manifest["artifacts"]["checkpoints"]["files"]:
        assert (experiment.run_dir / name).is_file()
