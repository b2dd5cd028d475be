"""BenchMARL 1.5.2: the maintained way to nine of the algorithms, in this process, on a modern Python.

Heartbeats come from its callback ``on_batch_collected``. It saves at the end of an iteration, where
``checkpoint_interval`` says so; here it is asked at every one, and decides itself. What BenchMARL leaves out of a
checkpoint and a run needs to go on is added by the callbacks ``on_state_dict`` and ``on_load_state_dict``: the
optimizers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

from marllib_worker.algorithms import ALGORITHMS, GAMES
from marllib_worker.analytics import DESCRIPTION, describe_checkpoint, description
from marllib_worker.config import MarllibConfig, library_settings
from marllib_worker.runtime import missing_library

CONTENT = "experiment.pt"
PATIENCE = 5.0
"""Seconds that an update may still take when the run is to stop; then the rest of it is skipped."""


def train(config: MarllibConfig, session: WorkerSession) -> Mapping[str, Any]:
    """Train with BenchMARL, or check that it could be done.

    Raises:
        ConfigError: BenchMARL is not there, or refuses a setting.
    """
    try:
        import benchmarl  # noqa: F401
        import torch
    except ImportError as error:
        raise missing_library(config, error) from error
    folder = session.run_dir / "benchmarl"
    if session.dry_run:
        folder = folder / ".dry-run"
    reporter = Reporter(config, session)
    torch.set_num_threads(session.cpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = 0 if session.resume_from is None else int(describe_checkpoint(session.resume_from)["step"])
        experiment = build_experiment(config, str(folder), [reporter.callback()], begun)
        if session.dry_run:
            experiment.close()
            return {"settings": library_settings(config)}
        if session.resume_from is not None:
            resume(experiment, session, begun)
        reporter.run(experiment)
    finally:
        if session.dry_run:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
    return {}


def build_experiment(config: MarllibConfig, folder: Optional[str], callbacks: List[Any], begun: int = 0) -> Any:
    """BenchMARL's experiment for a config.

    Args:
        config: of the run.
        folder: where BenchMARL writes; it is there.
        callbacks: BenchMARL's.
        begun: the step that it goes on from.

    Raises:
        ConfigError: BenchMARL knows no such setting, or refuses it.
    """
    from benchmarl.experiment import Experiment

    class Stepwise(Experiment):  # type: ignore[misc]
        """Asks its callbacks at the end of every iteration, instead of saving."""

        def _save_experiment(self) -> None:
            for callback in self.callbacks:
                callback.on_iteration_end(self)

    task = build_task(config, begun)
    experiment_config, algorithm_config = library_configs(config, folder)
    model = model_config(config)
    try:
        return Stepwise(task, algorithm_config, model, config.seed, experiment_config, callbacks=callbacks)
    except (ValueError, TypeError) as error:
        raise ConfigError([Problem("", f"BenchMARL refuses the config: {error}")]) from error


def build_task(config: MarllibConfig, begun: int = 0) -> Any:
    """BenchMARL's task for a config: games of PettingZoo in one batch, with scaled rewards.

    Args:
        config: of the run.
        begun: the step that it goes on from.
    """
    from benchmarl.environments import PettingZooTask
    from benchmarl.environments.pettingzoo.common import PettingZooClass
    from torchrl.envs.transforms import RewardScaling

    from marllib_worker.benchmarl_games import BatchedGames

    class Batched(PettingZooClass):  # type: ignore[misc]
        def __reduce__(self) -> Any:
            return (dict, ())  # BenchMARL pickles its task; a class within a function cannot be

        def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: Optional[int], device: Any) -> Any:
            make_one = super().get_env_fun(num_envs, continuous_actions, seed, device)
            settings = {name: value for name, value in self.config.items() if name != "task"}
            settings["continuous_actions"] = continuous_actions
            return lambda: BatchedGames(
                config, make_one(), num_envs, settings, seed=seed or 0, step=begun, device=device
            )

        # BenchMARL wants the specs of one environment, and reads those of the batch for a game that it wraps itself.
        def observation_spec(self, env: Any) -> Any:
            return super().observation_spec(_unbatched(env))

        def state_spec(self, env: Any) -> Any:
            return super().state_spec(_unbatched(env))

        def info_spec(self, env: Any) -> Any:
            return super().info_spec(_unbatched(env))

        def action_mask_spec(self, env: Any) -> Any:
            return super().action_mask_spec(_unbatched(env))

        def action_spec(self, env: Any) -> Any:
            return super().action_spec(_unbatched(env))

        def get_env_transforms(self, env: Any) -> List[Any]:
            scale = config.get("reward_scale") or 1.0
            return [RewardScaling(loc=0.0, scale=scale, in_keys=list(env.reward_keys), standard_normal=False)]

    found = PettingZooTask[GAMES[config.env_id].benchmarl].get_from_yaml()
    return Batched(name=found.name, config={**found.config, "max_cycles": config.episode_steps})


def _unbatched(env: Any) -> Any:
    return SimpleNamespace(
        observation_spec=env.full_observation_spec_unbatched,
        full_action_spec=env.full_action_spec_unbatched,
        group_map=env.group_map,
    )


def library_configs(config: MarllibConfig, folder: Optional[str]) -> Tuple[Any, Any]:
    """BenchMARL's configs of the experiment and of the algorithm.

    Raises:
        ConfigError: ``parameters`` has names that neither of them knows.
    """
    from benchmarl.algorithms import algorithm_config_registry
    from benchmarl.experiment import ExperimentConfig

    experiment, algorithm = ExperimentConfig.get_from_yaml(), algorithm_config_registry[config.algo].get_from_yaml()
    on_policy = ALGORITHMS[config.algo].on_policy
    kind = "on_policy" if on_policy else "off_policy"
    device = _device(config)
    settings: Dict[str, Any] = {
        "sampling_device": device,
        "train_device": device,
        "buffer_device": device,
        "share_policy_params": config.share_policy != "individual",
        "prefer_continuous_actions": False,
        "gamma": config.get("gamma"),
        "max_n_frames": config.total_steps,
        kind + "_n_envs_per_worker": config.get("num_envs") or 1,
        "off_policy_memory_size": 100_000,
        "evaluation": False,
        "evaluation_episodes": 1,
        "render": False,
        "loggers": ["csv"],
        "create_json": False,
        "save_folder": folder,
        "checkpoint_at_end": False,
        "exclude_buffer_from_checkpoint": True,
    }
    settings.update(library_settings(config))
    settings.update(config.parameters)
    # TorchRL collects whole steps of all environments; BenchMARL looks whether to save by the number it was told.
    frames, envs = kind + "_collected_frames_per_batch", settings[kind + "_n_envs_per_worker"]
    settings[frames] = -(-settings.get(frames, getattr(experiment, frames)) // envs) * envs
    settings["checkpoint_interval"] = settings[frames]
    unknown = _apply(settings, experiment, algorithm)
    if unknown:
        known = sorted({each.name for target in (experiment, algorithm) for each in dataclasses.fields(target)})
        text = "neither BenchMARL's experiment nor {} has it; there are {}".format(config.algo, ", ".join(known))
        raise ConfigError([Problem(f"parameters.{name}", text) for name in unknown])
    return experiment, algorithm


def _apply(settings: Mapping[str, Any], *targets: Any) -> List[str]:
    """Set what each dataclass has; returns the names that none has."""
    names = [{each.name for each in dataclasses.fields(target)} for target in targets]
    for name, value in settings.items():
        for target, known in zip(targets, names):
            if name in known:
                setattr(target, name, value)
    return [name for name in settings if not any(name in known for known in names)]


def model_config(config: MarllibConfig) -> Any:
    """BenchMARL's config of the networks: actors' and critics'."""
    from benchmarl.models import GruConfig, LstmConfig, MlpConfig

    if config.core_arch == "mlp":
        model = MlpConfig.get_from_yaml()
        model.num_cells = list(config.hidden_sizes)
        return model
    model = (GruConfig if config.core_arch == "gru" else LstmConfig).get_from_yaml()
    model.hidden_size = config.hidden_sizes[-1]
    model.mlp_num_cells = list(config.hidden_sizes)
    return model


