"""Kind ``run``: one worker, one config, one seed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from mosaic_cluster.specs.fields import (
    LARGEST_SEED,
    Grace,
    JsonMapping,
    MaybeDuration,
    MaybeSize,
    Variables,
    check_arguments,
    flaw_of,
    nothing_is_empty,
    one_of,
    optional,
    text,
    whole_number,
)
from mosaic_cluster.specs.problems import several, shown
from mosaic_cluster.specs.resources import OnOom, Population, Priority, Resources, ResourcesSection, Weight
from mosaic_cluster.specs.sections import Section, document_of
from mosaic_cluster.specs.telemetry import Telemetry
from mosaic_cluster.storage.uris import bucket_and_prefix, is_uri

LONGEST_NAME = 120
DEFAULT_STORAGE = "./mosaic-results"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$"
ULID_PATTERN = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
_NAME_VALID = (
    "a name has 1 to 120 letters, digits, '.', '_' and '-', and starts with a letter or digit, e.g. cartpole-1"
)
_STORAGE_VALID = "storage is a path, e.g. ./mosaic-results, or s3://bucket/prefix"


def check_name(value: Any) -> Any:
    """Accepts names that are safe in file names, URLs and shells."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text; put it in quotes; {_NAME_VALID}")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"{shown(value)} has {len(value)} characters; {_NAME_VALID}")
    if not re.fullmatch(NAME_PATTERN, value):
        wrong = dict.fromkeys(re.findall(r"[^A-Za-z0-9._-]", value))
        flaw = f"holds {', '.join(map(repr, wrong))}" if wrong else f"starts with {value[:1]!r}"
        what = flaw if value else "is empty"
        raise ValueError(f"{shown(value)} {what}; {_NAME_VALID}")
    return value


def check_ulid(value: Any) -> Any:
    """Accepts ULIDs, in either case."""
    if value is None:
        return None
    if not is_ulid(value):
        raise ValueError(f"{shown(value)} is not a ULID (26 digits and letters); leave it out to get a new one")
    return value.upper()


def is_ulid(value: Any) -> bool:
    """Whether ``value`` is a ULID."""
    return isinstance(value, str) and re.fullmatch(ULID_PATTERN, value.upper()) is not None


