"""Being stopped, and going on."""

from __future__ import annotations

import signal

from mosaic_cluster.conformance.findings import Failed, NotRun, Warned
from mosaic_cluster.conformance.laboratory import Ended, Laboratory

_MEANT = (128 + signal.SIGTERM, -signal.SIGTERM)


def sigterm(lab: Laboratory) -> None:
    """SIGTERM ends it within the grace time: a checkpoint, run_cancelled, exit code 143."""
    run = _stopped(lab)
    if run.code is None:
        raise Failed(
            f"it did not end within {lab.case.grace:g} s of SIGTERM", "save and return when it is asked to stop"
        )
    if run.code not in _MEANT:
        raise Warned(f"after SIGTERM it {run.how}: {run.tail}", "end with exit code 143: run_program does")
    if not run.events("run_cancelled"):
        raise Warned("it did not say run_cancelled", "handle SIGTERM: run_program and WorkerSession do")
    needs = lab.usable.capabilities
    if needs is None or not needs.supports_checkpointing:
        return
    saved = run.events("checkpoint_saved")
    last = max([float(beat.get("step", 0)) for beat in run.events("heartbeat")] or [0.0])
    if not saved or float(saved[-1].get("step", 0)) < last:
        raise Warned("it saved nothing when it was stopped", "save before you end: what it learned is lost otherwise")


def resume(lab: Laboratory) -> None:
    """It goes on from a checkpoint, at that checkpoint's step."""
    _usual(lab)
    needs = lab.usable.capabilities
    found = lab.checkpoint
    if found is None:
        if needs is not None and needs.supports_checkpointing:
            raise Warned(
                "it declares checkpoints, and there is none to go on from", "announce checkpoints, and load them"
            )
        raise NotRun("there is no checkpoint to go on from")
    step = float(found[1].get("step", 0))
    run = lab.resumed
    if run.code not in (0, None):
        raise Failed(f"with MOSAIC_RESUME_FROM it {run.how}: {run.tail}", "load what it saved")
    loaded = run.events("checkpoint_loaded")
    first = next((float(beat["step"]) for beat in run.events("heartbeat") if "step" in beat), None)
    if not loaded and (first is None or first < step):
        raise Failed(
            f"it began anew: its first heartbeat is of step {first}, the checkpoint is of {step:g}",
            "load MOSAIC_RESUME_FROM, and say checkpoint_loaded",
        )
    if not loaded:
        raise Warned("it did not say checkpoint_loaded", "WorkerSession.resumed does")
    told = loaded[0].get("step")
    if told is None or float(told) != step:
        raise Failed(f"it says that it loaded step {told}, and the checkpoint is of step {step:g}", "go on at its step")
    if first is not None and first < step:
        raise Failed(f"it went on from step {step:g} with a heartbeat of step {first:g}", "count on where it stood")


def _stopped(lab: Laboratory) -> Ended:
    _usual(lab)
    run = lab.stopped
    if run.term_seconds is None:
        words = "it ended before it could be stopped"
        raise NotRun(f"{words}: {run.how}", "give a longer run: long_config in conformance.json or --config FILE")
    return run


def _usual(lab: Laboratory) -> None:
    if lab.whole.code not in (0, None):
        raise NotRun("the run did not end well")


CHECKS = (sigterm, resume)
