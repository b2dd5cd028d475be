"""One run: the session around it, and the backend that trains."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib import import_module
from typing import Any, Callable, Dict, Mapping, Optional

from mosaic_cluster.worker import ConfigError, MosaicError, Problem, WorkerSession

from marllib_worker.algorithms import ALGORITHMS
from marllib_worker.analytics import checkpoint_problems, describe_checkpoint, remove_unfinished
from marllib_worker.config import MarllibConfig

_HOMES = {"marllib": "marllib_worker.marllib_backend", "benchmarl": "marllib_worker.benchmarl_backend"}
_FORMATS = {"marllib": "rllib-1.8", "benchmarl": "pytorch"}


class TrainingError(MosaicError):
    """The library failed; the message ends with its last words."""


class MarllibRuntime:
    """Runs a config.

    Args:
        config: of the run.
        dry_run: build and check everything, train nothing.
        stop_requested: tells whether to save and end.
        worker_id: name of this process, for the log.
    """

    def __init__(
        self,
        config: MarllibConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: Optional[str] = None,
    ) -> None:
        if config.seed is None:
            config = replace(config, seed=random.SystemRandom().randrange(2**31))
        self.config = config
        self.dry_run = dry_run
        self.session = WorkerSession(
            "marllib",
            config,
            stop_requested=stop_requested,
            worker_id=worker_id,
            checkpoint_format=_FORMATS[config.backend],
        )

    def run(self) -> Dict[str, Any]:
        """Train to the end, or to a stop.

        Returns:
            the summary, with ``status`` ``completed``, ``cancelled`` or ``dry-run``.

        Raises:
            ConfigError: the config does not fit the library or the checkpoint.
            MosaicError: training failed.
        """
        return self.session.run(self._train, dry_run=self.dry_run)

    def _train(self, session: WorkerSession) -> Mapping[str, Any]:
        backend = import_module(_HOMES[self.config.backend])
        if not session.dry_run:
            remove_unfinished(session.checkpoint_dir)
        if session.resume_from is not None:
            problems = checkpoint_problems(self.config, describe_checkpoint(session.resume_from))
            if problems:
                raise ConfigError(problems)
        about = {"paradigm": ALGORITHMS[self.config.algo].paradigm, "backend": self.config.backend}
        return {**about, **backend.train(self.config, session)}


def missing_library(config: MarllibConfig, error: ImportError) -> ConfigError:
    """What to say where the library of a backend cannot be imported."""
    advice = "build its environment: mosaic workers install marllib"
    text = f"{config.backend} cannot be imported here ({type(error).__name__}: {error}); {advice}"
    return ConfigError([Problem("backend", text)])


__all__ = ["MarllibRuntime", "TrainingError", "missing_library"]
