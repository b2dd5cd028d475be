"""What can be trained: our own algorithms, and the scripts of CleanRL's release, with their settings and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Algorithm:
    """What is known of an algorithm without importing it.

    Attributes:
        module: one file with ``check(config, device)`` and ``train(config, session)``.
        actions: the action spaces it takes: ``discrete``, ``continuous`` (any Box of floats), or ``bounded``
            (a Box of floats with finite bounds).
        defaults: its own settings with their defaults. A setting that stands in no such table belongs to all
            algorithms; one that stands in some of them is refused for the others.
    """

    module: str
    actions: str
    defaults: Mapping[str, Any]


_SAVING = {"checkpoint_every": 50_000, "keep_checkpoints": 3}

ALGORITHMS = {
    "ppo": Algorithm(
        "cleanrl_worker.ppo",
        "discrete",
        {
            "env_id": "CartPole-v1",
            **_SAVING,
            "total_steps": 500_000,
            "learning_rate": 1e-3,
            "anneal_lr": True,
            "num_envs": 8,
            "num_steps": 32,
            "gae_lambda": 0.95,
            "num_minibatches": 4,
            "update_epochs": 4,
            "norm_adv": True,
            "clip_coef": 0.2,
            "clip_vloss": False,
            "ent_coef": 0.01,
            "vf_coef": 0.5,
            "max_grad_norm": 0.5,
            "target_kl": None,
        },
    ),
    "ppo_continuous": Algorithm(
        "cleanrl_worker.ppo_continuous",
        "continuous",
        {
            "env_id": "Pendulum-v1",
            **_SAVING,
            "total_steps": 1_000_000,
            "learning_rate": 1e-3,
            "anneal_lr": True,
            "num_envs": 8,
            "num_steps": 256,
            "gae_lambda": 0.95,
            "num_minibatches": 32,
            "update_epochs": 10,
            "norm_adv": True,
            "clip_coef": 0.2,
            "clip_vloss": False,
            "ent_coef": 0.0,
            "vf_coef": 0.5,
            "max_grad_norm": 0.5,
            "target_kl": None,
            "norm_obs": True,
            "norm_reward": True,
        },
    ),
    "dqn": Algorithm(
        "cleanrl_worker.dqn",
        "discrete",
        {
            "env_id": "CartPole-v1",
            **_SAVING,
            "total_steps": 100_000,
            "learning_rate": 1e-3,
            "anneal_lr": True,
            "num_envs": 1,
            "hidden_size": 128,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "batch_size": 128,
            "train_frequency": 4,
            "gradient_steps": 1,
            "tau": 1.0,
            "target_network_frequency": 50,
            "start_e": 1.0,
            "end_e": 0.05,
            "exploration_fraction": 0.1,
            "double_q": True,
        },
    ),
    "sac": Algorithm(
        "cleanrl_worker.sac",
        "bounded",
        {
            "env_id": "Pendulum-v1",
            **_SAVING,
            "total_steps": 1_000_000,
            "learning_rate": 1e-3,
            "anneal_lr": False,
            "num_envs": 1,
            "hidden_size": 128,
            "buffer_size": 1_000_000,
            "learning_starts": 1_000,
            "batch_size": 256,
            "train_frequency": 1,
            "gradient_steps": 1,
            "tau": 0.005,
            "policy_lr": None,
            "q_lr": None,
            "noise_correlation": 0.0,
            "alpha": 1.0,
            "autotune": True,
            "target_entropy": None,
        },
    ),
    "td3": Algorithm(
        "cleanrl_worker.td3",
        "bounded",
        {
            "env_id": "Pendulum-v1",
            **_SAVING,
            "total_steps": 1_000_000,
            "learning_rate": 1e-3,
            "anneal_lr": False,
            "num_envs": 1,
            "hidden_size": 128,
            "buffer_size": 1_000_000,
            "learning_starts": 1_000,
            "batch_size": 256,
            "train_frequency": 1,
            "gradient_steps": 1,
            "tau": 0.005,
            "policy_lr": None,
            "q_lr": None,
            "noise_correlation": 0.0,
            "exploration_noise": 0.1,
            "policy_frequency": 2,
            "policy_noise": 0.2,
            "noise_clip": 0.5,
        },
    ),
}
"""A new algorithm is one file and one entry here."""


@dataclass(frozen=True)
class Script:
    """A script of CleanRL's release, which runs as it is.

    Attributes:
        module: below the package ``cleanrl``.
        library: ``gym`` or ``gymnasium``: whose environments it takes. It names its environment in environment.toml.
        actions: as in :class:`Algorithm`.
        defaults: the settings that it has flags for, with its own defaults; ``env_id`` may differ, where the
            script's own is not in its environment.
    """

    module: str
    library: str
    actions: str
    defaults: Mapping[str, Any]


RELEASE = "1.2.0"
"""Of CleanRL, on PyPI: the newest there is."""

_BOX = "Pendulum-v1"
_ROLLOUT = {
    "anneal_lr": True,
    "gae_lambda": 0.95,
    "norm_adv": True,
    "clip_coef": 0.2,
    "clip_vloss": True,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "target_kl": None,
}
_LONG_ROLLOUT = {
    "learning_rate": 3e-4,
    "num_envs": 1,
    "num_steps": 2048,
    **_ROLLOUT,
    "num_minibatches": 32,
    "update_epochs": 10,
    "ent_coef": 0.0,
}
_EPSILON = {
    "total_steps": 500_000,
    "learning_rate": 2.5e-4,
    "buffer_size": 10_000,
    "target_network_frequency": 500,
    "batch_size": 128,
    "start_e": 1.0,
    "end_e": 0.05,
    "exploration_fraction": 0.5,
    "learning_starts": 10_000,
    "train_frequency": 10,
}
_CRITICS = {
    "total_steps": 1_000_000,
    "buffer_size": 1_000_000,
    "tau": 0.005,
    "batch_size": 256,
    "policy_frequency": 2,
    "noise_clip": 0.5,
}

SCRIPTS = {
    "cleanrl.ppo": Script(
        "ppo",
        "gym",
        "discrete",
        {
            "env_id": "CartPole-v1",
            "total_steps": 500_000,
            "learning_rate": 2.5e-4,
            "num_envs": 4,
            "num_steps": 128,
            **_ROLLOUT,
            "num_minibatches": 4,
            "update_epochs": 4,
            "ent_coef": 0.01,
        },
    ),
    "cleanrl.ppo_continuous": Script(
        "ppo_continuous_action",
        "gymnasium",
        "continuous",
        {"env_id": "HalfCheetah-v4", "total_steps": 1_000_000, **_LONG_ROLLOUT},
    ),
    "cleanrl.rpo": Script(
        "rpo_continuous_action",
        "gymnasium",
        "continuous",
        {"env_id": "HalfCheetah-v4", "total_steps": 8_000_000, **_LONG_ROLLOUT},
    ),
    "cleanrl.dqn": Script("dqn", "gymnasium", "discrete", {"env_id": "CartPole-v1", **_EPSILON, "tau": 1.0}),
    "cleanrl.c51": Script("c51", "gym", "discrete", {"env_id": "CartPole-v1", **_EPSILON}),
    "cleanrl.ddpg": Script(
        "ddpg_continuous_action",
        "gymnasium",
        "continuous",
        {
            "env_id": "HalfCheetah-v4",
            **_CRITICS,
            "learning_rate": 3e-4,
            "learning_starts": 25_000,
            "exploration_noise": 0.1,
        },
    ),
    "cleanrl.td3": Script(
        "td3_continuous_action",
        "gym",
        "continuous",
        {
            "env_id": _BOX,  # the script's is Hopper-v4, which its gym 0.23 does not have
            **_CRITICS,
            "learning_rate": 3e-4,
            "learning_starts": 25_000,
            "exploration_noise": 0.1,
            "policy_noise": 0.2,
        },
    ),
    "cleanrl.sac": Script(
        "sac_continuous_action",
        "gym",
        "continuous",
        {
            "env_id": _BOX,  # as above
            **_CRITICS,
            "learning_starts": 5_000,
            "policy_lr": 3e-4,
            "q_lr": 1e-3,
            "target_network_frequency": 1,
            "alpha": 0.2,
            "autotune": True,
        },
    ),
}

FLAGS = {"total_steps": "total-timesteps"}
"""Flags that are called otherwise than their setting (which has ``_`` for ``-``)."""

RESERVED = {
    "exp-name": "it names the folder of the event files, which the worker looks for",
    "seed": "it is the setting seed",
    "cuda": "it is the setting device",
    "torch-deterministic": "it is the setting torch_deterministic",
    "track": "workers do not talk to the network; telemetry.bridges of the spec sends results to Weights & Biases",
    "wandb-project-name": "it goes with track, which is off",
    "wandb-entity": "it goes with track, which is off",
    "capture-video": "the programs that make videos are not in the environment",
    "save-model": "after saving, the script makes videos, whose programs are not in the environment, and fails",
    "upload-model": "workers do not talk to the network",
    "hf-entity": "it goes with upload-model, which is off",
}
"""Flags that ``script_arguments`` may not have, and why."""


def flag_of(setting: str) -> str:
    """Name of the flag that a setting is given to a script with, without the dashes in front."""
    return FLAGS.get(setting, setting.replace("_", "-"))


__all__ = ["ALGORITHMS", "FLAGS", "RELEASE", "RESERVED", "SCRIPTS", "Algorithm", "Script", "flag_of"]
