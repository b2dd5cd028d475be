"""What can be set. Importing this needs neither torch nor gymnasium: a config is checked in no time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cleanrl_worker.algorithms import ALGORITHMS, RELEASE, SCRIPTS, Algorithm, Script
from cleanrl_worker.arguments import argument_problems
from mosaic_cluster.worker import (
    ConfigError,
    Problem,
    build_config,
    config_field,
    config_problems,
    load_worker_config_from_file,
)

_LARGEST_SEED = 2**32 - 1


def _own(name: str, *, help: str, **limits: Any) -> Any:
    """A field that some algorithms have, or whose default depends on the algorithm.

    Unset it is ``None`` until the algorithm's own default takes its place; the help says which that is, but for
    scripts.
    """
    groups: dict[str, list[str]] = {}
    for algo, algorithm in ALGORITHMS.items():
        if name in algorithm.defaults:
            default = algorithm.defaults[name]
            text = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            groups.setdefault(text, []).append(algo)
    if not groups:
        groups["{}"] = ["cleanrl.*"]
    told = "; ".join(f"{', '.join(algos)}: {text}" for text, algos in groups.items())
    return config_field(None, help=f"{help} ({told})", **limits)


@dataclass
class _Settings:
    """The fields alone: every value possible by itself.

    Those made with ``_own`` hold the algorithm's own default where nothing was given, and ``None`` where the
    algorithm has no such setting.
    """

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: int | None = config_field(
        None, help="seed of all randomness; null draws one and reports it", min=0, max=_LARGEST_SEED
    )
    env_id: str = _own(
        "env_id",
        help="a Gymnasium environment with vector observations and, for ppo and dqn, discrete actions, for the "
        "others a Box; 'package:Name-v0' imports the package first",
    )
    algo: str = config_field(
        "ppo",
        help="the algorithm; a default that depends on it is shown in parentheses behind a setting's meaning, and "
        f"only the algorithms named there have the setting. cleanrl.* are the scripts of CleanRL {RELEASE}, as they "
        "are: each has the settings that it has flags for, with its own defaults",
        choices=(*ALGORITHMS, *SCRIPTS),
    )
    total_steps: int = _own(
        "total_steps",
        help="how long to train; rounded up to a multiple of num_envs",
        unit="environment steps",
        min=1,
    )
    learning_rate: float = _own("learning_rate", help="Adam's step size, at the start", exclusive_min=0, max=1)
    anneal_lr: bool = _own("anneal_lr", help="lower the learning rate linearly, to 0 at total_steps")
    num_envs: int = _own("num_envs", help="environments stepped side by side", min=1)
    num_steps: int = _own(
        "num_steps", help="length of a rollout between two updates", unit="steps of each environment", min=1
    )
    gamma: float = config_field(0.99, help="discount factor", min=0, max=1)
    gae_lambda: float = _own(
        "gae_lambda",
        help="generalised advantage estimation: 0 trusts the critic, 1 the rewards seen",
        min=0,
        max=1,
    )
    num_minibatches: int = _own("num_minibatches", help="parts an update splits its rollout into", min=1)
    update_epochs: int = _own("update_epochs", help="passes of an update over its rollout", min=1)
    norm_adv: bool = _own("norm_adv", help="normalise the advantages of each minibatch")
    clip_coef: float = _own(
        "clip_coef", help="how far a probability ratio may leave 1 before its gradient stops", exclusive_min=0
    )
    clip_vloss: bool = _own("clip_vloss", help="clip the change of a value by clip_coef, too")
    ent_coef: float = _own("ent_coef", help="weight of the entropy bonus", min=0)
    vf_coef: float = _own("vf_coef", help="weight of the value loss", min=0)
    max_grad_norm: float = _own("max_grad_norm", help="longer gradients are scaled down to this norm", exclusive_min=0)
    target_kl: float | None = _own(
        "target_kl", help="end an update early once its approximate KL divergence exceeds this", exclusive_min=0
    )
    norm_obs: bool = _own("norm_obs", help="normalise observations by their running mean and deviation")
    norm_reward: bool = _own(
        "norm_reward",
        help="divide rewards by the running deviation of the discounted return; episodic_return stays unscaled",
    )
    hidden_size: int = _own("hidden_size", help="units of each of a network's two hidden layers", min=1)
    buffer_size: int = _own(
        "buffer_size",
        help="newest transitions that are kept for learning; checkpoints hold those that there are, too",
        unit="transitions",
        min=1,
    )
    learning_starts: int = _own(
        "learning_starts",
        help="collect so many steps before the first update; sac and td3 act at random until then",
        unit="environment steps",
        min=0,
    )
    batch_size: int = _own("batch_size", help="transitions drawn for a gradient step", min=1)
    train_frequency: int = _own(
        "train_frequency", help="steps between two rounds of learning", unit="environment steps", min=1
    )
    gradient_steps: int = _own("gradient_steps", help="gradient steps of a round of learning", min=1)
    tau: float = _own(
        "tau", help="share of the learned weights in a target network's new ones; 1 copies", exclusive_min=0, max=1
    )
    target_network_frequency: int = _own(
        "target_network_frequency",
        help="gradient steps between two updates of the target network; in cleanrl.*, environment steps",
        min=1,
    )
    start_e: float = _own("start_e", help="share of random actions at the start", min=0, max=1)
    end_e: float = _own("end_e", help="share of random actions at the end", min=0, max=1)
    exploration_fraction: float = _own(
        "exploration_fraction",
        help="share of total_steps in which the share of random actions falls from start_e to end_e",
        exclusive_min=0,
        max=1,
    )
    double_q: bool = _own(
        "double_q", help="let the learning network choose the action that the target network rates (double DQN)"
    )
    policy_lr: float | None = _own(
        "policy_lr", help="learning rate of the policy; null takes learning_rate", exclusive_min=0, max=1
    )
    q_lr: float | None = _own(
        "q_lr", help="learning rate of the critics; null takes learning_rate", exclusive_min=0, max=1
    )
    noise_correlation: float = _own(
        "noise_correlation",
        help="correlation of the exploration noise of two successive steps: 0 is independent noise; close to 1 "
        "is Ornstein-Uhlenbeck noise, for tasks where only a lasting push gets anywhere",
        min=0,
        max=0.9999,
    )
    alpha: float = _own("alpha", help="weight of the entropy; with autotune, only at the start", exclusive_min=0)
    autotune: bool = _own("autotune", help="adjust alpha so that the entropy stays near target_entropy")
    target_entropy: float | None = _own(
        "target_entropy",
        help="entropy of the actions, scaled to [-1, 1], that autotune aims at; null: minus the number of action "
        "entries",
    )
    exploration_noise: float = _own(
        "exploration_noise",
        help="standard deviation of the noise on actions, as a share of half the action range",
        min=0,
    )
    policy_frequency: int = _own(
        "policy_frequency", help="updates of the critics per update of the policy and the targets", min=1
    )
    policy_noise: float = _own(
        "policy_noise",
        help="standard deviation of the noise on target actions, as a share of half the action range",
        min=0,
    )
    noise_clip: float = _own("noise_clip", help="largest noise on target actions, in the same unit", min=0)
    checkpoint_every: int = _own(
        "checkpoint_every",
        help="save after the first update past every so many steps; 0 saves only at the end and when stopped",
        unit="environment steps",
        min=0,
    )
    keep_checkpoints: int = _own("keep_checkpoints", help="newest checkpoints that stay, beside the best one", min=1)
    device: str = config_field(
        "auto",
        help="where the networks live; auto takes a GPU if the process sees one",
        choices=("auto", "cpu", "cuda"),
    )
    torch_deterministic: bool = config_field(True, help="use only deterministic algorithms of torch")
    script_arguments: dict[str, bool | int | float | str] = _own(  # noqa: RUF009 - a field, as the others
        "script_arguments",
        help="flags of the script that are no settings here, by their names, without the dashes in front",
    )

    def fill(self) -> None:
        """Put the algorithm's own defaults where nothing was given."""
        for name, default in _entry(self.algo).defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        if self.algo in SCRIPTS and self.script_arguments is None:
            self.script_arguments = {}


