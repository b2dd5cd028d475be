"""Episodes that a trained policy plays, as a dataset for offline algorithms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ray_worker.config import RayConfig, env_settings
from ray_worker.environments import make_env
from ray_worker.offline import write_transitions
from ray_worker.policy import load_policy


def record(
    config: RayConfig, checkpoint: Path, target: Path, seed: int, stopping: Callable[[], bool]
) -> dict[str, Any]:
    """Play ``config.record_episodes`` episodes, with actions drawn as the policy's distribution has them.

    Args:
        target: the Parquet file.
        stopping: asked after each episode; what was played until then is kept.

    Returns:
        ``dataset_episodes``, ``dataset_transitions`` and their ``dataset_return``, a mean.
    """
    policy = load_policy(str(checkpoint), deterministic=False)
    policy.reset(seed)
    env = make_env(env_settings(config))
    rows: list[dict[str, Any]] = []
    returns: list[float] = []
    try:
        for number in range(config.record_episodes):
            returns.append(_episode(env, policy, number, seed + number, rows))
            if stopping():
                break
    finally:
        env.close()
    write_transitions(target, rows)
    return {
        "dataset_episodes": len(returns),
        "dataset_transitions": len(rows),
        "dataset_return": float(np.mean(returns)),
    }


def _episode(env: Any, policy: Any, number: int, seed: int, rows: list[dict[str, Any]]) -> float:
    observation, _ = env.env.reset(seed=seed)
    policy.reset()
    total, over = 0.0, False
    while not over:
        action = policy.act(observation)
        following, reward, terminated, truncated, _ = env.env.step(action)
        rows.append({
            "episode": number,
            "observation": env.observation(observation).ravel().tolist(),
            "action": np.asarray(action, np.float64).ravel().tolist(),
            "reward": float(reward),
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "next_observation": env.observation(following).ravel().tolist(),
        })  # fmt: skip
        observation, total, over = following, total + float(reward), terminated or truncated
    return total


__all__ = ["record"]
