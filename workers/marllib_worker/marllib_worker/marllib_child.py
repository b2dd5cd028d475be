"""The process that MARLlib trains in: ``python -m marllib_worker.marllib_child JOB.json``, started by the backend.

It runs ``fit`` of MARLlib as it is. MARLlib calls ``ray.init`` and ``tune.run`` itself and hands nothing through to
them; both are wrapped here, so that

- Ray is a small private instance that listens on loopback only, with its files in a folder of the run's own;
- a checkpoint is taken when one is due, and copied to the run's checkpoints complete;
- training ends, with a checkpoint, when the standard input of this process ends: when the worker closes it, or when
  the worker is gone, however it went;
- a run goes on from a checkpoint with its learning rate. (MARLlib's ``restore_path`` is for rendering: it sets the
  rate to 1e-10.)

Python 3.8 source; runs in MARLlib's environment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Optional

from marllib_worker.analytics import DESCRIPTION, description
from marllib_worker.seeds import environment_seed


class Hooks:
    """What stands around MARLlib's calls.

    Args:
        job: what the worker wants; see ``marllib_backend.job``.
    """

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.stop = threading.Event()
        self.saved_step = int(job["resumed_step"])
        self.looked_at = sorted(job["report_steps"])

    def __reduce__(self) -> Any:
        """Tune pickles its own state, and with it whom it calls back; nobody reads that here."""
        return (dict, ())

    def listen(self) -> None:
        """Note the end of standard input, in the background."""

        def wait() -> None:
            while os.read(0, 4096):
                pass
            self.stop.set()

        threading.Thread(target=wait, daemon=True).start()

    def install(self) -> None:
        """Wrap ``ray.init`` and ``tune.run``, which MARLlib looks up in their modules."""
        import ray
        from ray import tune

        self._init, self._run = ray.init, tune.run
        ray.init, tune.run = self.init, self.run

    def init(self, *args: Any, **given: Any) -> Any:
        """``ray.init`` of a private instance on loopback.

        Ray 1.8 takes port 6379 first, which a cluster of today may want.
        """
        from ray import ray_constants
        from ray._private import services

        if services.address_to_ip("127.0.0.1") != "127.0.0.1":
            sys.stderr.write("this Ray has not the patch of environment.toml: it listens beyond loopback\n")
        ray_constants.DEFAULT_PORT = _free_port()
        return self._init(
            local_mode=False,
            num_cpus=1 + self.job["num_workers"],
            num_gpus=self.job["num_gpus"],
            include_dashboard=False,
            object_store_memory=200 * 1024**2,
            _redis_max_memory=50 * 1024**2,
            _node_ip_address="127.0.0.1",
            _temp_dir=self.job["temp_dir"],
        )

    def run(self, trainable: Any, **given: Any) -> Any:
        """``tune.run`` with our stop, our checkpoints and our settings of RLlib."""
        given["config"] = {**given["config"], **self.job["rllib_config"]}
        seed_environments(given["config"]["env"], self.job["seed"], int(self.job["resumed_step"]))
        given.update(
            stop=_stopper(self),
            callbacks=[_checkpoints(self)],
            restore=self.job["restore"],
            local_dir=self.job["local_dir"],
            name="tune",
            trial_dirname_creator=lambda trial: "trial",
            checkpoint_freq=0,
            checkpoint_at_end=True,
            keep_checkpoints_num=1,
            max_failures=0,
            verbose=0,
        )
        del given["progress_reporter"]
        return self._run(trainable, **given)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be taken at this step."""
        every = self.job["checkpoint_every"]
        due = bool(every and step // every > self.saved_step // every)
        while self.looked_at and self.looked_at[0] <= step:
            self.looked_at.pop(0)
            due = True
        return due

    def keep(self, source: Path, step: int) -> None:
        """Copy one of Tune's checkpoints to the run's; under its name it is complete, or not there."""
        folder = Path(self.job["checkpoint_dir"])
        target, unfinished = folder / f"checkpoint_{step}", folder / f".checkpoint_{step}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        names = [each.name for each in source.iterdir() if each.name.startswith("checkpoint-") and "." not in each.name]
        about = description(self.job["config"], step, file=names[0])
        (unfinished / DESCRIPTION).write_text(json.dumps(about, indent=2), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
        self.saved_step = step
        with open(self.job["announcements"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"path": str(target), "step": step}) + "\n")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _stopper(hooks: Hooks) -> Any:
    from ray.tune import Stopper

    class AtTheEnd(Stopper):  # type: ignore[misc]
        """Ends a trial at the end of the iteration in which it has enough steps, or is to stop."""

        def __call__(self, trial_id: str, result: Dict[str, Any]) -> bool:
            return hooks.stop.is_set() or result["timesteps_total"] >= hooks.job["total_steps"]

        def stop_all(self) -> bool:
            return False

    return AtTheEnd()


def _checkpoints(hooks: Hooks) -> Any:
    from ray.tune import Callback

    class Checkpoints(Callback):  # type: ignore[misc]
        """Has Tune save when it is due, and keeps what it saved. Tune looks at the trial right after the result."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            trial.checkpoint_freq = 1 if hooks.is_due(int(result["timesteps_total"])) else 0

        def on_checkpoint(self, iteration: int, trials: Any, trial: Any, checkpoint: Any, **info: Any) -> None:
            path = Path(checkpoint.value)
            hooks.keep(path if path.is_dir() else path.parent, int(checkpoint.result["timesteps_total"]))

    return Checkpoints()


def seed_environments(name: str, seed: int, step: int) -> None:
    """Register an environment's maker again, so that what it makes is seeded.

    RLlib 1.8 calls ``seed`` of an environment, which MARLlib's wrapper has not, and then goes on without.
    """
    from ray.tune.registry import ENV_CREATOR, _global_registry, register_env

    make = _global_registry.get(ENV_CREATOR, name)

    def make_seeded(context: Any) -> Any:
        env = make(context)
        worker, index = getattr(context, "worker_index", 0), getattr(context, "vector_index", 0)
        inner = env
        # From the outside in: groups of agents, MARLlib's wrapper, RLlib's, PettingZoo's.
        while not hasattr(inner, "possible_agents"):
            inner = getattr(inner, "par_env", None) or inner.env
        inner.seed(environment_seed(seed, step, worker, index or 0))
        return env

    register_env(name, make_seeded)


def build(job: Dict[str, Any]) -> Any:
    """MARLlib's algorithm, environment and model.

    Raises:
        ValueError: MARLlib refuses a setting.
    """
    from marllib import marl

    env = marl.make_env(environment_name="mpe", map_name=job["map"], force_coop=job["force_coop"], **job["env_args"])
    algorithm = getattr(marl.algos, job["algo"])(hyperparam_source="common", **job["algo_args"])
    model = marl.build_model(env, algorithm, job["model"])
    return algorithm, env, model


def main(path: str, check_only: Optional[str] = None) -> int:
    """Do a job; 2: MARLlib refuses its settings, and ``problem`` of the job's folder says why."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    random.seed(job["seed"])  # happo and hatrpo draw from it; theirs is replaced by ours later
    hooks = Hooks(job)
    hooks.listen()
    try:
        algorithm, env, model = build(job)
    except (ValueError, KeyError) as error:
        Path(path).with_name("problem").write_text(str(error), encoding="utf-8")
        return 2
    if check_only:
        return 0
    hooks.install()
    algorithm.fit(
        env,
        model,
        local_mode=False,
        seed=job["seed"],
        num_gpus=job["num_gpus"],
        num_workers=job["num_workers"],
        share_policy=job["share_policy"],
        evaluation_interval=None,
        checkpoint_freq=0,
        local_dir=job["local_dir"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
