"""MARLlib 1.0.3: its ``fit`` runs in a process of its own, which is watched through the files that Tune writes.

``fit`` takes no callbacks and returns nothing. So the child's ``result.json`` is read as it grows, and becomes
heartbeats and episodes; its checkpoints are announced once they lie complete in the run's folder. To stop it, its
standard input is closed: it ends after the current iteration, with a checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

from marllib_worker import results
from marllib_worker.algorithms import ALGORITHMS, GAMES
from marllib_worker.analytics import describe_checkpoint
from marllib_worker.config import MarllibConfig, library_settings
from marllib_worker.processes import adopt_orphans, end_descendants
from marllib_worker.runtime import TrainingError, missing_library
from marllib_worker.scratch import make_scratch

PATIENCE = 20.0
"""Seconds that an iteration may still take when the run is to stop; then the last checkpoint has to do."""

_POLL = 0.2


def train(config: MarllibConfig, session: WorkerSession) -> Mapping[str, Any]:
    """Train with MARLlib, or check that it could be done.

    Raises:
        ConfigError: MARLlib is not there, or refuses a setting.
        TrainingError: its process failed.
    """
    for name in ("marllib", "torch"):  # they are imported in a process of their own, not in this one
        if importlib.util.find_spec(name) is None:
            raise missing_library(config, ImportError(f"No module named {name!r}"))
    gpus = _gpus(config)
    scratch = make_scratch()
    try:
        described = describe_checkpoint(session.resume_from) if session.resume_from else None
        wanted = job(config, session, scratch, gpus, described)
        if session.dry_run:
            _check(config, scratch, wanted)
            return {"settings": wanted["algo_args"]}
        if described is not None:
            session.resumed(int(described["step"]))
        return _Training(config, session, scratch, wanted).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def job(
    config: MarllibConfig,
    session: WorkerSession,
    scratch: Path,
    gpus: int,
    described: Optional[Mapping[str, Any]],
) -> Dict[str, Any]:
    """What the child is to do, as plain values.

    Args:
        config: of the run.
        session: of the attempt.
        scratch: a private folder with a short path.
        gpus: 0 or 1.
        described: what the checkpoint to go on from says of itself.
    """
    algorithm, game = ALGORITHMS[config.algo], GAMES[config.env_id]
    algo_args = library_settings(config)
    envs = config.get("num_envs") or 1
    rllib_config: Dict[str, Any] = {"gamma": config.get("gamma"), "num_envs_per_worker": envs, "log_level": "ERROR"}
    if algorithm.on_policy and config.get("rollout_steps"):
        # RLlib collects fragments until it has a batch: they are made to fit it.
        fragments = envs * max(1, config.num_workers)
        rllib_config["rollout_fragment_length"] = -(-config.get("rollout_steps") // fragments)
    for name, value in config.parameters.items():
        (rllib_config if name in RLLIB_SETTINGS else algo_args)[name] = value
    local_dir = session.run_dir / "marllib" / f"{os.getpid()}-{time.time_ns()}"
    return {
        "algo": config.algo,
        "map": game.marllib,
        "force_coop": algorithm.paradigm == "VD" and game.cooperative,
        "env_args": {"continuous_actions": algorithm.actions == "continuous", "max_cycles": config.episode_steps},
        "algo_args": algo_args,
        "model": _model(config),
        "share_policy": config.share_policy,
        "seed": config.seed,
        "total_steps": config.total_steps,
        "checkpoint_every": config.checkpoint_every,
        "report_steps": _report_steps(os.environ.get("MOSAIC_REPORT_STEPS", ""), described),
        "num_workers": config.num_workers,
        "num_gpus": gpus,
        "rllib_config": rllib_config,
        "temp_dir": str(scratch),
        "local_dir": str(local_dir),
        "checkpoint_dir": str(session.checkpoint_dir),
        "announcements": str(scratch / "checkpoints.jsonl"),
        "restore": str(session.resume_from / described["file"]) if session.resume_from and described else None,
        "resumed_step": int(described["step"]) if described else 0,
        "config": config.to_dict(),
    }


RLLIB_SETTINGS = (
    "batch_mode",
    "grad_clip",
    "horizon",
    "learning_starts",
    "min_iter_time_s",
    "rollout_fragment_length",
    "sgd_minibatch_size",
    "timesteps_per_iteration",
    "train_batch_size",
    "vf_clip_param",
)
"""Names in ``parameters`` that go to RLlib's config; all others are MARLlib's ``algo_args``."""


class _Training:
    """The child's life, and what is told of it."""

    def __init__(self, config: MarllibConfig, session: WorkerSession, scratch: Path, wanted: Dict[str, Any]) -> None:
        self.config = config
        self.session = session
        self.scratch = scratch
        self.results = results.Lines(Path(wanted["local_dir"]) / "tune" / "trial" / "result.json")
        self.announced = results.Lines(Path(wanted["announcements"]))
        self.waiting: List[Dict[str, Any]] = []
        self.wanted = wanted

    def run(self) -> Dict[str, Any]:
        adopt_orphans()
        began = time.monotonic()
        child = start(self.scratch, self.wanted)
        try:
            ended = self._watch(child)
        finally:
            _finish(child)
            end_descendants()
        self._report(last=True)
        if not ended:
            sys.stderr.write(
                f"the iteration under way did not end within {PATIENCE:g} seconds and was cut off; "
                "the last checkpoint stands\n"
            )
        elif child.returncode == 2:
            raise ConfigError([_refused(self.scratch)])
        elif child.returncode != 0:
            raise TrainingError(
                f"MARLlib's process ended with exit code {child.returncode} after {self.session.step} steps"
                + _last_words(Path(self.wanted["local_dir"]))
            )
        return {"library_seconds": round(time.monotonic() - began, 1)}

    def _watch(self, child: subprocess.Popen[bytes]) -> bool:
        """Report until the child ends. Returns whether it did so by itself."""
        stopping_since: Optional[float] = None
        while child.poll() is None:
            self._report()
            if self.session.stopping:
                if stopping_since is None:
                    stopping_since = time.monotonic()
                    _close(child)
                elif time.monotonic() - stopping_since > PATIENCE:
                    return False
            time.sleep(_POLL)
        return True

    def _report(self, last: bool = False) -> None:
        """Tell what was written since the last time, in the order it happened.

        Results are read first: an announcement that belongs before the newest of them is there by then.
        """
        found = self.results.read()
        self.waiting.extend(self.announced.read())
        for result in found:
            step = results.steps(result)
            self._announce(below=step)
            self.session.step = step
            for reward, length in results.new_episodes(result):
                self.session.episode(reward, length, terminated=False, truncated=True)
            self.session.heartbeat({**results.metrics(result), "agents": GAMES[self.config.env_id].agents})
            self._announce(below=step + 1)
        if last:
            self._announce(below=None)

    def _announce(self, below: Optional[int]) -> None:
        while self.waiting and (below is None or self.waiting[0]["step"] < below):
            found = self.waiting.pop(0)
            self.session.step = max(self.session.step, found["step"])
            self.session.saved(found["path"])
            self.session.keep(self.config.keep_checkpoints)


