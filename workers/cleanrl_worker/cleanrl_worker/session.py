"""What an algorithm sees of the world: where it stands, whom it tells, where it saves, when it must stop.

An algorithm moves :attr:`Session.step` forward and calls the methods; everything about lifecycle lines,
checkpoint files and signals stays out of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cleanrl_worker.checkpoints import CheckpointStore, random_states, restore_random_states
from cleanrl_worker.config import CleanRLConfig
from mosaic_cluster.worker import TelemetryEmitter
from mosaic_cluster.worker.errors import MosaicError

HEARTBEAT_SECONDS = 1.0
RECENT_EPISODES = 20

LOGGER = logging.getLogger(__name__)


class TrainingError(MosaicError):
    """Training cannot go on."""


class Session:
    """One attempt at training one config.

    Args:
        config: what to train.
        seed: the config's, or a drawn one where the config has none.
        device: where the networks live.
        emitter: takes the telemetry.
        store: takes the checkpoints.
        resumed: the content of the checkpoint to go on from.
        resumed_from: its path.
        stop_requested: asked at every step.
        report_steps: environment steps at which somebody looks: a heartbeat follows at once, a checkpoint soon.
        clock: seconds, monotonic.

    Attributes:
        step: environment steps taken, over all attempts. The algorithm moves it.
        updates: gradient phases, over all attempts. The algorithm moves it.
        metrics: newest losses and the like, added to every heartbeat.
        best_checkpoint: the one saved with the greatest :attr:`episodic_return`, over all attempts.
    """

    def __init__(
        self,
        config: CleanRLConfig,
        *,
        seed: int,
        device: torch.device,
        emitter: TelemetryEmitter,
        store: CheckpointStore,
        resumed: dict[str, Any] | None = None,
        resumed_from: Path | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
        report_steps: Sequence[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.seed = seed
        self.device = device
        self.step = 0
        self.updates = 0
        self.episodes = 0
        self.metrics: dict[str, float] = {}
        self.recent_returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_lengths: deque[int] = deque(maxlen=RECENT_EPISODES)
        self.checkpoint_path = resumed_from
        self.best_checkpoint: Path | None = None
        self._best_return, self._best_step = -math.inf, 0
        self.resumed: dict[str, Any] | None = None
        self.same_seed = False
        self._emitter = emitter
        self._store = store
        self._stop_requested = stop_requested
        self._clock = clock
        self._earlier_seconds = 0.0
        self._random_states: dict[str, Any] | None = None
        if resumed is not None:
            self._resume(resumed)
        self._started = self._last_heartbeat = clock()
        self._heartbeat_step = self._saved_step = self.step
        self._save_soon = False
        self._looked_at = [step for step in sorted(report_steps, reverse=True) if step > self.step]

    def _resume(self, saved: dict[str, Any]) -> None:
        bookkeeping = saved["session"]
        self._random_states = saved["random"]
        self.resumed = saved["algorithm"]
        # Another seed asks for other randomness: the networks go on, the random states do not.
        self.same_seed = bookkeeping["seed"] == self.seed
        self.step = saved["step"]
        self.updates = bookkeeping["updates"]
        self.episodes = bookkeeping["episodes"]
        self.metrics = dict(bookkeeping["metrics"])
        self.recent_returns.extend(bookkeeping["recent_returns"])
        self.recent_lengths.extend(bookkeeping["recent_lengths"])
        self._earlier_seconds = bookkeeping["seconds"]
        best = bookkeeping.get("best")  # a checkpoint of an earlier version says nothing of it
        # A checkpoint of another run (a sweep's trial that took it over) speaks of files that lie there, not here.
        own = self.checkpoint_path is not None and self._store.holds(self.checkpoint_path)
        if best is not None and own and self._store.path(best["step"]).exists():
            self.best_checkpoint, self._best_return = self._store.path(best["step"]), best["episodic_return"]
            self._best_step = best["step"]

    def restore_random_states(self) -> None:
        """Put the checkpoint's process-wide random states back. To be called once everything is built."""
        if self._random_states is not None:
            restore_random_states(self._random_states, self.device)

    @property
    def stopping(self) -> bool:
        """Whether to save and return as soon as the current step is done."""
        return self._stop_requested()

    @property
    def seconds(self) -> float:
        """Time spent training, over all attempts."""
        return self._earlier_seconds + self._clock() - self._started

    @property
    def episodic_return(self) -> float | None:
        """Mean over the last 20 finished episodes; ``None`` before the first."""
        return sum(self.recent_returns) / len(self.recent_returns) if self.recent_returns else None

    def say(self, message: str) -> None:
        """Tell the person who reads the log."""
        LOGGER.info("%s | step=%d", message, self.step)

    def episode(self, total_reward: float, length: int, terminated: bool, truncated: bool) -> None:
        """An episode ended at the current step."""
        self.recent_returns.append(total_reward)
        self.recent_lengths.append(length)
        self._emitter.episode(
            episode=self.episodes,
            total_reward=total_reward,
            steps=length,
            terminated=terminated,
            truncated=truncated,
            metadata={"global_step": self.step},
        )
        self.episodes += 1

    def learned(self, losses: dict[str, float]) -> None:
        """Take the losses of a gradient phase into the metrics.

        Raises:
            TrainingError: one of them is not finite any more.
        """
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(
                f"the losses are not finite any more at step {self.step}: {losses}. "
                "Try a lower learning_rate, and check that observations and rewards are finite."
            )
        self.metrics.update(losses)

    def heartbeat(self, *, now: bool = False) -> None:
        """Report, at most once a second unless ``now`` or somebody looks, and never the same step twice."""
        moment = self._clock()
        while self._looked_at and self._looked_at[-1] <= self.step:
            self._looked_at.pop()
            now = self._save_soon = True
        if self.step <= self._heartbeat_step or not (now or moment - self._last_heartbeat >= HEARTBEAT_SECONDS):
            return
        self._last_heartbeat = moment
        self._heartbeat_step = self.step
        payload: dict[str, Any] = {
            "step": self.step,
            "steps_per_second": self.steps_per_second,
            "episodes": self.episodes,
            "updates": self.updates,
            **self.metrics,
        }
        if self.recent_returns:
            payload["episodic_return"] = self.episodic_return
            payload["episodic_length"] = sum(self.recent_lengths) / len(self.recent_lengths)
        self._emitter.heartbeat(payload)

    @property
    def steps_per_second(self) -> float:
        """Training speed over all attempts, in environment steps."""
        return round(self.step / max(self.seconds, 1e-9), 1)

    def results(self) -> dict[str, Any]:
        """How it went so far, over all attempts."""
        found: dict[str, Any] = {
            "steps": self.step,
            "updates": self.updates,
            "episodes": self.episodes,
            "seconds": round(self.seconds, 3),
            "steps_per_second": self.steps_per_second,
            "checkpoint": str(self.checkpoint_path) if self.checkpoint_path else None,
        }
        if self.recent_returns:
            found["episodic_return"] = self.episodic_return
        return found

    def checkpoint_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save when ``checkpoint_every`` steps have passed since the last time, or somebody has looked.

        Called between updates.
        """
        every = self.config.checkpoint_every
        if self._save_soon or (every and self.step // every > self._saved_step // every):
            self.checkpoint(state)

    def checkpoint(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save now, unless this step is saved already, and announce the file once it is complete."""
        if self.step == self._saved_step:
            return
        self.heartbeat(now=True)
        score = self.episodic_return
        if score is not None and score >= self._best_return:
            self.best_checkpoint, self._best_return, self._best_step = self._store.path(self.step), score, self.step
        content = {
            "config": self.config.to_dict(),
            "session": {
                "seed": self.seed,
                "updates": self.updates,
                "episodes": self.episodes,
                "metrics": dict(self.metrics),
                "recent_returns": list(self.recent_returns),
                "recent_lengths": list(self.recent_lengths),
                "seconds": self.seconds,
                "best": self._best(),
            },
            "random": random_states(self.device),
            "algorithm": state(),
        }
        self._save_soon = False
        self.checkpoint_path = self._store.save(self.step, content)
        self._saved_step = self.step
        line = {"path": str(self.checkpoint_path), "step": self.step}
        self._emitter.checkpoint_saved(line if score is None else {**line, "score": score})
        self._store.prune(self.best_checkpoint)

    def _best(self) -> dict[str, Any] | None:
        if self.best_checkpoint is None:
            return None
        return {"step": self._best_step, "episodic_return": self._best_return}


__all__ = ["HEARTBEAT_SECONDS", "RECENT_EPISODES", "Session", "TrainingError"]
