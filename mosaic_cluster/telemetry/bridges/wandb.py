"""Weights & Biases: one W&B run per run, in the group of its experiment."""

from __future__ import annotations

import os
from typing import Any

# A service of our own, which ends with us: not one that a program above us started for itself.
os.environ.pop("WANDB_SERVICE", None)

import wandb

from mosaic_cluster.telemetry.bridges.protocols import Points, Run, Setup


class WeightsAndBiases:
    """See :class:`~mosaic_cluster.telemetry.bridges.protocols.Bridge`.

    The key comes from W&B's own places (``WANDB_API_KEY``, ``~/.netrc``), never from a spec. W&B's ``_step`` is the
    number of the log line, so that a line sent twice is one to W&B; ``step`` is ours, and every chart's axis.

    Args:
        project, entity: where the runs go.
        mode: ``online`` or ``offline``; ``None``: as ``WANDB_MODE`` says, else online.
    """

    most_open = 20
    # W&B's service holds back the end of a run's file, and drops it when we are killed.
    settle_seconds = 1800.0

    def __init__(self, setup: Setup, *, project: str, entity: str | None = None, mode: str | None = None) -> None:
        self._setup = setup
        self._where: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}
        self._runs: dict[str, Any] = {}

    def declined(self, run_id: str) -> str | None:
        """Never."""
        return None

    def start(self, run: Run) -> str:
        """See :class:`Bridge`."""
        folder = self._setup.folder / "bridges"
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_save_requirements=False,
        )  # fmt: skip
        made = wandb.init(
            **self._where,
            id=run.run_id,
            name=run.label,
            group=self._setup.experiment_id,
            config=dict(run.config),
            resume="allow",
            reinit="create_new",
            dir=str(folder),
            settings=settings,
        )
        made.define_metric("step")
        made.define_metric("*", step_metric="step")
        self._runs[run.run_id] = made
        return str(made.url or folder / "wandb")

    def write(self, points: Points) -> None:
        """See :class:`Bridge`."""
        made = self._runs[points.run_id]
        for number, when, step, values in points.rows():
            made.log({**values, "step": step, "attempt": points.attempt, "_timestamp": when / 1e6}, step=number)

    def end(self, run_id: str, state: str | None) -> None:
        """See :class:`Bridge`."""
        made = self._runs.pop(run_id, None)
        if made is not None:
            made.finish(exit_code=0 if state in (None, "COMPLETED") else 1)

    def flush(self) -> None:
        """With no run open, W&B's service is ended, which writes all that it has; another is started when needed."""
        if not self._runs:
            wandb.teardown()

    def close(self) -> None:
        """See :class:`Bridge`."""
        self.flush()
