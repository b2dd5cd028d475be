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

from xuance_worker.algorithms import ALGORITHMS, CONTINUOUS, MULTI
from xuance_worker.config import XuanCeConfig
from xuance_worker.runtime import XuanCeRuntime

from mosaic_cluster.worker import ConfigError
from mosaic_cluster.worker.program import claim_stdout

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


def plays(checkpoint: Path) -> str:
    """Load the policy from what was saved, and let it act twice, in two environments at once."""
    import numpy as np
    from xuance_worker.policy import load_policy

    about = json.loads((checkpoint / "checkpoint.json").read_text())
    spaces = about["spaces"]
    policy = load_policy(str(checkpoint))
    for _ in range(2):
        if "agents" in spaces:
            seen = {agent: np.full(space["shape"], 0.1, np.float32) for agent, space in spaces["observation"].items()}
            for actions in policy.act_batch([seen, seen]):
                for agent, action in actions.items():
                    if not is_legal(action, spaces["action"][agent]):
                        return f"{agent}: {action!r}"
        else:
            for action in policy.act_batch(np.full((2, *spaces["observation"]["shape"]), 0.1, np.float32)):
                if not is_legal(action, spaces["action"]):
                    return repr(action)
    return "legal"


def is_legal(action: Any, described: dict[str, Any]) -> bool:
    """Whether it is in the action space that the checkpoint describes."""
    from xuance_worker.checkpoints import build_space

    return bool(build_space(described).contains(action))


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
                (checkpoint,) = (place / "checkpoints").glob("[!.]*")
                line["acts"] = plays(checkpoint)
            except ConfigError as error:
                line.update(status="refused", error=str(error))
                traceback.print_exc()
            except Exception as error:  # noqa: BLE001 - whatever XuanCe raises
                line.update(status="failed", error=f"{type(error).__name__}: {error}")
                traceback.print_exc()
            line["took"] = round(time.monotonic() - began, 1)
            out.write(json.dumps({"smoke": line}, default=str) + "\n")
            out.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), sys.argv[2:])
