"""One run: chooses the device and the seed, and trains within a session of the contract."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from mctx_worker.config import MctxConfig
from mctx_worker.devices import choose_device
from mosaic_cluster.worker import WorkerSession


class MctxRuntime:
    """Trains as one config says.

    Args:
        config: of the run.
        dry_run: build and check everything, train nothing, write nothing.
        stop_requested: asked before each move of self-play.
        worker_id: name of this worker process, for the log.
        environ: where the ``MOSAIC_...`` variables are looked up.
    """

    def __init__(
        self,
        config: MctxConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if config.seed is None:
            saved = _seed_of(environ.get("MOSAIC_RESUME_FROM"))
            config = dataclasses.replace(config, seed=secrets.randbelow(2**31) if saved is None else saved)
        self.config = config
        self.dry_run = dry_run
        self._environ = environ
        self.session = WorkerSession(
            "mctx",
            config,
            stop_requested=stop_requested,
            worker_id=worker_id,
            checkpoint_format="npz",
            environ=environ,
        )

    def run(self) -> dict[str, Any]:
        """Train; see :meth:`WorkerSession.run` for the summary and what is raised."""
        return self.session.run(self._train, dry_run=self.dry_run)

    def _train(self, session: WorkerSession) -> Mapping[str, Any]:
        device = choose_device(self.config.device, self._environ)
        from mctx_worker.training import Training  # only now: importing pgx takes the device

        training = Training(self.config, session, device=device)
        return training.check() if session.dry_run else training.run()


def _seed_of(checkpoint: str | None) -> int | None:
    """The seed of the run to go on with; what is wrong with a checkpoint is said when all of it is read."""
    if not checkpoint:
        return None
    import numpy as np

    try:
        with np.load(checkpoint, allow_pickle=False) as archive:
            return int(json.loads(archive["header"].tobytes())["seed"])
    except Exception:  # noqa: BLE001 - whatever a damaged file is
        return None


__all__ = ["MctxRuntime"]
