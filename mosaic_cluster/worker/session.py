"""One attempt at a run, as its worker sees it: where it stands, whom it tells, where it saves, when it must stop.

A runtime may use it like this::

    class MyRuntime:
        def __init__(self, config, *, dry_run=False, stop_requested=lambda: False, worker_id=None):
            self.config, self.dry_run = config, dry_run
            self.session = WorkerSession("my_worker", config, stop_requested=stop_requested, worker_id=worker_id)

        def run(self):
            return self.session.run(self._train, dry_run=self.dry_run)

        def _train(self, session):
            if session.dry_run:
                return {}                                 # everything is built, nothing trained or written
            while session.step < self.config.total_steps and not session.stopping:
                ...
                session.step += 1
                session.heartbeat({"loss": 0.1})          # as often as you like: it keeps to one a second
                if session.checkpoint_due(self.config.checkpoint_every):
                    session.saved(save_somehow(session.checkpoint_dir))
            return {"episodic_return": 500.0}             # results, for the summary and the manifest
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Union

from mosaic_cluster.worker._plain import json_text
from mosaic_cluster.worker.analytics import MANIFEST, ArtifactsMetadata, CheckpointMetadata, WorkerAnalyticsManifest
from mosaic_cluster.worker.program import telemetry_stream
from mosaic_cluster.worker.telemetry import TelemetryEmitter

_PathLike = Union[str, "os.PathLike[str]"]

HEARTBEAT_SECONDS = 1.0
RECENT_EPISODES = 20
ANNOUNCED = ".announced.json"
"""Beside the checkpoints: which were announced, with their scores. An attempt that is killed writes no manifest, and
the next one of the run must know of them all the same."""


class WorkerSession:
    """One attempt at a run.

    Args:
        worker_type: name of the worker's entry point.
        config: has ``run_id``, ``seed`` and ``to_dict()``.
        stop_requested: asked by :attr:`stopping`.
        worker_id: name of this worker process, for the log.
        checkpoint_format: what the manifest says of the files: ``pytorch``, ``jax``, ``rllib`` ...
        about: more for ``run_started``.
        environ: where the ``MOSAIC_...`` variables are looked up.
        clock: seconds, monotonic.

    Attributes:
        step: environment steps taken, over all attempts. The worker moves it.
        metrics: latest values, added to every heartbeat.
        episodes: episodes ended in this attempt.
        run_dir: the run's folder; the working directory where nobody says.
        checkpoint_dir: where checkpoints go; not made before :meth:`run` trains.
        resume_from: the checkpoint to go on from, or ``None``.
        cpus: CPUs that it may keep busy, at least 1.
        dry_run: whether nothing is to be trained or written.
    """

    def __init__(
        self,
        worker_type: str,
        config: Any,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: Optional[str] = None,
        checkpoint_format: str = "unknown",
        about: Optional[Mapping[str, Any]] = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker_type = worker_type
        self.config = config
        self.emitter = TelemetryEmitter(config.run_id, sink=telemetry_stream())
        self.step = 0
        self.episodes = 0
        self.metrics: Dict[str, Any] = {}
        self.dry_run = False
        self.run_dir = Path(environ.get("MOSAIC_RUN_DIR") or Path.cwd()).absolute()
        self.checkpoint_dir = Path(environ.get("MOSAIC_CHECKPOINT_DIR") or "checkpoints").absolute()
        given = environ.get("MOSAIC_RESUME_FROM")
        self.resume_from: Optional[Path] = Path(given).absolute() if given else None
        self.cpus = _at_least_one(environ.get("MOSAIC_CPUS", ""))
        self._stop_requested = stop_requested
        self._worker_id = worker_id
        self._format = checkpoint_format
        self._more = dict(about or {})
        self._clock = clock
        self._began = clock()
        self._began_at_step = 0
        self._last_heartbeat = self._began
        self._heartbeat_step = -1
        self._saved_step = 0
        self._save_soon = False
        self._looked_at = _steps(environ.get("MOSAIC_REPORT_STEPS", ""))
        self._returns: Deque[float] = deque(maxlen=RECENT_EPISODES)
        # Names of the run's checkpoints, as in the manifest, in the order they were announced last; with their scores.
        self._announced: Dict[str, Optional[float]] = {}

    @property
    def stopping(self) -> bool:
        """Whether to save and return as soon as the current step is done."""
        return self._stop_requested()

    @property
    def seconds(self) -> float:
        """Since this attempt began."""
        return self._clock() - self._began

    @property
    def steps_per_second(self) -> float:
        """Environment steps a second, in this attempt."""
        return round((self.step - self._began_at_step) / max(self.seconds, 1e-9), 1)

    @property
    def episodic_return(self) -> Optional[float]:
        """Mean over the last 20 finished episodes; ``None`` before the first."""
        return sum(self._returns) / len(self._returns) if self._returns else None

    def run(self, train: Callable[[WorkerSession], Mapping[str, Any]], *, dry_run: bool = False) -> Dict[str, Any]:
        """Train, with all the lifecycle lines and the manifest around it.

        Args:
            train: is given this session, moves :attr:`step`, and returns its results as plain values: numbers for
                the summary. Where it returns while :attr:`stopping` holds, the run counts as cancelled, unless all of
                the config's ``total_steps`` are done and what was learned last is saved; a ``status`` in its results,
                ``"completed"`` or ``"cancelled"``, is the last word.
            dry_run: ``train`` builds and checks everything, and returns what it found.

        Returns:
            the summary: ``status`` is ``completed``, ``cancelled`` or ``dry-run``.

        Raises:
            Exception: what ``train`` raises; ``run_failed`` has been emitted.
        """
        self.dry_run = dry_run
        self.emitter.run_started(self._about())
        try:
            if not dry_run:
                self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
                self._remember()
            results = dict(train(self) or {})
        except Exception as error:
            self.emitter.run_failed({"status": "failed", "step": self.step}, exc_info=error)
            raise
        return self._end(results)

    def resumed(self, step: int) -> None:
        """The checkpoint at :attr:`resume_from` has been loaded; training goes on from ``step``."""
        self.step = self._began_at_step = self._saved_step = step
        self._looked_at = [each for each in self._looked_at if each > step]
        self.emitter.checkpoint_loaded({"path": str(self.resume_from), "step": step})

    def heartbeat(self, metrics: Optional[Mapping[str, Any]] = None, *, now: bool = False) -> bool:
        """Report :attr:`step`, speed, returns and metrics: at most once a second, and never the same step twice.

        Args:
            metrics: taken into :attr:`metrics` first.
            now: report although a second has not passed. So it does by itself at the steps at which a sweep looks.

        Returns:
            whether a line was written.
        """
        self.metrics.update(metrics or {})
        while self._looked_at and self._looked_at[0] <= self.step:
            self._looked_at.pop(0)
            now = self._save_soon = True
        moment = self._clock()
        if self.step == self._heartbeat_step or not (now or moment - self._last_heartbeat >= HEARTBEAT_SECONDS):
            return False
        self._last_heartbeat = moment
        self._heartbeat_step = self.step
        payload: Dict[str, Any] = {
            "step": self.step,
            "steps_per_second": self.steps_per_second,
            "episodes": self.episodes,
        }
        if self._returns:
            payload["episodic_return"] = self.episodic_return
        payload.update(self.metrics)
        self.emitter.heartbeat(payload)
        return True

    @property
    def report_due(self) -> bool:
        """Whether the next heartbeat will be one that a sweep looks at: worth an evaluation just before it."""
        return bool(self._looked_at and self._looked_at[0] <= self.step)

    def episode(self, total_reward: float, steps: int, **fields: Any) -> None:
        """An episode ended.

        Args:
            total_reward: undiscounted sum; with several agents, over all of them, unless ``agent_id`` is given.
            steps: its length.
            fields: ``terminated``, ``truncated``, ``agent_id``, ``metadata`` ...
        """
        self._returns.append(float(total_reward))
        metadata = {"global_step": self.step, **fields.pop("metadata", {})}
        number = fields.pop("episode", self.episodes)
        self.emitter.episode(
            episode=number, total_reward=float(total_reward), steps=int(steps), metadata=metadata, **fields
        )
        self.episodes += 1

    def checkpoint_due(self, every: int) -> bool:
        """Whether to save now: ``every`` steps are past (0: never), or a sweep has just looked."""
        return self._save_soon or bool(every and self.step // every > self._saved_step // every)

    def saved(self, path: _PathLike, *, score: Optional[float] = None, **fields: Any) -> None:
        """A checkpoint lies complete at ``path`` (a file or a folder); a heartbeat of its step goes before it.

        Args:
            score: greater is better; default: :attr:`episodic_return`. Decides which the manifest calls the best.
            fields: more for the line.
        """
        path = Path(path).absolute()
        self.heartbeat(now=True)
        self._save_soon = False
        self._saved_step = self.step
        value = self.episodic_return if score is None else float(score)
        name = self._relative(path)
        self._announced.pop(name, None)
        self._announced[name] = value
        line: Dict[str, Any] = {"path": str(path), "step": self.step, **fields}
        if value is not None:
            line["score"] = value
        self._write_announced()
        self.emitter.checkpoint_saved(line)

    def keep(self, newest: int) -> None:
        """Remove all but the newest checkpoints of the run, the best one excepted; of all its attempts."""
        kept = {*list(self._announced)[-newest:], self._best()}
        for name in [each for each in self._announced if each not in kept]:
            _remove(self.run_dir / name)
            del self._announced[name]

    def _there(self) -> List[str]:
        return [name for name in self._announced if (self.run_dir / name).exists()]

    def _best(self) -> Optional[str]:
        """The checkpoint with the highest score, the later of equals; ``None`` where none has one."""
        scores = {name: self._announced[name] for name in reversed(self._there())}
        known = [(value, name) for name, value in scores.items() if value is not None and not math.isnan(value)]
        return max(known, key=lambda each: each[0])[1] if known else None

    def _remember(self) -> None:
        """Take over what earlier attempts have announced.

        Only where this one goes on from one of these: a checkpoint of another run, or a copy of it, comes with another
        past, and what was reached before in this folder is none of its.
        """
        if self.resume_from is None or self._announced:
            return
        try:
            said = json.loads((self.checkpoint_dir / ANNOUNCED).read_text(encoding="utf-8"))
            names = {str(each["path"]): _number(each.get("score")) for each in said["checkpoints"]}
            returns = [value for value in map(_number, said["returns"]) if value is not None]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return  # there is none, or nothing that can be used: this attempt's own are listed
        mine = self._relative(self.resume_from)
        if mine not in names:
            return
        self._announced = names
        self._announced = {name: names[name] for name in self._there()}
        if mine == list(names)[-1]:  # they were not the last ones at an earlier checkpoint
            self._returns.extend(returns)

    def _write_announced(self) -> None:
        checkpoints = [{"path": name, "score": value} for name, value in self._announced.items()]
        text = json_text({"checkpoints": checkpoints, "returns": list(self._returns)})
        target = self.checkpoint_dir / ANNOUNCED
        unfinished = target.with_name(ANNOUNCED + ".tmp")
        with contextlib.suppress(OSError):  # it only helps a next attempt
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, target)

    def _done(self) -> bool:
        """Whether nothing is left: a stop that came in the last moment cuts nothing off."""
        total = getattr(self.config, "total_steps", None)
        reached = isinstance(total, (int, float)) and self.step >= total
        return reached and (not self._announced or self._saved_step == self.step)

    def _about(self) -> Dict[str, Any]:
        config = self.config.to_dict()
        about = {"worker_type": self.worker_type, "config": config, "dry_run": self.dry_run}
        about.update({name: config[name] for name in ("env_id", "algo", "total_steps", "seed") if name in config})
        if self._worker_id:
            about["worker_id"] = self._worker_id
        about.update(self._more)
        return about

    def _end(self, results: Dict[str, Any]) -> Dict[str, Any]:
        if self.dry_run:
            status = "dry-run"
        else:
            self.heartbeat(now=True)
            status = results.pop("status", "cancelled" if self.stopping and not self._done() else "completed")
        summary: Dict[str, Any] = {"status": status, "step": self.step, "seconds": round(self.seconds, 3)}
        if not self.dry_run:
            summary.update(steps_per_second=self.steps_per_second, episodes=self.episodes)
            if self._returns:
                summary["episodic_return"] = self.episodic_return
        summary.update(results)
        if not self.dry_run:
            self._write_manifest(summary)
        if status == "cancelled":
            self.emitter.run_cancelled(summary)
        else:
            self.emitter.run_completed(summary)
        return summary

    def _write_manifest(self, summary: Dict[str, Any]) -> None:
        names = self._there()
        saved = None
        if names:
            saved = CheckpointMetadata(
                directory=self._relative((self.run_dir / names[-1]).parent),
                format=self._format,
                files=names,
                best_checkpoint=self._best() or names[-1],
                final_checkpoint=names[-1],
            )
        manifest = WorkerAnalyticsManifest(
            run_id=self.config.run_id,
            worker_type=self.worker_type,
            artifacts=ArtifactsMetadata(checkpoints=saved),
            metadata={"config": self.config.to_dict(), "results": dict(summary)},
        )
        try:
            summary["analytics_manifest"] = str(manifest.save(self.run_dir / MANIFEST))
        except OSError as error:  # what was learned is saved: an unwritten list must not make the run a failure
            import logging

            logging.getLogger(__name__).warning("the analytics manifest cannot be written: %s", error)

    def _relative(self, path: Path) -> str:
        """Relative to the run's folder where it lies below: the folder may be moved as a whole."""
        try:
            return str((path.parent.resolve() / path.name).relative_to(self.run_dir.resolve()))
        except ValueError:
            return str(path)


def _steps(text: str) -> List[int]:
    return sorted(int(step) for step in text.split(",") if step.strip().isdigit())


def _number(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _at_least_one(text: str) -> int:
    try:
        return max(1, int(float(text)))
    except ValueError:
        return 1


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


__all__ = ["HEARTBEAT_SECONDS", "RECENT_EPISODES", "WorkerSession"]
