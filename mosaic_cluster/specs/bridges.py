"""The ``telemetry.bridges`` section of a spec: which other trackers get the metrics, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from mosaic_cluster.specs.fields import flag, number, optional, text
from mosaic_cluster.specs.problems import shown
from mosaic_cluster.specs.sections import Section

ON_BY_DEFAULT = frozenset({"tensorboard"})
MODES = ("online", "offline")


def on_or_off(value: Any) -> Any:
    """``true`` and ``false`` are short for ``{enabled: true}`` and ``{enabled: false}``."""
    if value is None:
        return {}
    return {"enabled": value} if isinstance(value, bool) else value


def off(value: Any) -> Any:
    """``false`` leaves a bridge out."""
    return None if value is False else value


def check_mode(value: Any) -> Any:
    """Accepts a mode of W&B, and null."""
    if value is not None and value not in MODES:
        raise ValueError(f"{shown(value)} is none of {', '.join(MODES)}; left out, it is as WANDB_MODE says, or online")
    return value


def check_server(value: Any) -> Any:
    """Accepts the address of a server, without a password."""
    valid = "give its address, e.g. http://mlflow.example.org:5000"
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text; {valid}")
    try:
        parts = urlsplit(value)
        address = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        address = None
    if not address:
        raise ValueError(f"is not the address of a server; {valid}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "holds a name or a password, which would be kept with the experiment; set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and {valid}"
        )
    return value


def _points(default: float) -> Any:
    return Field(
        default=default,
        gt=0,
        description="Most points of one metric and run in a second; of more, the first and the last of each "
        "interval are written",
        examples=[10],
    )


_Rate = Annotated[float, number(0, exclusive=True, example="10")]
_MaybeText = Annotated[str | None, optional(text(1, 200, example="my-team"))]


class TensorBoard(Section):
    """TensorBoard event files in each run's folder."""

    enabled: Annotated[bool, flag()] = Field(default=True, description="Whether they are written")
    points_per_second: _Rate = _points(1000.0)


class Wandb(Section):
    """Weights & Biases. Its key comes from ``WANDB_API_KEY`` or ``~/.netrc``."""

    project: Annotated[str, text(1, 128, example="my-project")] = Field(
        description="The W&B project", examples=["my-project"]
    )
    entity: _MaybeText = Field(default=None, description="W&B team or user. Default: yours", examples=["my-team"])
    mode: Annotated[Literal["online", "offline"] | None, BeforeValidator(check_mode)] = Field(
        default=None, description="Default: as WANDB_MODE says, else online", examples=["offline"]
    )
    points_per_second: _Rate = _points(50.0)


class Mlflow(Section):
    """MLflow. Who you are comes from ``MLFLOW_TRACKING_TOKEN`` and its kin."""

    tracking_uri: Annotated[str, BeforeValidator(check_server)] = Field(
        description="Address of the server", examples=["http://localhost:5000"], pattern="^https?://[^@]+$"
    )
    experiment: Annotated[str | None, optional(text(1, 200, example="my-experiment"))] = Field(
        default=None, description="MLflow experiment. Default: the spec's name", examples=["my-experiment"]
    )
    points_per_second: _Rate = _points(50.0)


class Bridges(Section):
    """Trackers that metrics are written to beside our own tables. TensorBoard is on by default."""

    tensorboard: Annotated[TensorBoard, BeforeValidator(on_or_off, json_schema_input_type=TensorBoard | bool)] = Field(
        default_factory=TensorBoard, description="Event files in each run's folder; false: none"
    )
    wandb: Annotated[Wandb | None, BeforeValidator(off, json_schema_input_type=Wandb | Literal[False] | None)] = Field(
        default=None, description="Weights & Biases", examples=[{"project": "my-project"}]
    )
    mlflow: Annotated[Mlflow | None, BeforeValidator(off, json_schema_input_type=Mlflow | Literal[False] | None)] = (
        Field(default=None, description="MLflow", examples=[{"tracking_uri": "http://localhost:5000"}])
    )


def wanted_bridges(bridges: Bridges) -> Mapping[str, dict[str, Any]]:
    """Options of each bridge that is on, by name."""
    found: dict[str, dict[str, Any]] = {}
    for name in Bridges.model_fields:
        section = getattr(bridges, name)
        if section is None:
            continue
        options = section.model_dump(exclude_none=True)
        if options.pop("enabled", True):
            found[name] = options
    return found
