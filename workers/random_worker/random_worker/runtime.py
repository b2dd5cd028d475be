"""Playing episodes until the steps are done."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession
from random_worker import envs
from random_worker.config import RandomConfig
from random_worker.policy import FORMAT, BaselinePolicy, read_checkpoint

LOOK_SECONDS = 0.2
"""How long it rests, where it is to be slow, before it looks again whether it is to stop."""


class RandomRuntime:
    """One attempt at a run.

    Each episode has seeds of its own, made of the run's seed and the episode's number: a run that goes on plays the
    episode that was interrupted again from its beginning, and those after it as they would have been.

    Args:
        config: what to play.
        dry_run: build everything, play nothing, write nothing.
        stop_requested: asked at every step.
        worker_id: name of this worker process, for the log.
    """

    def __init__(
        self,
        config: RandomConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
    ) -> None:
        self.config = config
        self._dry_run = dry_run
        self._seed = secrets.randbits(31)
        self.session = WorkerSession(
            "random", config, stop_requested=stop_requested, worker_id=worker_id, checkpoint_format="json"
        )

    def run(self) -> dict[str, Any]:
        """Play to the end, or until told to stop.

        Raises:
            ConfigError: the environment or the checkpoint does not go with the config.
        """
        return self.session.run(self._train, dry_run=self._dry_run)

    def _train(self, session: WorkerSession) -> dict[str, Any]:
        config = self.config
        saved = self._saved()
        if config.seed is not None:
            self._seed = config.seed
        elif saved is not None:
            self._seed = int(saved["seed"])
        environment = envs.make(config.env_id, config.api, config.env_kwargs)
        try:
            script = config.script if config.policy == "scripted" else None
            policies = {
                agent: BaselinePolicy(config.env_id, environment.action_space(agent), script)
                for agent in environment.agents
            }
            found = {"env_id": config.env_id, "api": environment.api, "agents": len(environment.agents)}
            if session.dry_run:
                return found
            if saved is not None:
                session.resumed(int(saved["step"]))
                session.episodes = int(saved["episodes"])
            while session.step < config.total_steps and not session.stopping:
                self._episode(session, environment, policies)
            self._save(session)
            status = "completed" if session.step >= config.total_steps else "cancelled"
            return {"status": status, "seed": self._seed, **found}
        finally:
            environment.close()

    def _episode(
        self, session: WorkerSession, environment: envs.Environment, policies: dict[str, BaselinePolicy]
    ) -> None:
        config = self.config
        seeds = np.random.SeedSequence([self._seed, session.episodes]).generate_state(1 + len(policies))
        for policy, seed in zip(policies.values(), seeds[1:], strict=True):
            policy.reset(int(seed))
        returns = dict.fromkeys(policies, 0.0)
        for length, step in enumerate(
            environment.episode(
                lambda agent, observation, mask: policies[agent].act(observation, mask), int(seeds[0] >> 1)
            ),
            start=1,
        ):
            session.step += 1
            for agent, reward in step.rewards.items():
                returns[agent] += reward
            if step.ended:
                self._ended(session, returns, length, step)
            session.heartbeat()
            if session.checkpoint_due(config.checkpoint_every):
                self._save(session)
            if session.step >= config.total_steps:
                return
            if config.max_steps_per_second:
                self._rest(1 / config.max_steps_per_second)
            if session.stopping:
                return

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.session.stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))

    def _ended(self, session: WorkerSession, returns: dict[str, float], length: int, step: envs.Step) -> None:
        more = {} if len(returns) == 1 else {"metadata": {"returns": dict(returns)}}
        session.episode(sum(returns.values()), length, terminated=step.terminated, truncated=step.truncated, **more)
        for agent, total in returns.items() if len(returns) > 1 else ():
            session.metrics[f"return/{agent}"] = total

    def _save(self, session: WorkerSession) -> None:
        path = session.checkpoint_dir / f"checkpoint_{session.step}.json"
        if path.exists() and path == self._last:
            return
        content = {
            "format": FORMAT,
            "step": session.step,
            "episodes": session.episodes,
            "seed": self._seed,
            "config": self.config.to_dict(),
        }
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        os.replace(unfinished, path)
        self._last = path
        session.saved(path)
        session.keep(self.config.keep_checkpoints)

    _last: Path | None = None

    def _saved(self) -> dict[str, Any] | None:
        path = self.session.resume_from
        if path is None:
            return None
        saved = read_checkpoint(path)
        before = saved["config"].get("env_id")
        if before != self.config.env_id:
            words = f"is {self.config.env_id!r}, but the checkpoint to resume from was made with {before!r}"
            raise ConfigError([Problem("env_id", words)])
        return saved


__all__ = ["RandomRuntime"]
