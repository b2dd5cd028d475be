"""What can be set. Importing this needs neither Ray nor torch: a config is checked in no time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import ConfigError, Problem, build_config, config_field, load_worker_config_from_file

PETTINGZOO_NAME = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[a-z][a-z0-9_]*_v\d+")
"""``tictactoe_v3``, or the path of a module, ``my_games.chase_v0``."""


@dataclass(frozen=True)
class Algorithm:
    """What is known of an algorithm without importing it.

    Attributes:
        config: module and class of RLlib's config.
        offline: learns from a dataset and never acts while it trains.
        multi_agent: whether several agents may learn.
        masks: whether it heeds action masks.
        settings: of ours that it has beyond those of all.
        actions: the kinds of action spaces it takes: ``Discrete``, ``MultiDiscrete``, ``Box``.
    """

    config: str
    offline: bool = False
    multi_agent: bool = True
    masks: bool = False
    settings: tuple[str, ...] = ()
    actions: tuple[str, ...] = ("Discrete", "MultiDiscrete", "Box")


_BATCH = ("train_batch_size",)
ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("ppo.PPOConfig", masks=True, settings=(*_BATCH, "minibatch_size", "num_epochs", "entropy_coeff")),
    "appo": Algorithm("appo.APPOConfig", masks=True, settings=(*_BATCH, "entropy_coeff")),
    "impala": Algorithm("impala.IMPALAConfig", masks=True, settings=(*_BATCH, "entropy_coeff")),
    "dqn": Algorithm("dqn.DQNConfig", settings=_BATCH, actions=("Discrete",)),
    "sac": Algorithm("sac.SACConfig", settings=_BATCH, actions=("Discrete", "Box")),
    "bc": Algorithm("bc.BCConfig", offline=True, multi_agent=False, settings=_BATCH),
    "cql": Algorithm("cql.CQLConfig", offline=True, multi_agent=False, settings=_BATCH, actions=("Box",)),
    "marwil": Algorithm("marwil.MARWILConfig", offline=True, multi_agent=False, settings=_BATCH),
    "dreamerv3": Algorithm("dreamerv3.DreamerV3Config", multi_agent=False, actions=("Discrete", "Box")),
}
ALONE, SHARED, MAIN = "default_policy", "shared", "main"
"""RLModules of single-agent environments, of parameter_sharing, and the one of self_play that learns."""
EPISODES = "mosaic_episodes"
"""Under which RLlib's metrics tell what episodes have ended."""
POLICIES = ("parameter_sharing", "independent", "self_play", "shared_value_function")
OFFLINE = tuple(name for name, each in ALGORITHMS.items() if each.offline)
_OF_SELF_PLAY = {"opponents": 3, "snapshot_every": 20_000}