@dataclass
class CleanRLConfig(_Settings):
    """The config of one run.

    Raises:
        ConfigError: when made with impossible values, with every problem found. It is also a ``ValueError``.
    """

    def __post_init__(self) -> None:
        problems = _all_problems(asdict(self))
        if problems:
            raise ConfigError(problems)
        self.fill()

    def to_dict(self) -> dict[str, Any]:
        """All settings that the algorithm has, as plain JSON values; ``from_dict`` takes them back."""
        names = set(settings_of(self.algo))
        return {name: value for name, value in asdict(self).items() if name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CleanRLConfig:
        """Build a config from what a person wrote.

        Raises:
            ConfigError: unknown settings (with the nearest known name), settings that the algorithm does not
                have, impossible values and impossible combinations of them, all at once.
        """
        problems = _all_problems(data)
        if problems:
            raise ConfigError(problems)
        return build_config(cls, data)


def load_worker_config(path: str | Path) -> CleanRLConfig:
    """Read a config file: the settings themselves, or a trainer's payload with ``metadata.worker.config``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not JSON, or not a possible config.
    """
    return load_worker_config_from_file(path, CleanRLConfig)


def _entry(algo: str) -> Algorithm | Script:
    return SCRIPTS[algo] if algo in SCRIPTS else ALGORITHMS[algo]


def settings_of(algo: str) -> list[str]:
    """Names of all settings that an algorithm has, in the order of the fields."""
    others = {name for entry in (*ALGORITHMS.values(), *SCRIPTS.values()) for name in entry.defaults}
    foreign = others - set(_entry(algo).defaults)
    if algo not in SCRIPTS:
        foreign.add("script_arguments")
    return [spec.name for spec in fields(_Settings) if spec.name not in foreign]


def _all_problems(data: Any) -> list[Problem]:
    problems = config_problems(_Settings, data)
    if not isinstance(data, Mapping):
        return problems
    if isinstance(data.get("run_id"), str) and not data["run_id"].strip():
        problems.append(Problem("run_id", "must not be empty"))
    if any(problem.path == "algo" for problem in problems):
        return problems  # what else can be set, and together with what, depends on it
    algo = data.get("algo", "ppo")
    problems += _foreign_settings(algo, data)
    # Settings that are wrong by themselves take no part in combinations; the others are still looked at.
    wrong = {problem.path for problem in problems}
    fine = {key: value for key, value in data.items() if key in set(settings_of(algo)) - wrong - {"run_id"}}
    settings = build_config(_Settings, {"run_id": "-", **fine})
    settings.fill()
    if algo in SCRIPTS:
        problems += argument_problems(algo, settings.script_arguments)
    return problems + [found for names, found in _combination_problems(settings) if not names & wrong]


def _foreign_settings(algo: str, data: Mapping[str, Any]) -> list[Problem]:
    """Settings of other algorithms: with no effect here, they would only mislead whoever gave them."""
    own = settings_of(algo)
    known = {spec.name for spec in fields(_Settings)}
    problems = []
    for name in (key for key, value in data.items() if key in known and key not in own and value is not None):
        homes = [other for other in ALGORITHMS if name in settings_of(other)] or ["the scripts, cleanrl.*"]
        there = ", ".join(sorted(own))
        problems.append(Problem(name, f"is not a setting of {algo}, but of {words(homes, 'and')}; {algo} has {there}"))
    return problems


def _combination_problems(settings: _Settings) -> list[tuple[set[str], Problem]]:
    """Each with the settings that take part in it."""
    names = settings_of(settings.algo)
    found = []
    if "num_steps" in names:
        found += _rollout_problems(settings)
    if "buffer_size" in names:
        found += _buffer_problems(settings)
    return found


def _rollout_problems(settings: _Settings) -> list[tuple[set[str], Problem]]:
    found = []
    batch = settings.num_envs * settings.num_steps
    rollout = f"a rollout (num_envs {settings.num_envs} * num_steps {settings.num_steps} = {batch} steps)"
    if batch % settings.num_minibatches and settings.algo not in SCRIPTS:  # they make a smaller part of the rest
        near = [number for number in range(1, batch + 1) if batch % number == 0]
        near.sort(key=lambda number: abs(number - settings.num_minibatches))
        found.append((
            {"num_envs", "num_steps", "num_minibatches"},
            Problem(
                "num_minibatches",
                f"{settings.num_minibatches} equal parts cannot be made of {rollout}; "
                f"possible are {' and '.join(map(str, sorted(near[:2])))}, for example",
            ),
        ))  # fmt: skip
    if settings.total_steps < batch:
        found.append((
            {"num_envs", "num_steps", "total_steps"},
            Problem(
                "total_steps",
                f"{settings.total_steps} is less than {rollout}, so nothing would be learned; "
                "raise it, or lower num_steps or num_envs",
            ),
        ))  # fmt: skip
    return found


def _buffer_problems(settings: _Settings) -> list[tuple[set[str], Problem]]:
    found = []
    if settings.total_steps <= settings.learning_starts:
        found.append((
            {"total_steps", "learning_starts"},
            Problem(
                "total_steps",
                f"{settings.total_steps} steps end before learning_starts ({settings.learning_starts}), so "
                "nothing would be learned; raise it, or lower learning_starts",
            ),
        ))  # fmt: skip
    for name in ("batch_size", "num_envs"):
        needed = getattr(settings, name) or 0
        if settings.buffer_size < needed:
            found.append((
                {"buffer_size", name},
                Problem("buffer_size", f"{settings.buffer_size} is less than {name} ({needed}); raise it"),
            ))  # fmt: skip
    return found


def words(names: list[str], between: str) -> str:
    """``a, b or c``, with the word that stands before the last of them."""
    return f" {between} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


__all__ = ["CleanRLConfig", "load_worker_config", "settings_of", "words"]
