"""Trains each algorithm for a few hundred steps, all in one process: importing XuanCe takes seconds.

``python xuance_smoke.py FOLDER [ALGO ...]`` writes one JSON line per algorithm and kind of actions to stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import ConfigError
from mosaic_cluster.worker.program import claim_stdout
from xuance_worker.algorithms import ALGORITHMS, CONTINUOUS, MULTI
from xuance_worker.config import XuanCeConfig
from xuance_worker.runtime import XuanCeRuntime

STEPS = 600

# So small that learning begins within a few hundred steps.
OWN: dict[str, dict[str, Any]] = {
    "DreamerV2": {"total_steps": 300, "parameters": {"start_training": 100, "replay_ratio": 0.03, "seq_len": 16}},
    "DreamerV3": {"total_steps": 300, "parameters": {"start_training": 100, "replay_ratio": 0.03, "seq_len": 16}},
}


def settings(name: str, kind: str, known: dict[str, Any]) -> dict[str, Any]:
    """A config of an algorithm that is small enough."""
    algorithm = ALGORITHMS[name]
    found: dict[str, Any] = {"run_id": name, "seed": 1, "algo": name, "total_steps": STEPS, "num_envs": 2}
    if algorithm.agents == MULTI:
        found["continuous_actions"] = kind == CONTINUOUS
    elif kind == CONTINUOUS:
        found["env_id"] = "Pendulum-v1"
    parameters: dict[str, Any] = {}
    if "start_training" in known:
        parameters["start_training"] = 100
    if "horizon_size" in known:
        found["horizon"] = 50
    if "batch_size" in known:
        found["batch_size"] = 32
    if known.get("buffer_size"):
        on_policy = "use_gae" in known
        found["buffer_size"] = (8 if known.get("use_rnn") else 100) if on_policy else 1000
    own = OWN.get(name, {})
    return {**found, **own, "parameters": {**parameters, **own.get("parameters", {})}}


def main(folder: Path, names: list[str]) -> None:
    """One line per algorithm and kind of actions."""
    out = claim_stdout()
    from xuance_worker.runtime import prepare_library

    prepare_library()
    from xuance_worker.settings import known_settings

    for name in names or list(ALGORITHMS):
        for kind, form in ALGORITHMS[name].forms.items():
            began = time.monotonic()
            line: dict[str, Any] = {"algo": name, "actions": kind}
            place = folder / f"{name}-{kind}"
            place.mkdir(parents=True)
            try:
                probe = XuanCeConfig(run_id="-", algo=name)
                config = XuanCeConfig.from_dict(settings(name, kind, known_settings(probe, form)))
                environ = {"MOSAIC_RUN_DIR": str(place), "MOSAIC_CHECKPOINT_DIR": str(place / "checkpoints")}
                runtime = XuanCeRuntime(config, environ=environ)
                line.update(runtime.run())
                line["metrics"] = sorted(runtime.session.metrics)
                (checkpoint,) = (place / "checkpoints").iterdir()
                line["checkpoint"] = str(checkpoint)
            except ConfigError as error:
                line.update(status="refused", error=str(error))
                traceback.print_exc()
            except Exception as error:
                line.update(status="failed", error=f"{type(error).__name__}: {error}")
                traceback.print_exc()
            line["took"] = round(time.monotonic() - began, 1)
            out.write(json.dumps({"smoke": line}, default=str) + "\n")
            out.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), sys.argv[2:])
