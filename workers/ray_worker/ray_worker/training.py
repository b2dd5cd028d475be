"""The actor that RLlib's algorithm lives in, within the run's placement group.

RLlib is imported there only: the worker's own process, which starts the actor, does without it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from ray_worker.config import EPISODES, MAIN, RayConfig, Share, opponents_of
from ray_worker.policy import SAVED, describe

if TYPE_CHECKING:
    from ray_worker.algorithms import Game

LIFETIME_STEPS = "num_env_steps_sampled_lifetime"


class Trainer:
    """An algorithm and its state; becomes an actor by ``ray.remote``.

    Args:
        config: of the run, as a dict.
        share: what it may take.
        seed: of the run.
        folder: where RLlib may leave files of its own.
    """

    def __init__(self, config: Mapping[str, Any], share: Share, seed: int, folder: str) -> None:
        self.config = RayConfig.from_dict(config)
        self._share, self._seed, self._folder = share, seed, folder
        self._game: Game
        self._algorithm: Any = None
        self._learned = 0
        self._evaluated = 0
        self._opponents = opponents_of(self.config) if self.config.policies == "self_play" else []
        self._snapshots = 0

    def build(self) -> dict[str, Any]:
        """Make the environment and the algorithm; to be called first.

        Returns:
            What was found, see :func:`ray_worker.algorithms.checked`, and the ``processes`` that it runs in.

        Raises:
            ConfigError: what the run asks for does not go together.
        """
        from ray_worker.algorithms import checked

        warnings.simplefilter("ignore")
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._game, config, found = checked(self.config, self._share, self._seed)
        _keep_files_in(self._folder)
        self._algorithm = config.build_algo()
        cap = self._share.gpu_memory
        if cap is not None:
            self._algorithm.learner_group.foreach_learner(lambda _: _keep_within(cap))
        return {**found, "processes": self.where()}

    def restore(self, path: str) -> int:
        """Go on from a checkpoint; returns its step."""
        said = json.loads(Path(path, SAVED).read_text(encoding="utf-8"))
        if self._algorithm.env_runner_group is None:
            # Of an algorithm that only learns from a dataset, which Algorithm.restore_from_path() overlooks (Ray 2.60).
            from ray.rllib.utils.checkpoints import Checkpointable

            Checkpointable.restore_from_path(self._algorithm, path)
        else:
            self._algorithm.restore_from_path(path)
        self._learned = self._evaluated = int(said["step"])
        self._snapshots = int(said.get("snapshots", 0))
        return int(said["step"])

    def train(self) -> dict[str, Any]:
        """One iteration.

        Returns:
            ``step``, the ``episodes`` that ended, and ``metrics``, plain numbers.
        """
        result = self._algorithm.train()
        step = self._count(result)
        metrics = dict(_numbers(result.get("learners", {})))
        episodes = _episodes(result.get("env_runners", {}))
        if self.config.algorithm.offline and self._evaluation_due(step):
            episodes = _episodes(self._algorithm.evaluate().get("env_runners", {}))
        if self._opponents:
            metrics["snapshots"] = self._snapshots
            if step // self.config.snapshot_every > self._snapshots:
                self._snapshot()
        return {"step": step, "episodes": episodes, "metrics": metrics}

    def _count(self, result: Mapping[str, Any]) -> int:
        if not self.config.algorithm.offline:
            # 0 in an iteration that ended before a runner of appo or impala gave anything.
            self._learned = max(self._learned, int(result.get(LIFETIME_STEPS) or 0))
            return self._learned
        from ray_worker.offline import UPDATES

        self._learned += UPDATES * int(self._algorithm.config.train_batch_size_per_learner)
        return self._learned

    def _evaluation_due(self, step: int) -> bool:
        every = self.config.evaluation_every
        due = step // every > self._evaluated // every or step >= self.config.total_steps
        self._evaluated = step if due else self._evaluated
        return due

    def _snapshot(self) -> None:
        """The oldest opponent becomes what the policy is now."""
        name = self._opponents[self._snapshots % len(self._opponents)]
        learners, runners = self._algorithm.learner_group, self._algorithm.env_runner_group
        learners.set_weights({name: learners.get_weights(module_ids=[MAIN])[MAIN]})
        # Not by sync_weights(): runners pass over weights that bear the number of those they had last.
        part = f"learner/rl_module/{MAIN}"
        acting = learners.get_state(part, inference_only=True)["learner"]["rl_module"][MAIN]
        runners.foreach_env_runner(lambda runner: runner.set_state({"rl_module": {name: acting}}))
        self._snapshots += 1

    def save(self, path: str, step: int) -> None:
        """Write a checkpoint, which appears whole."""
        target = Path(path)
        staged = target.with_name(f".{target.name}")
        shutil.rmtree(staged, ignore_errors=True)
        self._algorithm.save_to_path(str(staged))
        said = describe(self.config, self._game, self._seed, step) | {"snapshots": self._snapshots}
        (staged / SAVED).write_text(json.dumps(said) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)

    def where(self) -> dict[str, Any]:
        """Process id, node and placement group of this actor, of the env runners, and of the learners."""
        runners = self._algorithm.env_runner_group
        remote = runners.foreach_env_runner(lambda _: _place(), local_env_runner=False) if runners else []
        learners: list[dict[str, Any]] = []
        if self.config.num_learners:
            found = self._algorithm.learner_group.foreach_learner(lambda _: _place())
            learners = [each.get() for each in found]
        return {"algorithm": _place(), "env_runners": list(remote), "learners": learners}

    def stop(self) -> None:
        """End what the algorithm has started, if there is one."""
        if self._algorithm is not None:
            self._algorithm.stop()


def _place() -> dict[str, Any]:
    context = ray.get_runtime_context()
    return {"pid": os.getpid(), "node": context.get_node_id(), "group": context.get_placement_group_id()}


def _keep_within(cap: int) -> None:
    """Let torch allocate no more of this process's GPU, if it has one: nobody else keeps Ray's processes within."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))


def _keep_files_in(folder: str) -> None:
    """RLlib makes a folder for results that nobody writes, below the user's home: not there."""
    from ray.tune.trainable import trainable

    trainable.DEFAULT_STORAGE_PATH = folder


def _episodes(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = result.get(EPISODES, [])
    if isinstance(told, str):
        told = [told]  # RLlib takes a single one out of its list
    return [json.loads(each) for each in told] if isinstance(told, list | tuple) else []


def _numbers(learners: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Losses and the like: ``policy_loss``, with several modules ``agent_0/policy_loss``."""
    modules = {
        name: found for name, found in learners.items() if name != "__all_modules__" and isinstance(found, Mapping)
    }
    for module, found in modules.items():
        for name, value in found.items():
            if name.startswith(("num_", "weights_", "module_train", "diff_")):
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if math.isfinite(number):
                yield (name if len(modules) == 1 else f"{module}/{name}"), number


__all__ = ["Trainer"]
