"""A spec that was edited after its experiment began: what differs, and what that would do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.specs import parse
from mosaic_cluster.worker.errors import InvalidInput, Problem, SpecError

CREATED, CHANGED = "experiment_created", "spec_changed"
NEXT_ATTEMPT = "holds for each run from its next attempt on"
NEXT_PLACE = "holds for runs that are placed from now on"
MAY_CHANGE: Mapping[str, Mapping[str, str]] = {
    "run": {
        "config": "holds from the next attempt on, which continues from the last checkpoint",
        "limits": NEXT_ATTEMPT,
        "resources": NEXT_ATTEMPT,
        "priority": NEXT_PLACE,
        "weight": NEXT_PLACE,
        "on_oom": "holds from the next time a run is out of memory on",
        "environment": NEXT_ATTEMPT,
        "telemetry": "holds from now on, for each run from its next attempt on",
        "command": NEXT_ATTEMPT,
        "notes": "is kept from now on",
    },
    "sweep": {
        "limits": NEXT_ATTEMPT,
        "limits.max_concurrent_trials": "holds for trials that start from now on",
        "samples": "more trials, after those there are",
        "resources": NEXT_ATTEMPT,
        "priority": NEXT_PLACE,
        "weight": NEXT_PLACE,
        "on_oom": "holds from the next time a run is out of memory on",
        "environment": NEXT_ATTEMPT,
        "telemetry": "holds from now on, for each run from its next attempt on",
        "notes": "is kept from now on",
    },
}
FIXED = ("telemetry.shards",)
"""A hub of another number of shards would not know what is there."""

# Where an experiment lies is seen by where it is found.
IGNORED = ("storage",)


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        path: dotted place in the spec.
        before, after: values; ``None``: not set.
        effect: what it would do; ``None``: it cannot be taken over.
    """

    path: str
    before: Any
    after: Any
    effect: str | None

    def __str__(self) -> str:
        what = f"{_shown(self.before)} -> {_shown(self.after)}"
        return f"{what}: {self.effect or 'cannot change: start a new experiment with it'}"


def accepted(record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The spec that an experiment goes by: as submitted, or as last accepted with changes."""
    specs = [entry["spec"] for entry in entries if entry["type"] in (CREATED, CHANGED)]
    return _as_now(specs[-1] if specs else record["spec"])


def _as_now(document: Mapping[str, Any]) -> dict[str, Any]:
    """A spec that an earlier version kept, with what has been added to specs since at its default."""
    spec, _ = parse(document)
    return spec.to_document() if spec is not None else dict(document)


def wanted(
    record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The spec to go on with, in canonical form: the one given, else the experiment's own file if somebody edited
    that, else the accepted one.

    Raises:
        SpecError: it is no good spec.
    """
    known = accepted(record, entries)
    submitted = next((entry["spec"] for entry in entries if entry["type"] == CREATED), record["spec"])
    if given is None:
        given = record["spec"] if record["spec"] != submitted else known
    spec, problems = parse(given)
    if spec is None:
        raise SpecError(problems, "the spec to continue with")
    document = spec.to_document()
    if "seed" in known:
        # One that was drawn stays: a run that goes on is still the same run.
        document.setdefault("seed", known["seed"])
    return document


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every difference, and what it would do."""
    kind = str(before.get("kind"))
    found = []
    for path, old, new in _differences(before, after):
        if path.partition(".")[0] in IGNORED:
            continue
        effects = MAY_CHANGE.get(kind, {}) if after.get("kind") == kind else {}
        effect = None if path in FIXED else effects.get(path) or effects.get(path.partition(".")[0])
        if path == "samples" and not (isinstance(old, int) and isinstance(new, int) and new > old):
            effect = None
        found.append(Change(path, old, new, effect))
    return found


def check_changes(found: Sequence[Change], experiment_id: str, *, allowed: bool) -> None:
    """Refuse changes that were not allowed, or cannot be.

    Raises:
        InvalidInput: the differences, each with what it would do.
    """
    if not found:
        return
    impossible = [change for change in found if change.effect is None]
    if allowed and not impossible:
        return
    shown = impossible if allowed else found
    heading = f"the spec differs from the one that {experiment_id} was started with"
    problems = [Problem(change.path, str(change)) for change in shown]
    if not impossible:
        problems.append(Problem("", "to go on with this: --allow-changed; to go on as before: leave the edit out"))
    raise InvalidInput(problems, heading)


def _differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for key in dict.fromkeys([*before, *after]):
            below = f"{path}.{key}" if path else str(key)
            found += _differences(before.get(key), after.get(key), below)
        return found
    return [] if before == after else [(path, before, after)]


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
