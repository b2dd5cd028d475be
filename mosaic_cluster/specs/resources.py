"""What a run needs of a node, and what becomes of it when it needs more: sections that several kinds share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mosaic_cluster.specs.fields import MaybeMemory, flag, nothing_is_empty, number, one_of, optional, whole_number
from mosaic_cluster.specs.problems import several, shown, type_of
from mosaic_cluster.specs.sections import Section

MOST_AGENTS = 1_000_000
MOST_PRIORITY = 1_000_000

# The syntax of labels is Kubernetes', as Ray has it.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
LABEL_KEY_PATTERN = rf"^(?:{_PREFIX}/)?{_NAME}$"
LABEL_VALUE_PATTERN = rf"^!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))$"
_KEY_VALID = "a label's name has up to 63 letters, digits, '.', '_' and '-', e.g. team or ray.io/market-type"
_VALUE_VALID = "give v, !v, in(a,b) or !in(a,b), where values have up to 63 letters, digits, '.', '_' and '-'"


def check_labels(value: Any) -> Any:
    """Accepts conditions on labels of nodes, in Ray's words."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not a mapping; give labels and values, e.g. {{team: vision}}")
    found = []
    for name, wanted in value.items():
        if not isinstance(name, str) or not re.fullmatch(LABEL_KEY_PATTERN, name):
            found.append((str(name), f"{shown(name)} is not a label's name; {_KEY_VALID}"))
        elif not isinstance(wanted, str):
            found.append((name, f"must be text, this is {type_of(wanted)}; put it in quotes"))
        elif not re.fullmatch(LABEL_VALUE_PATTERN, wanted):
            found.append((name, f"{shown(wanted)} is no condition on a label; {_VALUE_VALID}"))
    if found:
        raise several(found)
    return {name: re.sub(r", ", ",", wanted) for name, wanted in value.items()}


def check_accelerators(value: Any) -> Any:
    """Accepts a GPU model, or several of which any will do; returns the list."""
    if value is None:
        return None
    valid = "give a GPU's model, e.g. A100, or several of which any will do, e.g. [A100, H100]"
    models = [value] if isinstance(value, str) else value
    if not isinstance(models, list) or not models:
        raise ValueError(f"{shown(value)} is no GPU's model; {valid}")
    for model in models:
        if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._/()-]{0,99}", model):
            raise ValueError(f"{shown(model)} is no GPU's model; {valid}")
    if len(set(models)) < len(models):
        raise ValueError(f"a model is there twice; {valid}")
    return list(models)


_MODEL = {"type": "string", "minLength": 1, "maxLength": 100}
Accelerators = Annotated[
    list[str] | None,
    BeforeValidator(check_accelerators),
    WithJsonSchema({"anyOf": [_MODEL, {"type": "array", "items": _MODEL, "minItems": 1}, {"type": "null"}]}),
]
Labels = Annotated[
    dict[str, str] | None,
    BeforeValidator(check_labels),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "additionalProperties": {"type": "string", "pattern": LABEL_VALUE_PATTERN},
                    "propertyNames": {"pattern": LABEL_KEY_PATTERN},
                },
                {"type": "null"},
            ]
        }
    ),
]


class PerAgent(Section):
    """What each agent of a run needs."""

    cpus: Annotated[float | None, optional(number(0, exclusive=True, example="0.1"))] = Field(
        default=None, gt=0, description="CPUs for each agent", examples=[0.1]
    )
    memory: MaybeMemory = Field(default=None, description="Host memory for each agent, with a unit or in bytes")
    gpu_memory: MaybeMemory = Field(default=None, description="GPU memory for each agent, with a unit or in bytes")


class Resources(Section):
    """What the run needs of a node. What is left out is as the worker declares."""

    cpus: Annotated[float | None, optional(number(0, exclusive=True, example="2"))] = Field(
        default=None, gt=0, description="CPUs the run gets", examples=[2, 0.5]
    )
    memory: MaybeMemory = Field(
        default=None,
        description="Host memory, with a unit or in bytes. What happens to a run that uses more: limits.on_excess",
    )
    gpus: Annotated[int | None, optional(whole_number(0, example=1))] = Field(
        default=None, ge=0, description="Number of GPUs. Without gpu_memory they are whole", examples=[1]
    )
    gpu_memory: MaybeMemory = Field(
        default=None,
        description="Memory on each GPU, with a unit or in bytes. With one GPU, the run gets that share",
    )
    gpus_mandatory: Annotated[bool, flag()] = Field(
        default=True, description="Wait for GPUs; if false, the run goes without where none is free"
    )
    agents: Annotated[int | None, optional(whole_number(1, MOST_AGENTS, example=4))] = Field(
        default=None, ge=1, le=MOST_AGENTS, description="Agents that the run serves", examples=[4]
    )
    per_agent: PerAgent | None = Field(
        default=None, description="What each agent needs", examples=[{"cpus": 0.1, "memory": "200MiB"}]
    )
    accelerator: Accelerators = Field(
        default=None,
        description="GPU model, or several of which any will do. Default: any",
        examples=["A100", ["A100", "H100"]],
    )
    labels: Labels = Field(
        default=None,
        description="What the node's labels must be: v, !v, in(a,b) or !in(a,b)",
        examples=[{"team": "vision", "ray.io/market-type": "!spot"}],
    )

    @model_validator(mode="after")
    def _gpus_fit_together(self) -> Resources:
        if self.gpus != 0:
            return self
        without = "is set, but resources.gpus is 0; leave gpus out to get a share of one GPU, or remove this"
        each = self.per_agent.gpu_memory if self.per_agent is not None else None
        given = {"gpu_memory": self.gpu_memory, "per_agent.gpu_memory": each, "accelerator": self.accelerator}
        problems = [(name, without) for name, value in given.items() if value is not None]
        if problems:
            raise several(problems)
        return self


class Growth(Section):
    """What a run that ran out of memory gets next."""

    grow: Annotated[float, number(1, exclusive=True, example="1.5")] = Field(
        default=1.5, gt=1, description="So many times the memory that ran out", examples=[1.5]
    )
    max: Annotated[int, whole_number(1, 100, example=2)] = Field(
        default=2, ge=1, le=100, description="How often at most", examples=[2]
    )


class Population(Section):
    """Agents that may be more than one worker serves."""

    agents: Annotated[int, whole_number(1, MOST_AGENTS, example=64)] = Field(
        ge=1, le=MOST_AGENTS, description="How many agents there are in all", examples=[64]
    )
    strategy: Annotated[Literal["pack", "spread"], one_of(("pack", "spread"))] = Field(
        default="pack", description="pack: on as few nodes as possible; spread: each part on another, if it can be"
    )


# What specs of every kind have.
Priority = Annotated[
    int,
    Field(
        ge=-MOST_PRIORITY,
        le=MOST_PRIORITY,
        description="Experiments with more of it get their places first",
        examples=[10],
    ),
    whole_number(-MOST_PRIORITY, MOST_PRIORITY, example=10),
]
Weight = Annotated[
    float,
    Field(gt=0, description="Share beside other experiments of the same priority", examples=[2]),
    number(0, exclusive=True, example="2"),
]
OnOom = Annotated[
    Growth | None,
    Field(
        description="A run out of memory restarts with more of it. Default: it has FAILED",
        examples=[{"grow": 1.5, "max": 2}],
    ),
]
ResourcesSection = Annotated[Resources, BeforeValidator(nothing_is_empty)]
