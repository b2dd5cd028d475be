"""What a whole run of it prints and leaves behind."""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mosaic_cluster.conformance.findings import Failed, NotRun, Warned
from mosaic_cluster.conformance.laboratory import Ended, Laboratory
from mosaic_cluster.worker.analytics import WorkerAnalyticsManifest

_TERMINAL = ("run_completed", "run_failed", "run_cancelled")
_BURST = 5
"""Heartbeats within a second that pass: beside one a second there are the first, the last, those of a sweep's looks."""
_CLOCK = ("second", "time", "duration", "speed", "fps", "sps", "per_s", "timestamp", "elapsed", "eta")
"""In names of metrics that a clock decides."""


def run(lab: Laboratory) -> None:
    """A run of the small config ends well."""
    if lab.whole.code is None:
        raise Failed(f"it {lab.whole.how}", "give a smaller config: --config FILE")
    if lab.whole.code != 0:
        raise Failed(f"it {lab.whole.how}: {lab.whole.tail}", "say on stderr why, and give a config that works")


def stdout(lab: Laboratory) -> None:
    """stdout has telemetry and nothing else: one JSON object a line."""
    if lab.whole.impure:
        shown = "; ".join(repr(line[:120]) for line in lab.whole.impure[:3])
        raise Failed(
            f"{len(lab.whole.impure)} lines are no JSON objects: {shown}",
            "log to stderr; run_program sends what a library prints there",
        )
    if not lab.whole.lines:
        raise Failed("there is nothing on it", "report with TelemetryEmitter")


def lifecycle(lab: Laboratory) -> None:
    """run_started comes first, one run_completed last, all with the run's id and in order of time."""
    lines = [line for line in lab.trained.lines if "event" in line]
    names = [str(line["event"]) for line in lines]
    if names[:1] != ["run_started"] or names.count("run_started") != 1:
        raise Failed(f"the lifecycle begins with {names[:3]}", "emit run_started once, before anything else")
    ends = [name for name in names if name in _TERMINAL]
    if ends != ["run_completed"] or names[-1] != "run_completed":
        raise Failed(f"it ends with {names[-3:]}", "emit run_completed once, after everything else")
    others = {line.get("run_id") for line in lines} - {lab.trained.run_id}
    if others:
        raise Failed(
            f"there are lines of the run {others}, and this is {lab.trained.run_id!r}", "keep the run_id given"
        )
    times = [line.get("timestamp") for line in lines]
    if not all(isinstance(each, (int, float)) for each in times):
        raise Failed("there are lifecycle lines without a timestamp", "report with TelemetryEmitter")
    if times != sorted(times):  # type: ignore[type-var]
        raise Failed("timestamps go back", "report with TelemetryEmitter, in the order in which things happen")


def heartbeat_rate(lab: Laboratory) -> None:
    """Heartbeats come about once a second at most."""
    times = sorted(_times(lab.trained, "heartbeat"))
    saved = sorted(_times(lab.trained, "checkpoint_saved"))
    for index, first in enumerate(times):
        count = bisect.bisect_right(times, first + 1) - index
        allowed = _BURST + bisect.bisect_right(saved, first + 1) - bisect.bisect_left(saved, first)
        if count > allowed:
            raise Failed(f"{count} heartbeats within a second", "WorkerSession.heartbeat keeps to one a second")


def heartbeat_payload(lab: Laboratory) -> None:
    """Each heartbeat has the step, which never goes back, and steps_per_second."""
    beats = lab.trained.events("heartbeat")
    if not beats:
        raise Failed("there is no heartbeat", "emit one about every second, and one at the end")
    steps = [beat.get("step") for beat in beats]
    if not all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in steps):
        raise Failed(f"there are heartbeats without a step: {sorted(beats[0])}", "say which step it is")
    if steps != sorted(steps):  # type: ignore[type-var]
        raise Failed(f"the step goes back: {steps[:20]}", "count environment steps over the whole run")
    if not all("steps_per_second" in beat for beat in beats):
        raise Warned("there are heartbeats without steps_per_second", "say how fast it is: WorkerSession does")


def manifest(lab: Laboratory) -> None:
    """A manifest of the run is left, with its run_id and worker type."""
    found = _manifest(lab)
    if found.run_id != lab.trained.run_id:
        raise Failed(f"its run_id is {found.run_id!r}, and the run is {lab.trained.run_id!r}", "keep the run_id given")
    needs = lab.usable.capabilities
    if needs is not None and found.worker_type != needs.worker_type:
        raise Warned(f"its worker_type is {found.worker_type!r}, declared is {needs.worker_type!r}", "use one name")


