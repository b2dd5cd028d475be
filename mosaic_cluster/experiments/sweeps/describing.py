"""What running a sweep would do, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mosaic_cluster.experiments.forecasting import MOST_FORECAST, Everything, longest
from mosaic_cluster.experiments.placing import environment_lines, on_restart
from mosaic_cluster.experiments.planning import Prepared
from mosaic_cluster.experiments.sweeps.checking import planned
from mosaic_cluster.placement import ClusterView, Placement, plan
from mosaic_cluster.specs import SweepSpec
from mosaic_cluster.specs.space import Space

MOST_SHOWN = 12
MOST_COUNTED = 100_000


def describe_sweep(prepared: Prepared, view: ClusterView) -> tuple[list[str], list[dict[str, Any]]]:
    """Trials, runs, resources, concurrency and what would wait; and placement's answers for the first of them."""
    spec = prepared.spec
    assert isinstance(spec, SweepSpec)
    known = planned(spec, prepared.parts, MOST_COUNTED)
    count = spec.samples or len(known or ())
    seeds = len(spec.seeds)
    lines = [
        f"{_count(count, 'trial')} by {spec.search.kind} search, each with {_count(seeds, 'seed')}: "
        f"{_count(count * seeds, 'run')}",
        f"judged by the {spec.metric.statistic} of {spec.metric.name} over seeds, {spec.metric.mode}"
        + (f", at {', '.join(f'{at:,}' for at in spec.metric.at)} steps" if spec.metric.at else ", at the end"),
        _scheduling(spec, count),
    ]
    for part in prepared.parts:
        lines.append(f"worker {part.worker.name} {part.worker.version}: {on_restart(part.worker)}")
        lines += [f"  varies {param.path}: {_range(part.space, param.path)}" for param in part.space.params]
    lines += environment_lines(prepared.plans)
    lines += _concurrency(prepared, spec, view, count)
    if known:
        lines.append("the first configurations:" if len(known) > MOST_SHOWN else "the configurations:")
        for number, each in enumerate(known[:MOST_SHOWN], 1):
            shown = ", ".join(f"{name}: {_short(value)}" for name, value in each.params.items())
            which = f"{prepared.parts[each.part].worker.name}  " if len(prepared.parts) > 1 else ""
            lines.append(f"  t{number:04d}  {which}{shown}")
    answers = plan([run.request for run in prepared.plans], view)
    return lines, [answer.to_dict() for answer in answers.answers]


def everything_of(prepared: Prepared) -> Everything:
    """What all runs of a sweep ask for: the first of them, in the order in which they would start."""
    spec = prepared.spec
    assert isinstance(spec, SweepSpec)
    known = planned(spec, prepared.parts, MOST_FORECAST) or []
    count = spec.samples or len(planned(spec, prepared.parts, MOST_COUNTED) or ())
    seeds = len(spec.seeds)
    shown = min(count, max(1, MOST_FORECAST // seeds))
    # Where results decide what is tried, workers are taken in turn.
    parts = [known[number].part if number < len(known) else number % len(prepared.parts) for number in range(shown)]
    requests = [
        replace(longest(prepared.plans[part * seeds + index]), run_id=f"t{number:04d}-{index}")
        for number, part in enumerate(parts, 1)
        for index in range(seeds)
    ]
    most = spec.limits.max_concurrent_trials
    return Everything(tuple(requests), count * seeds, None if most is None else most * seeds)


def _scheduling(spec: SweepSpec, count: int) -> str:
    kind, rungs = spec.scheduler.kind, len(spec.metric.at or ())
    factor = spec.scheduler.reduction_factor or 3
    if kind == "none":
        return "no scheduler: every run goes to its end"
    if kind == "asha":
        return f"asha stops a trial at a rung unless it is among the best 1/{factor} of those that were there before"
    if kind == "hyperband":
        band = sum(-(-rungs * factor**s // (s + 1)) for s in range(rungs))
        few = f"; {count} fill it only in part" if count < band else ""
        what = f"hyperband pauses trials at rungs and goes on with the best 1/{factor}"
        return f"{what} (a full band has {band} trials{few})"
    share = spec.scheduler.quantile_fraction or 0.25
    how = f"the worst {share:.0%} go on from copies of the best {share:.0%}, changed a little"
    return f"pbt: at each rung all meet, and {how}"


def _concurrency(prepared: Prepared, spec: SweepSpec, view: ClusterView, count: int) -> list[str]:
    """How many runs fit at once on what is free now."""
    lines = []
    seeds = len(spec.seeds)
    most = min(count, spec.limits.max_concurrent_trials or count)
    for index, part in enumerate(prepared.parts):
        first = prepared.plans[index * seeds].request
        wanted = min(most * seeds, 10_000)
        made = plan([first] * wanted, view)
        fit = sum(isinstance(answer, Placement) for answer in made.answers)
        named = f"worker {part.worker.name}: " if len(prepared.parts) > 1 else ""
        if fit == 0:
            reasons = getattr(made.answers[0], "reasons", ())
            lines.append(f"{named}no run has room now: {'; '.join(reasons)}")
            continue
        placed = made.placements[0]
        lines.append(f"{named}{_count(fit, 'run')} at once on what is free now, each with {placed.resources()}")
        if fit < seeds:
            waves = -(-seeds // fit)
            how = "rung by rung" if _takes_turns(spec, prepared, index) else "one wave after the other"
            lines.append(f"{named}the {seeds} seeds of a trial do not all fit: they run in {waves} waves, {how}")
        elif fit < wanted:
            waiting = wanted - fit
            lines.append(f"{named}{_count(waiting, 'run')} would wait for room")
    if most < count:
        lines.append(f"at most {_count(most, 'trial')} at once (limits.max_concurrent_trials)")
    return lines


def _takes_turns(spec: SweepSpec, prepared: Prepared, index: int) -> bool:
    capabilities = prepared.parts[index].worker.capabilities
    return spec.scheduler.kind != "none" and capabilities is not None and capabilities.supports_pause_resume


def _range(space: Space, path: str) -> str:
    param = space.find(path)
    assert param is not None
    if param.kind == "choice":
        text = f"one of {', '.join(_short(value) for value in param.choices)}"
    else:
        ends = f"{_short(param.fit(param.low))} to {_short(param.fit(param.high))}"
        text = ends + (", logarithmic" if param.log else "") + (f", in steps of {param.step:g}" if param.step else "")
    return text + (f", where {param.when.text}" if param.when is not None else "")


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
