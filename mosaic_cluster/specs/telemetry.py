"""The ``telemetry`` section of a spec: how events are kept, and how much room they may take on the way."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from mosaic_cluster.specs.bridges import Bridges
from mosaic_cluster.specs.fields import Grace, Size, nothing_is_empty, size_from, whole_number
from mosaic_cluster.specs.sections import Section

MOST_SHARDS = 64
LEAST_HUB_MEMORY = 64 << 20
LEAST_LOG = 1 << 20


class Telemetry(Section):
    """How an experiment's events are kept."""

    shards: Annotated[int, whole_number(1, MOST_SHARDS, example=4)] = Field(
        default=1,
        ge=1,
        le=MOST_SHARDS,
        description="Hub actors that the runs are spread over. One carries hundreds of thousands of events a second",
        examples=[4],
    )
    hub_memory: Annotated[Size, size_from(LEAST_HUB_MEMORY, "512MB")] = Field(
        default=512_000_000,
        description="Most memory that each hub takes for events on their way to storage",
    )
    backlog: Annotated[Size, size_from(LEAST_LOG, "256MiB")] = Field(
        default=256 << 20,
        description="Bytes of a run's log that may wait for storage. More, and the run's processes stand still "
        "until it has caught up",
    )
    keep_log: Annotated[Size, size_from(LEAST_LOG, "1GiB")] = Field(
        default=1 << 30,
        description="Bytes of each log that stay on disk. Of what comes after, events are in Parquet and other "
        "lines are let go",
    )
    disk_reserve: Annotated[Size, size_from(0, "256MiB")] = Field(
        default=256 << 20,
        description="Free space on a log's disk below which the run's processes stand still",
    )
    bridges: Annotated[Bridges, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=Bridges,
        description="Other trackers that metrics are written to, too",
        examples=[{"wandb": {"project": "my-project"}}],
    )
    bridge_grace: Grace = Field(
        default=20.0, description="How long the end of an experiment waits for its bridges to write the rest"
    )
