"""The trainer config dict of the worker development guide, accepted wherever a run spec is.

What becomes of its parts: the worker is ``metadata.worker.worker_id``, or found by
``metadata.worker.module``; its process is ``[entry_point, *arguments]``; ``cpus``, ``memory_mb`` (MiB) and
``schedule`` are enforced.
``artifacts`` and ``metadata.ui`` are kept in ``notes`` and change nothing: files lie where experiments keep
them, and logs and checkpoints are always kept. ``run_id`` in the worker's config is replaced unless it is a
ULID.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from mosaic_cluster.specs.fields import (
    LARGEST_SEED,
    JsonMapping,
    Variables,
    check_arguments,
    check_json,
    flag,
    nothing_is_empty,
    number,
    optional,
    text,
    whole_number,
)
from mosaic_cluster.specs.problems import several, shown
from mosaic_cluster.specs.run import LONGEST_NAME, RunSpec, is_ulid
from mosaic_cluster.specs.sections import Section
from mosaic_cluster.units import MIB

_ITS_OWN = frozenset({"run_name", "entry_point", "arguments", "artifacts", "metadata", "schedule"})
_OF_SPECS = frozenset({"name", "worker", "config", "seed", "limits", "storage", "command"})


def is_trainer_config(document: Mapping[Any, Any]) -> bool:
    """Whether a document is meant as a trainer config: no ``kind``, and more of its keys than of a spec's."""
    if "kind" in document:
        return False
    return len(_ITS_OWN & document.keys()) > len(_OF_SPECS & document.keys())


def _check_config(value: dict[str, Any]) -> dict[str, Any]:
    seed = value.get("seed")
    if seed is None:
        return value
    whole = isinstance(seed, int | float) and not isinstance(seed, bool) and seed == seed // 1
    if not whole or not 0 <= seed <= LARGEST_SEED:
        message = f"{shown(seed)} is not a seed; give a whole number from 0 to {LARGEST_SEED}, e.g. 1, or null"
        raise several([("seed", message)])
    return value


class TrainerGpus(Section):
    """GPUs of a trainer config."""

    requested: Annotated[int, whole_number(0, example=1)] = Field(default=0, ge=0, description="Number of whole GPUs")
    mandatory: Annotated[bool, flag()] = Field(
        default=False, description="Wait for GPUs. If false, the run goes without where none is free"
    )


class TrainerResources(Section):
    """Resources of a trainer config."""

    cpus: Annotated[float | None, optional(number(1, example="2"))] = Field(
        default=None, ge=1, description="CPUs the run gets. Default: what the worker declares", examples=[4]
    )
    memory_mb: Annotated[int | None, optional(whole_number(256, example=4096))] = Field(
        default=None,
        ge=256,
        description="Host memory in MiB, enforced. Default: what the worker declares",
        examples=[4096],
    )
    gpus: Annotated[TrainerGpus | None, BeforeValidator(nothing_is_empty)] = Field(
        default=None, description="GPUs the run gets. Default: what the worker declares"
    )


class TrainerArtifacts(Section):
    """Artifacts of a trainer config: noted, and without effect."""

    output_prefix: Annotated[str | None, optional(text(1, 1000, example="runs/my-run"))] = Field(
        default=None, description="Noted only: the run's files lie in the experiment's folder"
    )
    persist_logs: Annotated[bool, flag()] = Field(default=True, description="Noted only: logs are always kept")
    keep_checkpoints: Annotated[bool, flag()] = Field(
        default=True, description="Noted only: checkpoints are always kept"
    )


class TrainerWorker(Section):
    """The worker of a trainer config, and its config. Other keys are allowed, and not looked at."""

    model_config = ConfigDict(extra="allow")

    worker_id: Annotated[str, text(1, 120, example="my_worker")] = Field(
        description="The worker's registered name, as `mosaic workers` lists it", examples=["my_worker"]
    )
    module: Annotated[str | None, optional(text(1, 1000, example="my_worker.cli"))] = Field(
        default=None, description="A module of the worker's package, where worker_id is not registered"
    )
    config: Annotated[dict[str, Any], AfterValidator(_check_config), BeforeValidator(check_json)] = Field(
        description="The worker's own config", examples=[{"env_id": "CartPole-v1", "seed": 1}]
    )


