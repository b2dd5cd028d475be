"""From a config to a trained policy."""

from __future__ import annotations

import logging
import os
import random
import secrets
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession
from xuance_worker.analytics import about_results
from xuance_worker.config import XuanCeConfig
from xuance_worker.evaluation import Stopped
from xuance_worker.repairs import mend_dreamers, stand_in_for_scatter

LOGGER = logging.getLogger(__name__)


class XuanCeRuntime:
    """One attempt at a run.

    Args:
        config: what to train.
        dry_run: build everything, train nothing, write nothing. Where XuanCe is not installed, the config alone is
            checked, and a warning says so.
        stop_requested: asked at every step; once it says yes, the run saves and ends as cancelled.
        worker_id: name of this worker process, for the log.
        environ: where the ``MOSAIC_...`` variables and ``OMP_NUM_THREADS`` (default 1) are looked up.
    """

    def __init__(
        self,
        config: XuanCeConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self._dry_run = dry_run
        self._environ = environ
        self.session = WorkerSession(
            "xuance",
            config,
            stop_requested=stop_requested,
            worker_id=worker_id,
            checkpoint_format="xuance",
            environ=environ,
        )

    def run(self) -> dict[str, Any]:
        """Train to the end, or until told to stop.

        Raises:
            ConfigError: XuanCe is not here, or the environment, a setting, the device or the checkpoint cannot be used.
            Exception: whatever else ends the training. ``run_failed`` has been emitted.
        """
        return self.session.run(self._train, dry_run=self._dry_run)

    def _train(self, session: WorkerSession) -> dict[str, Any]:
        if session.dry_run and find_spec("xuance") is None:
            LOGGER.warning("XuanCe is not here: the config alone was checked, not the environment and the settings")
            return {"checked": "config", "algo": self.config.algo, "env_id": self.config.environment}
        prepare_library()
        from xuance_worker import checkpoints
        from xuance_worker.training import Training, Watcher, play_randomly

        config = self.config
        about: dict[str, Any] | None = None
        if session.resume_from is not None:
            about = checkpoints.read_about(session.resume_from)
            checkpoints.check_fits(about, config)
        seed = self._seed(about)
        step = int(about["step"]) if about else 0
        device = self._prepare(seed)
        log_dir = session.run_dir / "tensorboard" if config.tensorboard and not session.dry_run else None
        training = Training(config, seed=seed, device=device, step=step, log_dir=log_dir)
        try:
            watcher = Watcher(session, lambda: self._save(training, seed), config.checkpoint_every, config.total_steps)
            agent = training.build(watcher)
            if session.dry_run:
                return {**about_results(config, training), "device": device, "seed": seed}
            checkpoints.remove_unfinished(session.checkpoint_dir)
            if about is not None:
                if agent is not None:
                    checkpoints.restore(Path(str(session.resume_from)), agent)
                    agent.current_step = step
                session.resumed(step)
            LOGGER.info(
                "training %s on %s from step %d to %d | seed=%d device=%s num_envs=%d",
                config.algo, config.environment, step, config.total_steps, seed, device, training.settings.parallels,
            )  # fmt: skip
            rounds = -(-(config.total_steps - step) // training.settings.parallels)
            try:
                if rounds > 0 and agent is None:
                    play_randomly(training.envs, rounds, watcher, step)
                elif rounds > 0:
                    agent.train(rounds)
            except Stopped:
                LOGGER.info("told to stop at step %d", session.step)
            self._save(training, seed)
            return self._results(training, seed, device)
        finally:
            training.close()

    def _save(self, training: Any, seed: int) -> None:
        from xuance_worker import checkpoints

        session, config = self.session, self.config
        folder = session.checkpoint_dir / f"checkpoint_{session.step}"
        about = {
            "step": session.step,
            "seed": seed,
            "config": config.to_dict(),
            "kind": training.kind,
            "spaces": training.spaces(),
            "masked": bool(training.settings.use_actions_mask),
            "episodic_return": session.episodic_return,
        }
        checkpoints.save_checkpoint(folder, training.agent, about, replay=config.save_replay)
        session.saved(folder)
        session.keep(config.keep_checkpoints)

    def _results(self, training: Any, seed: int, device: str) -> dict[str, Any]:
        session, config = self.session, self.config
        done = session.step >= config.total_steps
        results = {**about_results(config, training), "seed": seed, "device": device}
        results["status"] = "completed" if done else "cancelled"
        if done and config.eval_episodes and not session.stopping:
            try:
                scores = training.evaluate(config.eval_episodes, seed, lambda: session.stopping)
            except Stopped:
                LOGGER.info("told to stop before all %d episodes of the evaluation were played", config.eval_episodes)
            else:
                results["evaluation_return"] = sum(scores) / len(scores)
                results["evaluation_episodes"] = len(scores)
        return results

    def _seed(self, about: Mapping[str, Any] | None) -> int:
        if self.config.seed is not None:
            return self.config.seed
        if about is not None:
            return int(about["seed"])
        return secrets.randbits(31)

    def _prepare(self, seed: int) -> str:
        """Threads, seeds of the process-wide generators, device."""
        import numpy as np
        import torch

        # Without a share given, one thread: on networks this small more of them only get in each other's way.
        threads = self._environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        torch.set_num_threads(max(1, int(threads)) if threads.isdigit() else 1)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        wanted = self.config.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise ConfigError([
                Problem("device", f"'cuda' was asked for, but torch {torch.__version__} sees no GPU here; use 'auto' "
                                  "or 'cpu', or ask for a GPU in the run's resources")
            ])  # fmt: skip
        return "cuda:0" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def prepare_library() -> None:
    """Import XuanCe quietly.

    Raises:
        ConfigError: it is not here.
    """
    os.environ.setdefault("TQDM_DELAY", "1e9")  # its progress bars; to disable them breaks code that reads their counts
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ["WANDB_MODE"] = "disabled"  # imported by XuanCe, used by nobody here
    stand_in_for_scatter()
    try:
        import xuance  # noqa: F401
    except ImportError as error:
        raise ConfigError([
            Problem("", f"XuanCe cannot be imported ({error}); 'mosaic workers install xuance' builds its environment")
        ]) from error  # fmt: skip
    mend_dreamers()


__all__ = ["XuanCeRuntime", "prepare_library"]
