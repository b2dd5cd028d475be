"""What this worker adds to a run's summary and manifest; the session writes them."""

from __future__ import annotations

from typing import Any

from xuance_worker.config import XuanCeConfig


def about_results(config: XuanCeConfig, training: Any) -> dict[str, Any]:
    """What was really used, after XuanCe's own settings have been looked up: plain values."""
    settings = training.settings
    found = {
        "algo": config.algo,
        "env_id": config.environment,
        "actions": training.kind,
        "num_envs": int(settings.parallels),
        "tensorboard": "tensorboard" if config.tensorboard else None,
    }
    agents = getattr(training.envs, "agents", None)
    if agents:
        found["agents"] = list(agents)
        found["share_parameters"] = bool(getattr(settings, "use_parameter_sharing", False))
    for name in ("learning_rate", "gamma", "batch_size", "buffer_size", "horizon_size", "n_epochs"):
        value = getattr(settings, name, None)
        if isinstance(value, (int, float)):
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}


__all__ = ["about_results"]
