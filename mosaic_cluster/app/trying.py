"""Dry runs of what a spec would run: ``mosaic plan --dry-run``."""

from __future__ import annotations

import json
from collections.abc import Callable

from mosaic_cluster.catalog.environments import BuildProgress
from mosaic_cluster.experiments.planning import Prepared
from mosaic_cluster.runtime.trying import DryRun, dry_run


def try_out(prepared: Prepared, report: Callable[[BuildProgress], None] | None = None) -> list[DryRun]:
    """Have each worker of a spec check the configs that stand for all there will be, on this machine.

    Args:
        report: told how far the building of an environment is, where it is missing here.
    """
    plans = {(plan.worker.name, json.dumps(plan.config, sort_keys=True)): plan for plan in reversed(prepared.plans)}
    return [
        dry_run(
            plan.worker,
            plan.config,
            run_id=plan.run_id,
            seed=plan.seed,
            environment=plan.environment,
            report=report,
        )
        for plan in reversed(plans.values())
    ]


def dry_run_lines(found: list[DryRun]) -> list[str]:
    """What came of it, for people."""
    lines = []
    for each in found:
        lines.append(f"dry run of {each.worker} on this machine: {each.message}")
        lines += [f"  {line}" for line in each.stderr if line.strip() not in each.message]
    return lines