class TrainerMetadata(Section):
    """Metadata of a trainer config. Other keys are allowed, and not looked at."""

    model_config = ConfigDict(extra="allow")

    ui: JsonMapping = Field(default_factory=dict, description="Noted only: what a user interface shows")
    worker: TrainerWorker = Field(
        description="The worker and its config",
        examples=[{"worker_id": "my_worker", "config": {"env_id": "CartPole-v1"}}],
    )


class TrainerSchedule(Section):
    """Schedule of a trainer config."""

    max_duration_seconds: Annotated[float | None, optional(number(1, example="3600"))] = Field(
        default=None, ge=1, description="Longest time of all attempts together, in seconds. Default: no limit"
    )
    max_steps: Annotated[int | None, optional(whole_number(1, example=1_000_000))] = Field(
        default=None,
        ge=1,
        description="Environment steps after which the run is stopped, where its worker reports steps",
    )


class TrainerConfig(Section):
    """The trainer config dict of the worker development guide."""

    run_name: Annotated[str, text(1, LONGEST_NAME, example="my-run")] = Field(
        description="A name for the run: 1 to 120 characters",
        examples=["my-run"],
        min_length=1,
        max_length=120,
    )
    entry_point: Annotated[str, text(1, 4096, example="/usr/bin/python3")] = Field(
        description="The program to start", examples=["/usr/bin/python3"]
    )
    arguments: Annotated[list[str], BeforeValidator(check_arguments)] = Field(
        default_factory=list,
        description="Its arguments; `--config FILE` is appended",
        examples=[["-m", "my_worker.cli"]],
    )
    environment: Variables = Field(
        default_factory=dict, description="Extra environment variables of the worker's process"
    )
    resources: Annotated[TrainerResources, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=TrainerResources, description="What the run needs of a node"
    )
    artifacts: Annotated[TrainerArtifacts, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=TrainerArtifacts, description="Noted, and without effect"
    )
    metadata: Annotated[TrainerMetadata, BeforeValidator(nothing_is_empty)] = Field(
        description="The worker and its config, and what a user interface shows",
        examples=[{"worker": {"worker_id": "my_worker", "config": {"env_id": "CartPole-v1"}}}],
    )
    schedule: Annotated[TrainerSchedule, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=TrainerSchedule, description="What ends the run if it does not end by itself"
    )

    def to_spec(self, context: Mapping[str, Any]) -> RunSpec:
        """The run spec it means.

        Args:
            context: validation context of :class:`RunSpec`.
        """
        worker = self.metadata.worker
        config = dict(worker.config)
        run_id, seed = config.pop("run_id", None), config.pop("seed", None)
        name = slug(self.run_name)
        document = {
            "kind": "run",
            "name": name,
            "label": None if name == self.run_name else self.run_name,
            "worker": worker.worker_id,
            "worker_module": worker.module,
            "config": config,
            "seed": seed,
            "resources": self._resources(),
            "limits": self.schedule_limits(),
            "environment": self.environment,
            "command": [self.entry_point, *self.arguments],
            "run_id": run_id if is_ulid(run_id) else None,
            "notes": self._notes(),
        }
        return RunSpec.model_validate(document, context=dict(context))

    def schedule_limits(self) -> dict[str, Any]:
        """The schedule, as limits of a spec."""
        return {"max_duration": self.schedule.max_duration_seconds, "max_steps": self.schedule.max_steps}

    def _resources(self) -> dict[str, Any]:
        asked = self.resources
        resources: dict[str, Any] = {"cpus": asked.cpus}
        if asked.memory_mb is not None:
            resources["memory"] = asked.memory_mb * MIB
        if asked.gpus is not None:
            resources.update(gpus=asked.gpus.requested, gpus_mandatory=asked.gpus.mandatory)
        return resources

    def _notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {}
        if "artifacts" in self.model_fields_set:
            notes["artifacts"] = self.artifacts.model_dump(exclude_none=True)
        if self.metadata.ui:
            notes["ui"] = self.metadata.ui
        return notes


def slug(name: str) -> str:
    """``name`` with only the characters that a spec's name may have."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return re.sub(r"^[._-]+", "", plain)[:LONGEST_NAME].rstrip("-") or "run"