def checkpoint_files(lab: Laboratory) -> None:
    """Checkpoints that it announces are there, complete, in the run's folder, at steps that were reached."""
    saved = lab.trained.events("checkpoint_saved")
    if not saved:
        needs = lab.usable.capabilities
        if needs is None or not needs.supports_checkpointing:
            raise NotRun("it declares no checkpoints, and announces none")
        raise Warned("it declares checkpoints, and announces none", "emit checkpoint_saved with path and step")
    if not all(isinstance(each.get("path"), str) and isinstance(each.get("step"), (int, float)) for each in saved):
        raise Failed(f"path or step is missing: {saved[0]}", "announce checkpoints with both")
    last = lab.trained.folder / saved[-1]["path"]
    if not last.exists() or _size(last) == 0:
        raise Failed(
            f"the last one, {saved[-1]['path']}, is not there, or empty", "write it completely, then announce it"
        )
    if not last.resolve().is_relative_to(lab.trained.folder.resolve()):
        raise Failed(f"{last} lies outside the run's folder", "write to MOSAIC_CHECKPOINT_DIR")
    reached = max([float(beat.get("step", 0)) for beat in lab.trained.events("heartbeat")] or [0.0])
    if float(saved[-1]["step"]) > reached:
        raise Failed(
            f"the last one is of step {saved[-1]['step']}, the last heartbeat of {reached:g}", "count honestly"
        )
    folder = lab.trained.folder / "checkpoints"
    unfinished = sorted(path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".part", ".partial"))
    if unfinished:
        raise Failed(f"unfinished files are left: {', '.join(unfinished)}", "rename what is complete")


def manifest_checkpoints(lab: Laboratory) -> None:
    """The manifest lists the checkpoints that are there, with the best and the last."""
    if not lab.trained.events("checkpoint_saved"):
        raise NotRun("there are no checkpoints")
    listed = _manifest(lab).artifacts.checkpoints
    if listed is None or not listed.files:
        raise Warned("it lists none", "WorkerSession lists them")
    missing = [name for name in listed.files if not _within(lab.trained, name)]
    if missing:
        raise Failed(f"it lists what is not there: {', '.join(missing[:3])}", "list what is left, relative to the run")
    for name, value in (("best_checkpoint", listed.best_checkpoint), ("final_checkpoint", listed.final_checkpoint)):
        if not value:
            raise Warned(f"it does not say which is the {name}", "WorkerSession does")
        if not _within(lab.trained, value):
            raise Failed(f"its {name}, {value}, is not there", "keep the best and the last")


def same_seed(lab: Laboratory) -> None:
    """The same config and seed give the same run."""
    if not lab.case.deterministic:
        raise NotRun("its library is declared not to be reproducible")
    first, second = lab.trained, lab.again
    if second.code != 0:
        raise Failed(f"the second run {second.how}: {second.tail}", "it must end as the first one did")
    one, other = _course(first), _course(second)
    if one == other:
        return
    index = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    seen = [course[index] if index < len(course) else "nothing" for course in (one, other)]
    raise Failed(
        f"twice seed 7, and number {index + 1} of what they report is {seen[0]} in one, {seen[1]} in the other",
        "seed everything: the library, numpy, random, the environments. Or declare deterministic: false",
    )


def _course(run: Ended) -> list[Any]:
    """What a run reports that no clock decides: its episodes, and the last heartbeat."""
    episodes = [
        [line.get("episode"), line.get("total_reward", line.get("reward")), line.get("steps"), line.get("agent_id")]
        for line in run.lines
        if line.get("type") == "episode"
    ]
    beats = run.events("heartbeat")
    last = {name: value for name, value in (beats[-1] if beats else {}).items() if not _of_clock(name)}
    return [*episodes, last]


def _of_clock(name: str) -> bool:
    return any(part in name.lower() for part in _CLOCK)


def _times(run: Ended, event: str) -> list[float]:
    return [float(line.get("timestamp") or 0.0) for line in run.lines if line.get("event") == event]


def _manifest(lab: Laboratory) -> WorkerAnalyticsManifest:
    run = lab.trained
    places = [run.folder / "analytics.json", run.folder / f"{run.run_id}_analytics.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise Failed("there is none", "WorkerSession writes one; else save WorkerAnalyticsManifest as analytics.json")
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return WorkerAnalyticsManifest.from_dict(dict(found))
    except (ValueError, TypeError, KeyError) as error:
        raise Failed(f"{path.name} cannot be read: {error}", "save it with WorkerAnalyticsManifest.save") from None


def _within(run: Ended, name: str) -> bool:
    return (run.folder / name).exists()


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


CHECKS = (
    run,
    stdout,
    lifecycle,
    heartbeat_rate,
    heartbeat_payload,
    manifest,
    checkpoint_files,
    manifest_checkpoints,
    same_seed,
)
