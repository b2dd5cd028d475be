"""MLflow: one MLflow run per run, in the experiment that the spec names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Less patience than MLflow's own minutes: whoever started us tries again, and says so.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mosaic_cluster.telemetry.bridges.protocols import Points, Run, Setup

METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
LONGEST_KEY = 250
LONGEST_PARAM = 6000
ATTEMPT = "mosaic/attempt"
RUN_TAG = "mosaic.run_id"
STATES = {"COMPLETED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED"}
REFUSED = "INVALID_PARAMETER_VALUE"


class MLflow:
    """See :class:`~mosaic_cluster.telemetry.bridges.protocols.Bridge`.

    A run is found again by its tag ``mosaic.run_id``. The metric ``mosaic/attempt`` tells at which step, and when,
    an attempt began. Who we are comes from ``MLFLOW_TRACKING_TOKEN`` and its kin, never from a spec.

    Args:
        tracking_uri: of the server.
        experiment: MLflow experiment; default: the name in the spec.
    """

    most_open = 1000
    settle_seconds = 0.0

    def __init__(self, setup: Setup, *, tracking_uri: str, experiment: str | None = None) -> None:
        self._setup = setup
        self._uri = tracking_uri.rstrip("/")
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._experiment = self._experiment_id(experiment or setup.name)
        self._runs: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._refused: set[str] = set()

    def declined(self, run_id: str) -> str | None:
        """Never."""
        return None

    def start(self, run: Run) -> str:
        """See :class:`Bridge`."""
        quoted = f"tags.`{RUN_TAG}` = '{run.run_id}'"
        found = self._client.search_runs([self._experiment], filter_string=quoted, max_results=1)
        if found:
            made = found[0]
            self._client.update_run(made.info.run_id, status="RUNNING")
        else:
            tags = {RUN_TAG: run.run_id, "mosaic.experiment_id": self._setup.experiment_id}
            made = self._client.create_run(self._experiment, run_name=run.label, tags=tags)
        self._runs[run.run_id] = made.info.run_id
        self._log_params(made.info.run_id, run.config)
        return f"{self._uri}/#/experiments/{self._experiment}/runs/{made.info.run_id}"

    def write(self, points: Points) -> None:
        """See :class:`Bridge`."""
        target = self._runs[points.run_id]
        metrics = [
            Metric(key_of(name), value, when // 1000, step)
            for _, when, step, values in points.rows()
            for name, value in values.items()
        ]
        if metrics and self._attempts.get(points.run_id) != points.attempt:
            self._attempts[points.run_id] = points.attempt
            metrics.insert(0, Metric(ATTEMPT, float(points.attempt), metrics[0].timestamp, metrics[0].step))
        for at in range(0, len(metrics), METRICS_A_CALL):
            self._log(target, [each for each in metrics[at : at + METRICS_A_CALL] if each.key not in self._refused])

    def end(self, run_id: str, state: str | None) -> None:
        """See :class:`Bridge`."""
        target = self._runs.pop(run_id, None)
        if target is not None and state is not None:
            self._client.set_terminated(target, STATES.get(state, "FAILED"))

    def flush(self) -> None:
        """Each call has returned once the server had it."""

    def close(self) -> None:
        """See :class:`Bridge`."""

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # somebody was quicker
            if found is None:
                raise
            return str(found.experiment_id)

    def _log(self, target: str, metrics: list[Metric]) -> None:
        try:
            self._client.log_batch(target, metrics=metrics)
        except MlflowException as error:
            if error.error_code != REFUSED:
                raise
            # One name that the server does not take must not keep all others out, now and for ever.
            for key in {each.key for each in metrics}:
                self._log_alone(target, key, [each for each in metrics if each.key == key])

    def _log_alone(self, target: str, key: str, metrics: list[Metric]) -> None:
        try:
            self._client.log_batch(target, metrics=metrics)
        except MlflowException as error:
            if error.error_code != REFUSED:
                raise
            self._refused.add(key)
            self._setup.log(f"MLflow does not take the metric {key!r}, it is left out: {_first_line(error)}")

    def _log_params(self, target: str, config: Mapping[str, Any]) -> None:
        params = [Param(key_of(name), str(value)[:LONGEST_PARAM]) for name, value in flat(config)]
        for at in range(0, len(params), PARAMS_A_CALL):
            try:
                self._client.log_batch(target, params=params[at : at + PARAMS_A_CALL])
            except MlflowException as error:
                if error.error_code != REFUSED:
                    raise
                # A setting that was changed on a resume: MLflow's params stay what they were first.
                self._client.log_batch(target, tags=[RunTag("mosaic.config_changed", "true")])
                self._setup.log(f"MLflow keeps the params that it has: {_first_line(error)}")


def key_of(name: str) -> str:
    """A metric's name with only what MLflow takes: other characters become ``_``, and parts are not empty."""
    parts = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII).split("/")
    kept = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    return kept[:LONGEST_KEY].rstrip("/")


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with nested ones as ``outer/inner``."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
