"""What can be set. Importing this needs neither XuanCe nor torch: a config is checked in no time."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import (
    ConfigError,
    Problem,
    build_config,
    config_field,
    config_problems,
    load_worker_config_from_file,
)
from xuance_worker.algorithms import ALGORITHMS, DISCRETE, MPE, MULTI, Algorithm, default_environment

LARGEST_SEED = 2**31 - 1

OURS = {
    "agent": "algo",
    "env_name": "env_id",
    "env_id": "env_id",
    "env_seed": "seed",
    "seed": "seed",
    "running_steps": "total_steps",
    "parallels": "num_envs",
    "device": "device",
    "continuous_action": "continuous_actions",
    "log_dir": "tensorboard",
    "logger": "tensorboard",
    "test_episode": "eval_episodes",
}
"""XuanCe's settings that have a field of ours, and so no place in ``parameters``."""

FIXED = (
    "config_path", "distributed_training", "dl_toolbox", "eval_interval", "fps", "master_port", "model_dir",
    "project_name", "render", "render_mode", "runner", "test_mode", "use_tensor_memory", "vectorize",
    "wandb_user_name",
)  # fmt: skip
"""XuanCe's settings that this worker decides."""

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass
class XuanCeConfig:
    """One training with one of XuanCe's algorithms. ``null`` leaves a setting to XuanCe's own configuration."""

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: int | None = config_field(
        None, help="seed of all randomness; null draws one and reports it", min=0, max=LARGEST_SEED
    )
    algo: str = config_field(
        "PPO", help="the algorithm, by XuanCe's name; docs/workers/xuance.md has the table", choices=tuple(ALGORITHMS)
    )
    env_id: str | None = config_field(
        None,
        help="a Gymnasium environment (CartPole-v1); for algorithms with several agents a particle world of "
        "PettingZoo (simple_spread_v3); or 'module:function', which makes one of your own: a Gymnasium "
        "environment, or a PettingZoo parallel one. null: CartPole-v1, Pendulum-v1 or simple_spread_v3",
    )
    env_kwargs: dict[str, Any] = config_field(  # noqa: RUF009 - copied for each config
        {}, help="passed on when the environment is made, {N: 2, max_cycles: 50}"
    )
    continuous_actions: bool | None = config_field(
        None,
        help="particle worlds only: continuous actions instead of discrete ones; null: discrete ones, if the "
        "algorithm takes them",
    )
    max_episode_steps: int | None = config_field(
        None, help="cut episodes off there; null: where the environment does", unit="steps", min=1
    )
    total_steps: int = config_field(
        100_000,
        help="how long to train, over all num_envs; a step of several agents counts once",
        unit="environment steps",
        min=1,
    )
    num_envs: int | None = config_field(None, help="environments side by side (XuanCe: parallels)", min=1)
    learning_rate: float | None = config_field(
        None,
        help="of the optimizer; where XuanCe has one for actor and one for critic, both take it",
        exclusive_min=0,
        max=1,
    )
    gamma: float | None = config_field(None, help="discount of later rewards", min=0, max=1)
    batch_size: int | None = config_field(
        None, help="transitions of an update, of algorithms with a replay buffer", min=1
    )
    buffer_size: int | None = config_field(
        None,
        help="transitions that are kept for learning: the replay buffer, or, for on-policy algorithms with several "
        "agents, one round of collecting",
        unit="transitions",
        min=1,
    )
    horizon: int | None = config_field(
        None,
        help="steps of each environment between updates, of on-policy algorithms with one agent (XuanCe: horizon_size)",
        unit="steps",
        min=1,
    )
    n_epochs: int | None = config_field(None, help="passes over the data of a round of learning", min=1)
    n_minibatch: int | None = config_field(None, help="parts that an on-policy algorithm learns from at a time", min=1)
    hidden_sizes: list[int] | None = config_field(  # noqa: RUF009
        None, help="units of the hidden layers, of representation, actor, critic and Q networks alike", min=1
    )
    share_parameters: bool | None = config_field(
        None, help="several agents: one network for all of them, told apart by an id (XuanCe: use_parameter_sharing)"
    )
    parameters: dict[str, Any] = config_field(  # noqa: RUF009
        {}, help="any other setting of XuanCe's own configuration of the algorithm, by its name there, {ent_coef: 0.02}"
    )
    checkpoint_every: int = config_field(
        50_000, help="steps between checkpoints; 0: only at the end and on SIGTERM", unit="environment steps", min=0
    )
    keep_checkpoints: int = config_field(
        3, help="newest checkpoints that are kept; the best one is kept besides", min=1
    )
    save_replay: bool = config_field(
        False, help="put the replay buffer into checkpoints, too, so that a resumed run has it back"
    )
    eval_episodes: int = config_field(
        0, help="episodes without exploration that are played after training; the summary's evaluation_return is their "
        "mean", min=0,
    )  # fmt: skip
    device: str = config_field("auto", help="auto takes a GPU if there is one", choices=("auto", "cpu", "cuda"))
    tensorboard: bool = config_field(False, help="keep XuanCe's own event files, in the run's folder tensorboard/")

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ConfigError(problems)
        if self.env_id is None:
            self.env_id = default_environment(self.algorithm)

    @property
    def algorithm(self) -> Algorithm:
        """What is known of the algorithm."""
        return ALGORITHMS[self.algo]

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self.env_id or default_environment(self.algorithm)

    @property
    def own_environment(self) -> bool:
        """Whether a function of the user makes the environment."""
        return ":" in self.environment

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> XuanCeConfig:
        """Build it from settings.

        Raises:
            ConfigError: with every problem found.
        """
        problems = config_problems(cls, data)
        if problems and isinstance(data, Mapping):
            # Settings that are wrong by themselves keep __post_init__ from looking at how the others go together.
            wrong = {re.split(r"[.\[]", problem.path)[0] for problem in problems}
            rest = {key: value for key, value in data.items() if key not in wrong}
            if "algo" not in wrong:
                problems += [each for each in config_problems(cls, {**rest, "run_id": "-"}) if each not in problems]
        if problems:
            raise ConfigError(problems)
        return build_config(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """All settings, as plain values; the inverse of :meth:`from_dict`."""
        return asdict(self)


def load_worker_config(path: str | Path) -> XuanCeConfig:
    """Read a config file, of settings alone or of a trainer's payload around them.

    Raises:
        ConfigError: the settings cannot be used.
        OSError: the file cannot be read.
    """
    from mosaic_cluster.worker import extract_worker_config

    return XuanCeConfig.from_dict(extract_worker_config(load_worker_config_from_file(Path(path))))


def _problems(config: XuanCeConfig) -> list[Problem]:
    """How the settings go together."""
    problems = []
    if not config.run_id.strip():
        problems.append(Problem("run_id", "must not be empty"))
    algorithm = config.algorithm
    if algorithm.missing:
        can = ", ".join(
            name for name, each in ALGORITHMS.items() if not each.missing and each.agents == algorithm.agents
        )
        problems.append(Problem("algo", f"{config.algo} cannot run here: it {algorithm.missing}; there are {can}"))
        return problems + _parameter_problems(config)
    problems += _environment_problems(config)
    if config.share_parameters is not None and algorithm.agents != MULTI:
        problems.append(Problem("share_parameters", f"{config.algo} has one agent: leave it out"))
    if config.total_steps < (config.num_envs or 1):
        problems.append(
            Problem(
                "total_steps", f"{config.total_steps} is less than one step of each of {config.num_envs} environments"
            )
        )
    return problems + _parameter_problems(config)


def _environment_problems(config: XuanCeConfig) -> list[Problem]:
    algorithm, environment = config.algorithm, config.env_id
    problems = []
    if environment is not None and ":" in environment and not _FUNCTION.fullmatch(environment):
        problems.append(
            Problem("env_id", f"must be a name, or 'module:function' (my_games.pursuit:make), not {environment!r}")
        )
    elif environment is not None and ":" not in environment:
        problems += _name_problems(config, environment)
    if config.continuous_actions is None:
        return problems
    kind = "continuous" if config.continuous_actions else DISCRETE
    if algorithm.agents != MULTI or (environment or "").count(":"):
        problems.append(
            Problem("continuous_actions", "is for particle worlds; other environments have the actions that they have")
        )
    elif kind not in algorithm.forms:
        problems.append(
            Problem(
                "continuous_actions",
                f"{config.algo} takes only {' and '.join(algorithm.actions)} actions: leave it out",
            )
        )
    return problems


def _name_problems(config: XuanCeConfig, environment: str) -> list[Problem]:
    if config.algorithm.agents != MULTI:
        if environment in MPE:
            able = ", ".join(name for name, each in ALGORITHMS.items() if each.agents == MULTI)
            return [
                Problem(
                    "env_id", f"{environment} has several agents, {config.algo} has one; for several there are {able}"
                )
            ]
        return []
    if environment in MPE:
        return []
    near = difflib.get_close_matches(environment, MPE, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return [
        Problem(
            "env_id",
            f"{config.algo} has several agents, and {environment!r} is none of PettingZoo's particle worlds; "
            f"{hint}There are {', '.join(MPE)}, and 'module:function' makes any other parallel environment",
        )
    ]


def _parameter_problems(config: XuanCeConfig) -> list[Problem]:
    """Settings that have a place elsewhere. Whether the others exist, XuanCe's own files say."""
    problems = []
    for name in config.parameters:
        if name in OURS:
            problems.append(Problem(f"parameters.{name}", f"is set by {OURS[name]}: put it there"))
        elif name in FIXED:
            problems.append(Problem(f"parameters.{name}", "is decided by this worker: leave it out"))
    return problems


__all__ = ["FIXED", "LARGEST_SEED", "OURS", "XuanCeConfig", "load_worker_config"]