@dataclass
class RayConfig:
    """A run of RLlib.

    Raises:
        ConfigError: settings that do not go together; all of them at once.
    """

    run_id: str = config_field(help="the run's id")
    seed: int | None = config_field(None, help="of everything random; null: drawn", min=0, max=2**31 - 1)
    env_id: str = config_field(
        "CartPole-v1",
        help="a Gymnasium environment, or a PettingZoo one by the name of its module: tictactoe_v3, simple_spread_v3",
    )
    env_kwargs: dict[str, Any] = config_field({}, help="arguments of the environment")  # noqa: RUF009
    env_api: str = config_field(
        "auto",
        help="how to drive it; auto: by its name, and PettingZoo in parallel where it can be",
        choices=("auto", "gymnasium", "pettingzoo_aec", "pettingzoo_parallel"),
    )
    algo: str = config_field("ppo", help="the algorithm", choices=tuple(ALGORITHMS))
    total_steps: int = config_field(
        100_000,
        help="how long to train: environment steps; for offline algorithms, transitions learned from",
        unit="steps",
        min=1,
    )
    policies: str = config_field(
        "parameter_sharing",
        help="with several agents: one policy for all | one for each | one against earlier versions of itself | "
        "one for each, judged by one value function",
        choices=POLICIES,
    )
    opponents: int = config_field(
        _OF_SELF_PLAY["opponents"], help="self_play: earlier versions that are kept as opponents", min=1, max=50
    )
    snapshot_every: int = config_field(
        _OF_SELF_PLAY["snapshot_every"],
        help="self_play: how often the oldest opponent becomes what the policy is now",
        unit="steps",
        min=1,
    )
    num_env_runners: int | None = config_field(
        None, help="processes that act, one CPU each; null: as many as the run's CPUs leave; 0: the learner acts", min=0
    )
    num_envs_per_env_runner: int = config_field(1, help="environments side by side in each", min=1, max=1024)
    num_learners: int = config_field(
        0,
        help="processes that learn; 0: one, beside the algorithm; more take a CPU each, and a GPU each if it has any",
        min=0,
        max=64,
    )
    learning_rate: float | None = config_field(
        None, help="null: RLlib's default of the algorithm", exclusive_min=0, max=1
    )
    gamma: float = config_field(0.99, help="discount", min=0, max=1)
    train_batch_size: int | None = config_field(
        None, help="of each update; null: RLlib's default of the algorithm", unit="steps", min=1
    )
    minibatch_size: int | None = config_field(
        None, help="ppo: of each gradient step; null: RLlib's", unit="steps", min=1
    )
    num_epochs: int | None = config_field(
        None, help="ppo: passes over each batch; null: RLlib's default", min=1, max=1000
    )
    entropy_coeff: float | None = config_field(None, help="weight of the entropy; null: RLlib's default", min=0)
    hidden_layers: list[int] = config_field([64, 64], help="widths of the layers", unit="units", min=1)  # noqa: RUF009
    activation: str = config_field("tanh", help="between layers", choices=("tanh", "relu", "silu", "elu"))
    training: dict[str, Any] = config_field(  # noqa: RUF009
        {}, help="anything else that RLlib's AlgorithmConfig.training() of the algorithm takes"
    )
    model: dict[str, Any] = config_field(  # noqa: RUF009
        {}, help="anything else of RLlib's DefaultModelConfig: use_lstm, conv_filters ..."
    )
    dataset: str | None = config_field(
        None, help="offline algorithms: absolute path of a Parquet file of transitions, or of a folder of such"
    )
    record_episodes: int = config_field(
        0,
        help="episodes that the trained policy plays at the end, written to dataset/ of the run",
        unit="episodes",
        min=0,
    )
    evaluation_episodes: int = config_field(
        10, help="offline algorithms: episodes played after each evaluation_every", unit="episodes", min=1
    )
    evaluation_every: int = config_field(10_000, help="offline algorithms: how often to play", unit="steps", min=1)
    checkpoint_every: int = config_field(20_000, help="how often to save; 0: only at the end", unit="steps", min=0)
    keep_checkpoints: int = config_field(3, help="newest ones that are kept, besides the best", min=1)
    export_policy: bool = config_field(
        True, help="leave the trained policy alone, without optimizers, in policy/ of the run"
    )
    device: str = config_field(
        "auto", help="where to learn; auto: on a GPU if the run has one", choices=("auto", "cpu", "cuda")
    )

    def __post_init__(self) -> None:
        problems = [*self._settings_problems(), *self._offline_problems(), *self._policies_problems()]
        if problems:
            raise ConfigError(problems)

    @property
    def algorithm(self) -> Algorithm:
        """What is known of :attr:`algo`."""
        return ALGORITHMS[self.algo]

    @property
    def api(self) -> str:
        """How the environment is driven: ``gymnasium``, ``pettingzoo``, ``pettingzoo_aec``, ``pettingzoo_parallel``."""
        if self.env_api != "auto":
            return self.env_api
        return "pettingzoo" if PETTINGZOO_NAME.fullmatch(self.env_id) else "gymnasium"

    @property
    def multi_agent(self) -> bool:
        """Whether the environment has several agents."""
        return self.api != "gymnasium"

    def cpus_needed(self, runners: int) -> int:
        """CPUs that it takes with so many env runners: theirs, the learners', and one for the algorithm."""
        return 1 + runners + self.num_learners

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RayConfig:
        """Checked; unknown settings are refused.

        Raises:
            ConfigError: with every problem.
        """
        return build_config(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the way back is :meth:`from_dict`."""
        return asdict(self)

    def _settings_problems(self) -> list[Problem]:
        found = []
        for name in ("train_batch_size", "minibatch_size", "num_epochs", "entropy_coeff"):
            if getattr(self, name) is not None and name not in self.algorithm.settings:
                who = " and ".join(each for each, known in ALGORITHMS.items() if name in known.settings)
                found.append(Problem(name, f"is not a setting of {self.algo}, but of {who}; leave it out"))
        if (self.minibatch_size or 0) > (self.train_batch_size or 4000):
            more = f"{self.minibatch_size} is more than train_batch_size ({self.train_batch_size or 4000}); lower it"
            found.append(Problem("minibatch_size", more))
        if self.algo in ("dreamerv3", *OFFLINE) and self.num_learners:
            found.append(Problem("num_learners", f"{self.algo} learns beside the algorithm: give 0"))
        if not self.hidden_layers:
            found.append(Problem("hidden_layers", "is empty; give at least one width, [64]"))
        return found

    def _offline_problems(self) -> list[Problem]:
        found = []
        if self.algorithm.offline:
            if self.dataset is None:
                how = "a run of ppo or sac with record_episodes makes one"
                found.append(Problem("dataset", f"{self.algo} learns from one: give its path ({how})"))
            elif not os.path.isabs(self.dataset):
                why = "the run works in a folder of its own, RLlib's processes in others"
                said = f"{self.dataset!r} is relative, and {why}; give an absolute path, the same on all nodes"
                found.append(Problem("dataset", said))
            if self.num_env_runners:
                found.append(Problem("num_env_runners", f"{self.algo} learns from a dataset: give 0, or leave it out"))
        elif self.dataset is not None:
            found.append(Problem("dataset", f"{self.algo} does not learn from one, but {', '.join(OFFLINE)} do"))
        if self.record_episodes and (self.multi_agent or self.algo == "dreamerv3"):
            found.append(
                Problem("record_episodes", "only of policies for Gymnasium environments, and not of dreamerv3: give 0")
            )
        return found

    def _policies_problems(self) -> list[Problem]:
        found = []
        if self.multi_agent and not self.algorithm.multi_agent:
            able = ", ".join(name for name, each in ALGORITHMS.items() if each.multi_agent)
            found.append(Problem("algo", f"{self.algo} is for one agent, {self.env_id} has several; take {able}"))
        if self.policies == "shared_value_function" and self.algo != "ppo":
            found.append(Problem("policies", f"shared_value_function goes with ppo, not {self.algo}"))
        if not self.multi_agent and self.policies != "parameter_sharing":
            found.append(Problem("policies", f"{self.policies} is for several agents, {self.env_id} has one"))
        if self.policies != "self_play":
            for name, default in _OF_SELF_PLAY.items():
                if getattr(self, name) != default:
                    found.append(Problem(name, "is a setting of policies: self_play; leave it out"))
        return found


@dataclass(frozen=True)
class Share:
    """What the run may take.

    Attributes:
        runners: env runner processes.
        gpus: GPUs, or the share of one.
        gpu_memory: bytes that may be allocated on a GPU that is shared with others; ``None``: all there are.
    """

    runners: int
    gpus: float = 0.0
    gpu_memory: int | None = None


def env_settings(config: RayConfig) -> dict[str, Any]:
    """What :func:`ray_worker.environments.make_env` is told."""
    return {"env_id": config.env_id, "env_kwargs": dict(config.env_kwargs), "api": config.api}


def module_of(config: RayConfig, agent: str) -> str:
    """The RLModule that plays an agent, after training."""
    if not config.multi_agent:
        return ALONE
    return {"parameter_sharing": SHARED, "self_play": MAIN}.get(config.policies, agent)


def opponents_of(config: RayConfig) -> list[str]:
    """RLModules of earlier versions, the oldest first."""
    return [f"opponent_{number}" for number in range(config.opponents)]


def load_worker_config(path: str | Path) -> RayConfig:
    """The config in a file.

    Raises:
        ConfigError: it cannot be used.
        OSError: it cannot be read.
    """
    return load_worker_config_from_file(path, RayConfig)


__all__ = [
    "ALGORITHMS",
    "ALONE",
    "EPISODES",
    "MAIN",
    "OFFLINE",
    "POLICIES",
    "SHARED",
    "Algorithm",
    "RayConfig",
    "Share",
    "env_settings",
    "load_worker_config",
    "module_of",
    "opponents_of",
]
