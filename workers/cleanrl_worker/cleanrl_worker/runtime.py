"""From a config to a trained policy: everything around the algorithm."""

from __future__ import annotations

import logging
import os
import random
import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleanrl_worker.algorithms import ALGORITHMS
from cleanrl_worker.analytics import write_analytics_manifest
from cleanrl_worker.checkpoints import CheckpointError, CheckpointStore, load_checkpoint
from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.session import Session
from mosaic_cluster.worker import ConfigError, Problem, TelemetryEmitter
from mosaic_cluster.worker.program import telemetry_stream

LOGGER = logging.getLogger(__name__)


class CleanRLRuntime:
    """One attempt at a run.

    Args:
        config: what to train.
        dry_run: build everything, train nothing, write nothing.
        stop_requested: asked at every step; once it says yes, the run saves and ends as cancelled.
        worker_id: name of this worker process, for the log.
        environ: ``MOSAIC_CHECKPOINT_DIR`` (default ``./checkpoints``), ``MOSAIC_RESUME_FROM``,
            ``MOSAIC_RUN_DIR``, ``MOSAIC_REPORT_STEPS`` and ``OMP_NUM_THREADS`` (default 1) are looked up here.
    """

    def __init__(
        self,
        config: CleanRLConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self._dry_run = dry_run
        self._stop_requested = stop_requested
        self._worker_id = worker_id
        self._environ = environ
        self._emitter = TelemetryEmitter(config.run_id, sink=telemetry_stream())

    def run(self) -> dict[str, Any]:
        """Train to the end, or until told to stop.

        Returns:
            the summary, plain JSON values: ``status`` is ``completed``, ``cancelled`` or ``dry-run``.

        Raises:
            ConfigError: the environment, the device or the checkpoint do not go with the config.
            Exception: whatever else ends the training. ``run_failed`` has been emitted.
        """
        config = self.config
        started = {"worker_type": "cleanrl", "config": config.to_dict(), "dry_run": self._dry_run}
        started.update({"env_id": config.env_id, "algo": config.algo, "total_steps": config.total_steps})
        if self._worker_id:
            started["worker_id"] = self._worker_id
        try:
            resume_from = self._resume_path()
            saved = _resumed(resume_from) if resume_from else None
            seed = self._seed(saved)
            self._emitter.run_started({**started, "seed": seed})
        except Exception as error:
            self._emitter.run_started(started)
            self._fail(error)
            raise
        try:
            summary = self._dry(saved) if self._dry_run else self._train(seed, saved, resume_from)
        except Exception as error:
            self._fail(error)
            raise
        if summary["status"] == "cancelled":
            self._emitter.run_cancelled(summary)
        else:
            self._emitter.run_completed(summary)
        return summary

    def _fail(self, error: Exception) -> None:
        payload = {"status": "failed", "env_id": self.config.env_id, "algo": self.config.algo}
        self._emitter.run_failed(payload, exc_info=error)

    def _dry(self, saved: dict[str, Any] | None) -> dict[str, Any]:
        device = self._prepare(0)
        if saved is not None:
            self._check_fits(saved)
        found = import_module(ALGORITHMS[self.config.algo].module).check(self.config, device)
        return {
            "status": "dry-run",
            "env_id": self.config.env_id,
            "algo": self.config.algo,
            "device": str(device),
            **found,
        }

    def _train(self, seed: int, saved: dict[str, Any] | None, resume_from: Path | None) -> dict[str, Any]:
        config = self.config
        device = self._prepare(seed)
        directory = Path(self._environ.get("MOSAIC_CHECKPOINT_DIR") or "checkpoints")
        store = CheckpointStore(directory, config.keep_checkpoints)
        if saved is not None:
            self._check_fits(saved)
            self._emitter.checkpoint_loaded({"path": str(resume_from), "step": saved["step"]})
        session = Session(
            config,
            seed=seed,
            device=device,
            emitter=self._emitter,
            store=store,
            resumed=saved,
            resumed_from=resume_from,
            stop_requested=self._stop_requested,
            report_steps=self._report_steps(),
        )
        LOGGER.info(
            "training %s on %s from step %d to %d | seed=%d device=%s threads=%d",
            config.algo, config.env_id, session.step, config.total_steps, seed, device,
            torch.get_num_threads(),
        )  # fmt: skip
        import_module(ALGORITHMS[config.algo].module).train(config, session)
        status = "completed" if session.step >= config.total_steps else "cancelled"
        summary: dict[str, Any] = {
            "status": status,
            "env_id": config.env_id,
            "algo": config.algo,
            "seed": seed,
        }
        summary.update(session.results())
        LOGGER.info("%s after %d steps, %.1f s", status, session.step, summary["seconds"])
        try:
            manifest = write_analytics_manifest(
                config, checkpoints=store.files(), best=session.best_checkpoint, results=summary, environ=self._environ
            )
            summary["analytics_manifest"] = str(manifest)
        except OSError as error:  # the policy is saved: an unwritten list of files must not make the run a failure
            LOGGER.warning("the analytics manifest cannot be written: %s", error)
        return summary

    def _prepare(self, seed: int) -> torch.device:
        """Threads, determinism, seeds of the process-wide generators, device."""
        config = self.config
        # Without a share given, one thread: on networks this small more of them only get in each other's way.
        threads = self._environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        torch.set_num_threads(max(1, int(threads)) if threads.isdigit() else 1)
        if config.torch_deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by CUDA when it starts
        torch.use_deterministic_algorithms(config.torch_deterministic)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError([
                Problem(
                    "device",
                    f"'cuda' was asked for, but torch {torch.__version__} sees no GPU here; "
                    "use 'auto' or 'cpu', or ask for a GPU in the run's resources",
                )
            ])  # fmt: skip
        use_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if use_gpu else "cpu")

    def _resume_path(self) -> Path | None:
        given = self._environ.get("MOSAIC_RESUME_FROM")
        return Path(given).absolute() if given else None

    def _report_steps(self) -> list[int]:
        given = self._environ.get("MOSAIC_REPORT_STEPS", "")
        return [int(step) for step in given.split(",") if step.strip().isdigit()]

    def _seed(self, saved: dict[str, Any] | None) -> int:
        if self.config.seed is not None:
            return self.config.seed
        if saved is not None:
            return int(saved["session"]["seed"])
        return secrets.randbits(31)

    def _check_fits(self, saved: dict[str, Any]) -> None:
        """Another learning rate may go on from a checkpoint, another environment or network may not."""
        problems = []
        for name in ("env_id", "algo", "hidden_size"):
            before, now = saved["config"].get(name), getattr(self.config, name)
            if before != now:
                problems.append(
                    Problem(name, f"is {now!r}, but the checkpoint to resume from was made with {before!r}")
                )
        if problems:
            raise ConfigError(problems, heading=f"MOSAIC_RESUME_FROM={self._environ['MOSAIC_RESUME_FROM']}")


def _resumed(path: Path) -> dict[str, Any]:
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        advice = "resume from an older one, or unset MOSAIC_RESUME_FROM to start anew"
        raise CheckpointError(f"{error}; {advice}") from error


__all__ = ["CleanRLRuntime"]