def check_storage(value: Any, info: ValidationInfo) -> Any:
    """Accepts paths and ``s3://`` URIs.

    Paths are made absolute, from ``base_dir`` of the context, else the current directory.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{shown(value)} is not a path; {_STORAGE_VALID}")
    if flaw := flaw_of(value):
        raise ValueError(f"{flaw}; {_STORAGE_VALID}")
    if is_uri(value):
        bucket, prefix = bucket_and_prefix(value)
        return f"s3://{bucket}/{prefix}".rstrip("/")
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise ValueError(f"{shown(value)} names the home of an unknown user; {_STORAGE_VALID}")
    base = (info.context or {}).get("base_dir") or Path.cwd()
    return os.path.abspath(os.path.join(base, path))


def check_command(value: Any) -> Any:
    """Accepts a program and its arguments."""
    if value is None:
        return None
    if isinstance(value, list) and (not value or value[0] in ("", None)):
        raise ValueError("names no program; give a program and its arguments, e.g. [python, -m, my_worker.cli]")
    return check_arguments(value)


class Limits(Section):
    """What ends a run that does not end by itself."""

    max_duration: MaybeDuration = Field(
        default=None,
        description="Longest time of all attempts together, with a unit or in seconds. Default: no limit",
    )
    max_steps: Annotated[int | None, optional(whole_number(1, example=1_000_000))] = Field(
        default=None,
        ge=1,
        description="Environment steps after which the run is stopped, where its worker reports steps",
        examples=[1_000_000],
    )  # fmt: skip
    no_heartbeat: MaybeDuration = Field(
        default=None, description="Longest silence of the worker, with a unit or in seconds. Default: any"
    )
    max_log: MaybeSize = Field(
        default=None,
        description="Most that an attempt may print on both streams, with a unit or in bytes. Default: no limit; "
        "telemetry.keep_log bounds what stays on disk",
    )
    max_failures: Annotated[int, whole_number(0, example=2)] = Field(
        default=2,
        ge=0,
        description="Failures after which the run starts again; one more, and it has FAILED",
        examples=[2],
    )
    grace: Grace = Field(
        default=30.0,
        description="Time to checkpoint between the request to stop and the kill, with a unit or in seconds",
    )
    on_excess: Annotated[Literal["stop", "warn"], one_of(("stop", "warn"))] = Field(
        default="stop",
        description="What happens if a run uses more memory than resources.memory or resources.gpu_memory: stop, it "
        "ends as out_of_memory; warn, that is said once. More than only its worker declares is always just said",
    )


# What specs of every kind have.
Name = Annotated[
    str,
    Field(
        description="A name for the experiment: 1 to 120 letters, digits, '.', '_' and '-'",
        examples=["cartpole"],
        pattern=NAME_PATTERN,
    ),
    BeforeValidator(check_name),
]
StorageFolder = Annotated[
    str,
    BeforeValidator(check_storage),
    Field(
        validate_default=True,
        description="Folder on a file system that every node reaches, or s3://bucket/prefix. ~ is your home; a "
        "relative path starts at the directory you are in",
        examples=[DEFAULT_STORAGE, "/nfs/team/mosaic-results", "s3://team-bucket/mosaic-results"],
    ),
]
Environment = Annotated[
    Variables,
    Field(
        description="Extra environment variables of workers' processes, except MOSAIC_* and RAY_*. "
        "They are kept with the experiment as they stand here: no place for secrets",
        examples=[{"WANDB_MODE": "offline"}],
    ),
]
TelemetrySection = Annotated[Telemetry, BeforeValidator(nothing_is_empty), Field(description="How events are kept")]
Notes = Annotated[JsonMapping, Field(description="Anything; kept with the experiment, and not looked at")]


class RunSpec(Section):
    """Run one worker with one config and one seed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "run",
                    "name": "cartpole",
                    "worker": "cleanrl",
                    "config": {"env_id": "CartPole-v1", "algo": "ppo", "total_steps": 150000},
                    "seed": 1,
                    "resources": {"cpus": 1, "memory": "2GiB"},
                    "limits": {"max_duration": "30m", "no_heartbeat": "5m", "max_failures": 2},
                    "storage": "./mosaic-results",
                }
            ]
        }
    )

    kind: Literal["run"] = Field(default="run", description="What kind of spec this is")
    name: Name
    label: Annotated[str | None, optional(text(1, 1000, example="'CartPole, long'"))] = Field(
        default=None, description="The name as it would be with any characters, for people"
    )
    worker: Annotated[str, text(1, 120, example="cleanrl")] = Field(
        description="The worker's registered name, as `mosaic workers` lists it", examples=["cleanrl"]
    )
    worker_module: Annotated[str | None, optional(text(1, 1000, example="my_worker.cli"))] = Field(
        default=None,
        description="A module of the worker's package, to find it by where its name is not registered",
        examples=["my_worker.cli"],
    )
    config: JsonMapping = Field(
        default_factory=dict,
        description="The worker's own config (`mosaic workers show NAME`), without run_id and seed",
        examples=[{"env_id": "CartPole-v1"}],
    )
    seed: Annotated[int | None, optional(whole_number(0, LARGEST_SEED, example=1))] = Field(
        default=None,
        ge=0,
        le=LARGEST_SEED,
        description="Seed of the run. Default: one is drawn, and kept",
        examples=[1],
    )
    resources: ResourcesSection = Field(
        default_factory=Resources,
        description="What the run needs of a node. Default: what the worker declares",
    )
    population: Population | None = Field(
        default=None, description="Agents that may be more than one worker serves: split over several processes"
    )
    priority: Priority = 0
    weight: Weight = 1.0
    on_oom: OnOom = None
    limits: Annotated[Limits, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=Limits, description="What ends the run if it does not end by itself"
    )
    storage: StorageFolder = DEFAULT_STORAGE
    telemetry: TelemetrySection = Field(default_factory=Telemetry)
    environment: Environment = Field(default_factory=dict)
    command: Annotated[list[str] | None, BeforeValidator(check_command)] = Field(
        default=None,
        description="Starts the worker, instead of its package's own CLI; `--config FILE` is appended",
        examples=[["python", "-m", "my_worker.cli"]],
    )
    run_id: Annotated[str | None, BeforeValidator(check_ulid)] = Field(
        default=None, description="ULID of the run. Default: a new one", pattern=ULID_PATTERN
    )
    notes: Notes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agents_are_counted_once(self) -> RunSpec:
        if self.population is not None and self.resources.agents is not None:
            raise several([("population", "says how many agents there are, and resources.agents does, too: keep one")])
        return self

    def to_document(self) -> dict[str, Any]:
        """The canonical form: JSON-ready, units as plain numbers (bytes, seconds), what is not set left out.

        Parsing it gives an equal spec.
        """
        return document_of(self)