def start(scratch: Path, wanted: Mapping[str, Any], *more: str) -> subprocess.Popen[bytes]:
    """Start the child, in a session of its own: a signal to our group is for us to pass on, not for Ray."""
    path = scratch / "job.json"
    path.write_text(json.dumps(wanted), encoding="utf-8")
    # A cluster named in the environment is one that Ray 1.8 would join.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env.update(TUNE_DISABLE_SIGINT_HANDLER="1", TUNE_RESULT_DELIM="/", RAY_DISABLE_IMPORT_WARNING="1")
    env.update(RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_SYNCER="1")
    command = [sys.executable, "-m", "marllib_worker.marllib_child", str(path), *more]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, start_new_session=True)


def _check(config: MarllibConfig, scratch: Path, wanted: Mapping[str, Any]) -> None:
    child = start(scratch, wanted, "check")
    code = child.wait()
    if code == 2:
        raise ConfigError([_refused(scratch)])
    if code != 0:
        raise TrainingError(f"MARLlib cannot be set up here: its process ended with exit code {code}, see above")


def _refused(scratch: Path) -> Problem:
    return Problem("parameters", "MARLlib refuses: {}".format((scratch / "problem").read_text(encoding="utf-8")))


def _close(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None and not child.stdin.closed:
        child.stdin.close()


def _finish(child: subprocess.Popen[bytes]) -> None:
    _close(child)
    if child.poll() is None:
        child.kill()
        child.wait()


def _model(config: MarllibConfig) -> Dict[str, Any]:
    sizes = config.hidden_sizes
    return {
        "core_arch": config.core_arch,
        "encode_layer": "-".join(map(str, sizes)),
        "hidden_state_size": sizes[-1],
    }


def _gpus(config: MarllibConfig) -> int:
    if config.device == "cpu" or (config.device == "auto" and not os.environ.get("CUDA_VISIBLE_DEVICES")):
        return 0
    import torch

    available = torch.cuda.is_available()
    if not available and config.device == "cuda":
        raise ConfigError(
            [Problem("device", "is cuda, but torch of MARLlib's environment sees no GPU here; set auto or cpu")]
        )
    return int(available)


def _report_steps(text: str, described: Optional[Mapping[str, Any]]) -> List[int]:
    """Steps at which a sweep looks, beyond those of the checkpoint to go on from."""
    begin = int(described["step"]) if described else 0
    return [int(each) for each in text.split(",") if each.strip().isdigit() and int(each) > begin]


def _last_words(local_dir: Path) -> str:
    """The last line of the error that Tune wrote down."""
    for path in sorted(local_dir.glob("tune/*/error.txt")):
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return ": " + lines[-1]
    return ", see stderr"


__all__ = ["PATIENCE", "RLLIB_SETTINGS", "job", "start", "train"]
