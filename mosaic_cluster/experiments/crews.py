"""Agents of an experiment, and the runs that they are split over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.placement import split_agents
from mosaic_cluster.specs import RunSpec, Spec
from mosaic_cluster.worker import WorkerCapabilities
from mosaic_cluster.worker.errors import Problem

AGENT_SETTINGS = ("num_agents", "n_agents")
"""Settings of a worker's config that say how many agents its environment has."""

GANG = "population"


@dataclass(frozen=True)
class Crew:
    """Agents of one run.

    Attributes:
        agents: how many; ``None``: as its resources or its config say.
        gang: placed together with the others of that name, or not at all; empty: alone.
        spread: whether the gang's members keep apart.
        environment: variables that tell its worker which part of the population it has.
    """

    agents: int | None = None
    gang: str = ""
    spread: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def crews(spec: RunSpec, worker: WorkerEntry) -> tuple[Crew, ...]:
    """The runs of a spec: one, or as many as it takes to serve its population."""
    if spec.population is None:
        return (Crew(),)
    total = spec.population.agents
    parts = split_agents(total, capabilities_of(worker).max_agents)
    if len(parts) == 1:
        return (Crew(total),)
    return tuple(
        Crew(
            agents,
            GANG,
            spec.population.strategy == "spread",
            {
                "MOSAIC_POPULATION_AGENTS": str(total),
                "MOSAIC_POPULATION_PARTS": str(len(parts)),
                "MOSAIC_POPULATION_PART": str(number),
                "MOSAIC_POPULATION_FIRST": str(sum(parts[:number])),
            },
        )
        for number, agents in enumerate(parts)
    )


def agents_in(config: Mapping[str, Any]) -> int | None:
    """How many agents a config says its environment has; ``None`` where it does not say."""
    for name in AGENT_SETTINGS:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def capabilities_of(worker: WorkerEntry) -> WorkerCapabilities:
    """What a worker declares; the defaults where it declares nothing."""
    return worker.capabilities or WorkerCapabilities(worker_type=worker.name)


def too_many_agents(spec: Spec, worker: WorkerEntry, config: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """More agents in one environment than the worker serves: they are never split."""
    asked = spec.resources.agents
    agents = asked if asked is not None else agents_in(config)
    most = capabilities_of(worker).max_agents
    if agents is None or agents <= most or worker.capabilities is None:
        return []
    others = [each for each in catalog.entries() if each.usable and each.capabilities is not None]
    could = [
        f"{each.name} serves up to {each.capabilities.max_agents}"
        for each in others
        if each.capabilities is not None and each.capabilities.max_agents >= agents
    ]
    setting = next((name for name in AGENT_SETTINGS if name in config), "")
    path = "resources.agents" if asked is not None else f"config.{setting}"
    instead = f"take another worker ({', '.join(could)})" if could else "take another worker (none here serves so many)"
    said = f"{agents} agents are more than worker {worker.name} serves; give {most} or fewer, or {instead}"
    return [Problem(path, said)]
