"""What each algorithm reaches on a small environment: the levels that docs/workers/cleanrl.md names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.runtime import CleanRLRuntime

PENDULUM = {"env_id": "Pendulum-v1", "hidden_size": 64, "batch_size": 128}
LEVELS: dict[str, tuple[dict[str, Any], float]] = {
    "dqn": ({"algo": "dqn", "env_id": "CartPole-v1"}, 400),
    "ppo_continuous": ({"algo": "ppo_continuous", "env_id": "Pendulum-v1", "total_steps": 100_000}, -300),
    "sac": ({"algo": "sac", **PENDULUM, "total_steps": 12_000}, -200),
    "td3": ({"algo": "td3", **PENDULUM, "total_steps": 20_000}, -200),
    "sac with correlated noise": (
        {
            "algo": "sac",
            "env_id": "MountainCarContinuous-v0",
            "total_steps": 25_000,
            "hidden_size": 64,
            "batch_size": 128,
            "learning_starts": 5_000,
            "train_frequency": 2,
            "tau": 0.01,
            "alpha": 0.1,
            "autotune": False,
            "noise_correlation": 0.9,
        },
        90,
    ),
}


@pytest.mark.workers  # minutes of training each
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LEVELS)
def test_level(name: str, tmp_path: Path) -> None:
    """The mean of the last 20 episodes' returns, exploration included, reaches the level."""
    settings, level = LEVELS[name]
    config = CleanRLConfig.from_dict({"run_id": "r", "seed": 1, "checkpoint_every": 0, **settings})
    environ = {"MOSAIC_RUN_DIR": str(tmp_path), "MOSAIC_CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
    summary = CleanRLRuntime(config, environ=environ).run()
    assert summary["status"] == "completed"
    assert summary["episodic_return"] >= level, summary
