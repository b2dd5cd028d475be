"""From a config to a trained policy: everything around RLlib."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession
from ray_worker.analytics import leavings
from ray_worker.cluster import Home, home
from ray_worker.config import MAIN, RayConfig, Share
from ray_worker.policy import SAVED, export_policy

LOGGER = logging.getLogger(__name__)
WAIT_SECONDS = 0.2
PATIENCE = 12.0
"""Seconds that an iteration may go on for once the run is to stop; then what was saved last has to do. Ray's own end
and the manifest come after it, within the grace time of a run, 30 seconds unless it is set."""
_FIXED = ("env_id", "algo", "policies", "hidden_layers", "activation", "opponents")
"""Settings that a checkpoint and the run that goes on from it share."""


class RayRuntime:
    """One attempt at a run.

    Args:
        config: what to train.
        dry_run: build the environment and RLlib's config, start no Ray, train nothing.
        stop_requested: asked again and again; once it says yes, the run saves and ends as cancelled.
        worker_id: name of this worker process, for the log.
        environ: see :class:`mosaic_cluster.worker.WorkerSession` and :func:`ray_worker.cluster.home`.
    """

    def __init__(
        self,
        config: RayConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self._dry_run = dry_run
        self._stop = stop_requested
        self._environ = environ
        self._session = WorkerSession(
            "ray",
            config,
            stop_requested=stop_requested,
            worker_id=worker_id,
            checkpoint_format="rllib",
            environ=environ,
        )

    def run(self) -> dict[str, Any]:
        """Train to the end, or until told to stop.

        Raises:
            ConfigError: the environment, the CPUs, the dataset or the checkpoint do not go with the config.
        """
        return self._session.run(self._train, dry_run=self._dry_run)

    def _train(self, session: WorkerSession) -> dict[str, Any]:
        config = self.config
        saved = self._saved(session.resume_from)
        seed = self._seed(saved)
        share = self._share(session)
        found: dict[str, Any] = {"num_env_runners": share.runners, "seed": seed}
        if session.dry_run:
            from ray_worker.algorithms import checked

            return found | checked(config, share, seed)[2]
        cpus = session.cpus if self._environ.get("MOSAIC_CPUS") else config.cpus_needed(share.runners)
        with home(self._environ, cpus, self._stop) as place:
            if session.stopping:
                return found
            self._check_device(place)
            cap = self._environ.get("MOSAIC_GPU_MEMORY_CAP")
            share = Share(share.runners, place.gpus, int(cap) if cap else None)
            with Training(self, session, place, share, seed) as training:
                found |= training.build()
                last = training.run(saved)
        if last is not None and (session.step >= config.total_steps or not session.stopping):
            found |= self._leave(session, last, seed)
        return found

    def _leave(self, session: WorkerSession, last: Path, seed: int) -> dict[str, Any]:
        """The policy alone, and a dataset, where they are wanted."""
        found: dict[str, Any] = {}
        if self.config.export_policy:
            export_policy(last, session.run_dir / "policy")
        wanted = self.config.record_episodes
        if wanted:
            if not session.stopping:
                from ray_worker.recording import record

                target = session.run_dir / "dataset" / "episodes.parquet"
                found = record(self.config, last, target, seed, self._stop)
            if found.get("dataset_episodes", 0) < wanted:
                found["status"] = "cancelled"  # so that the run is gone on with, which plays them all
        return found | leavings(session.run_dir)

    def _saved(self, path: Path | None) -> dict[str, Any] | None:
        if path is None:
            return None
        heading = f"MOSAIC_RESUME_FROM={path}"
        try:
            said: dict[str, Any] = json.loads((path / SAVED).read_text(encoding="utf-8"))
            made = dict(said["config"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            text = f"is no checkpoint of the ray worker: {type(error).__name__}: {error}"
            raise ConfigError([Problem("", text)], heading=heading) from error
        problems = []
        for name in _FIXED:
            before, now = made.get(name), getattr(self.config, name)
            if before != now:
                problems.append(
                    Problem(name, f"is {now!r}, but the checkpoint to resume from was made with {before!r}")
                )
        if problems:
            raise ConfigError(problems, heading=heading)
        return said

    def _seed(self, saved: Mapping[str, Any] | None) -> int:
        seed = self.config.seed
        if seed is None:
            seed = int(saved["seed"]) if saved is not None else random.SystemRandom().randrange(2**31)
        return seed

    def _share(self, session: WorkerSession) -> Share:
        """How many processes act, within the CPUs of the run; alone, as many as the config says."""
        config = self.config
        if config.algorithm.offline:
            return Share(0)
        bounded = bool(self._environ.get("MOSAIC_CPUS"))
        room = session.cpus - 1 - config.num_learners if bounded else None
        runners = config.num_env_runners
        if runners is None:
            runners = max(0, room or 0)
            if config.algo == "dreamerv3":
                runners = 0  # each iteration takes one step of the environment
        if room is not None and runners > room:
            needed = config.cpus_needed(runners)
            said = (
                f"{runners} with num_learners {config.num_learners} take {needed} CPUs, one of them for the algorithm"
            )
            raise ConfigError([
                Problem("num_env_runners", f"{said}; it has {session.cpus}: lower it, or set resources.cpus: {needed}")
            ])  # fmt: skip
        return Share(runners)

    def _check_device(self, place: Home) -> None:
        config = self.config
        if config.device == "cuda" and not place.gpus:
            raise ConfigError([
                Problem("device", "is 'cuda', but the run has no GPU; use 'auto' or 'cpu', or give it resources.gpus")
            ])  # fmt: skip
        # Two of them cannot share one: NCCL refuses, and what Ray has not got it waits for without a word.
        if config.device != "cpu" and place.gpus and config.num_learners > max(1.0, place.gpus):
            words = (
                f"{config.num_learners} learn on a GPU each, and the run has {place.gpus:g}; lower it, set "
                f"resources.gpus: {config.num_learners}, or learn with device: cpu"
            )
            raise ConfigError([Problem("num_learners", words)])


class Training:
    """The algorithm's actor, and the loop around it."""

    def __init__(self, runtime: RayRuntime, session: WorkerSession, place: Home, share: Share, seed: int) -> None:
        import ray

        from ray_worker.training import Trainer

        self._ray, self._config, self._session = ray, runtime.config, session
        self._given_up = False
        gpu = place.first_gpu if self._config.device != "cpu" and not self._config.num_learners else 0
        # RLlib's Trainable wants a folder of its own, which stays empty.
        self._folder = session.run_dir / ".rllib"
        self._actor = (
            ray.remote(Trainer)
            .options(num_cpus=0, num_gpus=gpu, scheduling_strategy=place.strategy(), max_restarts=0)
            .remote(self._config.to_dict(), share, seed, str(self._folder))
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        import shutil

        try:
            if not self._given_up:
                self._ray.get(self._actor.stop.remote(), timeout=10)
        except (self._ray.exceptions.RayError, TimeoutError) as problem:  # it is gone, or will be in a moment
            LOGGER.info("the algorithm did not end by itself: %s", problem)
        self._ray.kill(self._actor)
        shutil.rmtree(self._folder, ignore_errors=True)

    def build(self) -> dict[str, Any]:
        """Make the algorithm; see :meth:`ray_worker.training.Trainer.build`."""
        found: dict[str, Any] | None = self._get(self._actor.build.remote())
        return found or {}

    def run(self, saved: Mapping[str, Any] | None) -> Path | None:
        """Train; returns the last checkpoint."""
        session, config = self._session, self._config
        if saved is not None and not session.stopping:
            step = self._get(self._actor.restore.remote(str(session.resume_from)))
            if step is None:
                return None
            session.resumed(int(step))
        # What a run leaves at its end is made from it where an earlier attempt has trained all there is.
        done = saved is not None and config.total_steps <= session.step
        last: Path | None = session.resume_from if done else None
        begun = session.step
        while session.step < config.total_steps and not session.stopping:
            result = self._get(self._actor.train.remote())
            if result is None:
                return last  # it must stop, and the iteration does not end
            self._report(result)
            if session.checkpoint_due(config.checkpoint_every):
                last = self._save()
        if session.step > begun and (last is None or last.name != self._name()):
            last = self._save()
        return last

    def _report(self, result: Mapping[str, Any]) -> None:
        session = self._session
        session.step = int(result["step"])
        own: list[float] = []
        for each in result["episodes"]:
            about: dict[str, Any] = {"terminated": each["terminated"], "truncated": not each["terminated"]}
            total = sum(each["returns"].values())
            if self._config.multi_agent:
                about["metadata"] = {"returns": each["returns"]}
            if self._config.policies == "self_play":
                mine = [each["returns"][agent] for agent, module in each["modules"].items() if module == MAIN]
                total = float(sum(mine))
                own.append(total)
            session.episode(total, each["steps"], **about)
        metrics = dict(result["metrics"])
        if own:
            metrics["win_rate"] = float(np.mean([value > 0 for value in own]))
        session.heartbeat(metrics)

    def _name(self) -> str:
        return f"checkpoint_{self._session.step}"

    def _save(self) -> Path:
        path = self._session.checkpoint_dir / self._name()
        self._ray.get(self._actor.save.remote(str(path), self._session.step))
        self._session.saved(path)
        self._session.keep(self._config.keep_checkpoints)
        return path

    def _get(self, reference: Any) -> Any:
        """What the actor answers; ``None`` if the run is to stop and it takes too long: then the actor is ended."""
        asked_at: float | None = None
        while True:
            ready, _ = self._ray.wait([reference], timeout=WAIT_SECONDS)
            if ready:
                break
            if self._session.stopping:
                asked_at = asked_at or time.monotonic()
                if time.monotonic() - asked_at > PATIENCE:
                    self._given_up = True
                    self._ray.kill(self._actor)  # it is busy: whatever else it is asked would wait behind that
                    return None
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise error.cause from None
            raise


__all__ = ["RayRuntime"]
