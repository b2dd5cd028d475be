"""Tune's ``result.json``: one JSON object a line, one line an iteration, read while it is written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

_KEPT = ("loss", "entropy", "kl", "grad_gnorm", "td_error", "mean_q", "actor_loss", "critic_loss", "cur_lr")


class Lines:
    """The complete lines of a file of JSON lines, each given once. The file need not be there yet.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> List[Dict[str, Any]]:
        """What was added since the last call; a line that is still being written is left for the next.

        Raises:
            ValueError: a complete line is no JSON object.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                found = file.read()
        except FileNotFoundError:
            return []
        complete = found[: found.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [_object(line, self.path) for line in complete.splitlines() if line.strip()]


def steps(result: Mapping[str, Any]) -> int:
    """Environment steps so far, of all attempts that this one goes on from."""
    return int(result["timesteps_total"])


def new_episodes(result: Mapping[str, Any]) -> List[Tuple[float, int]]:
    """Return (summed over all agents) and length of each episode that ended in this iteration, in order.

    RLlib's histories hold older episodes, too, to smooth its means: the newest stand at the end.
    """
    stats = result.get("hist_stats") or {}
    rewards, lengths = stats.get("episode_reward") or [], stats.get("episode_lengths") or []
    count = min(int(result.get("episodes_this_iter") or 0), len(rewards), len(lengths))
    return [(float(reward), int(length)) for reward, length in zip(rewards[-count:], lengths[-count:])] if count else []


def metrics(result: Mapping[str, Any]) -> Dict[str, float]:
    """Losses and the like, as ``loss``; with several policies, ``loss.policy_0``."""
    learners = (result.get("info") or {}).get("learner") or {}
    found: Dict[str, float] = {}
    for policy, told in learners.items():
        stats = told.get("learner_stats", told) if isinstance(told, Mapping) else {}
        for name, value in stats.items():
            if any(part in name for part in _KEPT) and isinstance(value, (int, float)) and math.isfinite(value):
                found[name if len(learners) == 1 else f"{name}.{policy}"] = round(float(value), 6)
    return found


def _object(line: bytes, path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"a line of {path} is not JSON ({error}): {line[:80]!r}") from error
    if not isinstance(found, dict):
        raise ValueError(f"a line of {path} is not a JSON object: {line[:80]!r}")
    return found


__all__ = ["Lines", "metrics", "new_episodes", "steps"]
