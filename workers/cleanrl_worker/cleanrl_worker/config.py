"""What can be set. Importing this needs neither torch nor gymnasium: a config is checked in no time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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

ALGORITHMS = {
    "ppo": "cleanrl_worker.ppo",
}
"""Name to module. An algorithm is one file with ``check(config, device)`` and ``train(config, session)``, and
one line here."""

_LARGEST_SEED = 2**32 - 1


@dataclass
class _Settings:
    """The fields alone: every value possible by itself."""

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: int | None = config_field(
        None, help="seed of all randomness; null draws one and reports it", min=0, max=_LARGEST_SEED
    )
    env_id: str = config_field(
        "CartPole-v1",
        help="a Gymnasium environment with discrete actions and vector observations; "
        "'package:Name-v0' imports the package first",
    )
    algo: str = config_field("ppo", help="the algorithm", choices=tuple(ALGORITHMS))
    total_steps: int = config_field(
        500_000,
        help="how long to train; rounded up to a multiple of num_envs",
        unit="environment steps",
        min=1,
    )
    learning_rate: float = config_field(1e-3, help="Adam's step size, at the start", exclusive_min=0, max=1)
    anneal_lr: bool = config_field(True, help="lower the learning rate linearly, to 0 at total_steps")
    num_envs: int = config_field(8, help="environments stepped side by side", min=1)
    num_steps: int = config_field(
        32, help="length of a rollout between two updates", unit="steps of each environment", min=1
    )
    gamma: float = config_field(0.99, help="discount factor", min=0, max=1)
    gae_lambda: float = config_field(
        0.95, help="generalised advantage estimation: 0 trusts the critic, 1 the rewards seen", min=0, max=1
    )
    num_minibatches: int = config_field(4, help="parts an update splits its rollout into", min=1)
    update_epochs: int = config_field(4, help="passes of an update over its rollout", min=1)
    norm_adv: bool = config_field(True, help="normalise the advantages of each minibatch")
    clip_coef: float = config_field(
        0.2, help="how far a probability ratio may leave 1 before its gradient stops", exclusive_min=0
    )
    clip_vloss: bool = config_field(False, help="clip the change of a value by clip_coef, too")
    ent_coef: float = config_field(0.01, help="weight of the entropy bonus", min=0)
    vf_coef: float = config_field(0.5, help="weight of the value loss", min=0)
    max_grad_norm: float = config_field(
        0.5, help="longer gradients are scaled down to this norm", exclusive_min=0
    )
    target_kl: float | None = config_field(
        None, help="end an update early once its approximate KL divergence exceeds this", exclusive_min=0
    )
    checkpoint_every: int = config_field(
        50_000,
        help="save after the first update past every so many steps; 0 saves only at the end and when stopped",
        unit="environment steps",
        min=0,
    )
    keep_checkpoints: int = config_field(3, help="newest checkpoints that stay", min=1)
    device: str = config_field(
        "auto",
        help="where the networks live; auto takes a GPU if the process sees one",
        choices=("auto", "cpu", "cuda"),
    )
    torch_deterministic: bool = config_field(True, help="use only deterministic algorithms of torch")


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

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values; ``from_dict`` takes them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CleanRLConfig:
        """Build a config from what a person wrote.

        Raises:
            ConfigError: unknown settings (with the nearest known name), impossible values and impossible
                combinations of them, all at once.
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


def _all_problems(data: Any) -> list[Problem]:
    problems = config_problems(_Settings, data)
    if not isinstance(data, Mapping):
        return problems
    if isinstance(data.get("run_id"), str) and not data["run_id"].strip():
        problems.append(Problem("run_id", "must not be empty"))
    # Settings that are wrong by themselves take no part in combinations; the others are still looked at.
    wrong = {problem.path for problem in problems}
    known = {spec.name for spec in fields(_Settings)}
    fine = {key: value for key, value in data.items() if key in known - wrong - {"run_id"}}
    settings = build_config(_Settings, {"run_id": "-", **fine})
    return problems + [found for names, found in _combination_problems(settings) if not names & wrong]


def _combination_problems(settings: _Settings) -> list[tuple[set[str], Problem]]:
    """Each with the settings that take part in it."""
    found = []
    batch = settings.num_envs * settings.num_steps
    rollout = f"a rollout (num_envs {settings.num_envs} * num_steps {settings.num_steps} = {batch} steps)"
    if batch % settings.num_minibatches:
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


__all__ = ["ALGORITHMS", "CleanRLConfig", "load_worker_config"]