def resume(experiment: Any, session: WorkerSession, step: int) -> None:
    """Load the checkpoint that this attempt goes on from, which is of this step."""
    import torch

    assert session.resume_from is not None
    content = torch.load(session.resume_from / CONTENT, map_location="cpu", weights_only=False)
    experiment.load_state_dict(content)
    session.resumed(step)


class Stopped(Exception):
    """The run ends here, saved."""


class Reporter:
    """What an experiment tells, in the session's words.

    Args:
        config: of the run.
        session: of the attempt.
    """

    def __init__(self, config: MarllibConfig, session: WorkerSession) -> None:
        self.config = config
        self.session = session
        self.metrics: Dict[str, Any] = {"agents": GAMES[config.env_id].agents}
        self.stopping_since: Optional[float] = None

    def run(self, experiment: Any) -> None:
        """Train until the end or a stop; a checkpoint is saved at either."""
        try:
            experiment.run()
        except Stopped:
            pass  # run() has closed it

    def batch(self, experiment: Any, batch: Any) -> None:
        """A batch was collected: environment steps, and episodes that ended in it."""
        self.session.step = int(experiment.total_frames)
        scale = self.config.get("reward_scale") or 1.0
        for scaled, length in finished_episodes(batch, experiment.group_map, self.config.episode_steps):
            self.session.episode(scaled / scale, length, terminated=False, truncated=True)
        self.session.heartbeat(self.metrics)

    def trained(self, experiment: Any, losses: Any, group: str) -> None:
        """A group's update is done: its mean losses go with the next heartbeat."""
        only = len(experiment.group_map) == 1
        for name, value in losses.items():
            if value.dtype.is_floating_point and name.startswith(("loss", "entropy", "kl", "grad_norm")):
                key = name if only else f"{name}.{group}"
                self.metrics[key] = round(float(value.float().mean()), 6)

    def in_an_update(self, experiment: Any) -> None:
        """Between two gradient steps: where a stop has waited too long, the rest of the update is skipped."""
        if self.session.stopping:
            self.stopping_since = self.stopping_since or time.monotonic()
            if time.monotonic() - self.stopping_since > PATIENCE:
                experiment.n_iters_performed += 1
                self.save(experiment)
                raise Stopped

    def iteration(self, experiment: Any) -> None:
        """An iteration is over: save what is due, and stop if asked to."""
        last = experiment.n_iters_performed >= experiment.config.get_max_n_iters(experiment.on_policy)
        stopping = self.session.stopping
        if last or stopping or self.session.checkpoint_due(self.config.checkpoint_every):
            self.save(experiment)
        if stopping:
            raise Stopped

    def save(self, experiment: Any) -> None:
        """A checkpoint of this moment; under its name it is complete, or not there."""
        import torch

        step, folder = self.session.step, self.session.checkpoint_dir
        target, unfinished = folder / f"checkpoint_{step}", folder / f".checkpoint_{step}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        torch.save(experiment.state_dict(), unfinished / CONTENT)
        about = description(self.config.to_dict(), step, file=CONTENT)
        (unfinished / DESCRIPTION).write_text(json.dumps(about, indent=2), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
        self.session.saved(target)
        self.session.keep(self.config.keep_checkpoints)

    def callback(self) -> Any:
        """This reporter as BenchMARL wants it."""
        from benchmarl.experiment.callback import Callback

        reporter = self

        class Telling(Callback):  # type: ignore[misc]
            def __reduce__(self) -> Any:
                return (dict, ())  # BenchMARL pickles its callbacks; a session is none of its business

            def on_batch_collected(self, batch: Any) -> None:
                reporter.batch(self.experiment, batch)

            def on_train_step(self, batch: Any, group: str) -> None:
                reporter.in_an_update(self.experiment)

            def on_train_end(self, training_td: Any, group: str) -> None:
                reporter.trained(self.experiment, training_td, group)

            def on_iteration_end(self, experiment: Any) -> None:
                reporter.iteration(experiment)

            def on_state_dict(self, state_dict: Dict[str, Any]) -> None:
                state_dict["mosaic"] = more_state(self.experiment)

            def on_load_state_dict(self, state_dict: Dict[str, Any]) -> None:
                load_more_state(self.experiment, state_dict["mosaic"])

        return Telling()


def finished_episodes(batch: Any, group_map: Mapping[str, Any], episode_steps: int) -> List[Tuple[float, int]]:
    """Return (summed over all agents) and length of each episode that ended in a batch.

    Args:
        batch: tensordict of shape (environments, steps).
        group_map: agents by group.
        episode_steps: all of MPE's episodes are that long.
    """
    done = batch["next", "done"].squeeze(-1)
    if not done.any():
        return []
    team = sum(batch["next", group, "episode_reward"].sum(dim=(-2, -1)) for group in group_map)
    # In the order of time, then of environments.
    return [(float(value), episode_steps) for value in team.T[done.T]]


def more_state(experiment: Any) -> Dict[str, Any]:
    """What BenchMARL's own checkpoint lacks."""
    return {
        "optimizers": {
            group: {name: optimizer.state_dict() for name, optimizer in of_group.items()}
            for group, of_group in experiment.optimizers.items()
        }
    }


def load_more_state(experiment: Any, state: Mapping[str, Any]) -> None:
    """Put back what :func:`more_state` gave."""
    for group, of_group in state["optimizers"].items():
        for name, values in of_group.items():
            experiment.optimizers[group][name].load_state_dict(values)


def _device(config: MarllibConfig) -> str:
    import torch

    if config.device == "cpu" or (config.device == "auto" and not os.environ.get("CUDA_VISIBLE_DEVICES")):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if config.device == "cuda":
        raise ConfigError([Problem("device", "is cuda, but torch sees no GPU here; set auto or cpu")])
    return "cpu"


def checkpoint_file(folder: Path) -> Path:
    """The file in a checkpoint's folder that holds the experiment."""
    return folder / CONTENT


__all__ = ["build_experiment", "checkpoint_file", "finished_episodes", "library_configs", "model_config", "train"]
