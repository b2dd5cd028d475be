"""What can be set. Importing this needs neither MARLlib nor BenchMARL: a config is checked in no time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from mosaic_cluster.worker import ConfigError, Problem, build_config, config_field, load_worker_config_from_file

from marllib_worker.algorithms import (
    ALGORITHMS,
    BACKENDS,
    DEFAULTS,
    EPISODE_STEPS,
    GAMES,
    SETTINGS,
    algorithms_of,
    settings_for,
)

_LARGEST_SEED = 2**31 - 1
_UNSET = "null: what suits the algorithm with this backend"


@dataclass
class MarllibConfig:
    """One run. ``null`` stands for the default of the backend and the algorithm (docs/workers/marllib.md)."""

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: Optional[int] = config_field(
        None, help="seed of all randomness; null draws one and reports it", min=0, max=_LARGEST_SEED
    )
    backend: str = config_field(
        "marllib", help="the library that trains: MARLlib 1.0.3 or BenchMARL 1.5.2", choices=BACKENDS
    )
    algo: str = config_field(
        "mappo",
        help="the algorithm; marllib has {}; benchmarl has {}".format(
            ", ".join(algorithms_of("marllib")), ", ".join(algorithms_of("benchmarl"))
        ),
        choices=tuple(ALGORITHMS),
    )
    env_id: str = config_field("simple_spread_v3", help="the game, by PettingZoo's name of it", choices=tuple(GAMES))
    total_steps: int = config_field(
        100_000, help="how long to train; rounded up to whole iterations", unit="environment steps", min=1
    )
    episode_steps: int = config_field(
        EPISODE_STEPS, help="length of an episode; marllib knows no other than 25", unit="environment steps", min=1
    )
    learning_rate: Optional[float] = config_field(
        None, help="the optimizers' step size; " + _UNSET, exclusive_min=0, max=1
    )
    gamma: Optional[float] = config_field(None, help="discount factor; " + _UNSET, min=0, max=1)
    reward_scale: Optional[float] = config_field(
        None, help="what rewards are multiplied by before they are learned from (benchmarl); what is reported is not "
        "scaled; " + _UNSET, exclusive_min=0,
    )  # fmt: skip
    rollout_steps: Optional[int] = config_field(
        None, help="steps collected between two updates; with marllib on-policy algorithms only; " + _UNSET,
        unit="environment steps", min=1,
    )  # fmt: skip
    update_epochs: Optional[int] = config_field(
        None,
        help="passes of an update over its rollout (ppo, trpo); with benchmarl's off-policy algorithms the "
        "gradient steps of an update; " + _UNSET,
        min=1,
    )
    batch_size: Optional[int] = config_field(
        None,
        help="steps that a gradient is computed from; with marllib's off-policy algorithms episodes; " + _UNSET,
        min=1,
    )
    buffer_size: Optional[int] = config_field(
        None, help="capacity of the replay buffer of off-policy algorithms; " + _UNSET, unit="environment steps", min=1
    )
    entropy_coef: Optional[float] = config_field(
        None, help="weight of the entropy bonus of on-policy algorithms; " + _UNSET, min=0
    )
    gae_lambda: Optional[float] = config_field(
        None, help="generalised advantage estimation: 0 trusts the critic, 1 the rewards seen; " + _UNSET, min=0, max=1
    )
    clip_coef: Optional[float] = config_field(
        None, help="how far a probability ratio may leave 1 (ppo); " + _UNSET, exclusive_min=0
    )
    exploration_steps: Optional[int] = config_field(
        None,
        help="steps until off-policy exploration has come down to its end; " + _UNSET,
        unit="environment steps",
        min=1,
    )
    exploration_final: Optional[float] = config_field(
        None, help="exploration that stays: the share of random actions; " + _UNSET, min=0, max=1
    )
    share_policy: str = config_field(
        "all",
        help="who shares one policy: all agents, each group (agents of one kind), or nobody; with benchmarl all is "
        "group; happo and hatrpo never share",
        choices=("all", "group", "individual"),
    )
    core_arch: str = config_field("mlp", help="core of the networks", choices=("mlp", "gru", "lstm"))
    hidden_sizes: List[int] = config_field([128, 128], help="sizes of the networks' layers", min=1)  # noqa: RUF009
    num_envs: Optional[int] = config_field(None, help="environments stepped side by side; " + _UNSET, min=1)
    num_workers: int = config_field(
        0, help="processes that collect besides the one that learns (marllib); 0: the one that learns collects", min=0
    )
    device: str = config_field(
        "auto", help="where the networks live; auto: a GPU if one is granted", choices=("auto", "cpu", "cuda")
    )
    checkpoint_every: int = config_field(
        20_000,
        help="distance of checkpoints, at ends of iterations; 0: only the last one",
        unit="environment steps",
        min=0,
    )
    keep_checkpoints: int = config_field(3, help="how many of the newest checkpoints stay, besides the best", min=1)
    parameters: Dict[str, Any] = config_field(  # noqa: RUF009
        {}, help="further settings of the library by its own names (MARLlib: its algo_args and RLlib's config; "
        "BenchMARL: its experiment and algorithm config); they win over all above",
    )  # fmt: skip

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ConfigError(problems)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MarllibConfig:
        """Build one from plain values.

        Raises:
            ConfigError: with every problem found.
        """
        return build_config(cls, data)

    def to_dict(self) -> Dict[str, Any]:
        """Plain values, which :meth:`from_dict` takes."""
        return asdict(self)

    def get(self, name: str) -> Any:
        """A field's value; where it is null, the default for this backend and algorithm, ``None`` if there is none."""
        value = getattr(self, name)
        if value is not None:
            return value
        return DEFAULTS[self.backend].get(ALGORITHMS[self.algo].family, {}).get(name)


def library_settings(config: MarllibConfig) -> Dict[str, Any]:
    """The config's fields (and our defaults for those not given) under the library's names, in its units."""
    found: Dict[str, Any] = {}
    for name in SETTINGS[config.backend]:
        value = config.get(name)
        if value is None:
            continue
        for setting in settings_for(config.backend, config.algo, name):
            found[setting.name] = -(-value // config.episode_steps) if setting.episodes else value
    return found


def _problems(config: MarllibConfig) -> List[Problem]:
    """What does not fit together; each field by itself is fine."""
    problems: List[Problem] = []
    algorithm, game, backend = ALGORITHMS[config.algo], GAMES[config.env_id], config.backend
    if not config.run_id:
        problems.append(Problem("run_id", "must not be empty"))
    if backend not in algorithm.backends:
        known = ", ".join(algorithms_of(backend))
        advice = f"set backend to {algorithm.backends[0]}, or algo to one of {known}"
        problems.append(Problem("algo", f"{backend} does not have {config.algo!r}; {advice}"))
        return problems
    for name in SETTINGS[backend]:
        if getattr(config, name) is not None and not settings_for(backend, config.algo, name):
            has = [each for each in SETTINGS[backend] if settings_for(backend, config.algo, each)]
            text = "is not a setting of {} with backend {}, which has {}".format(config.algo, backend, ", ".join(has))
            problems.append(Problem(name, text))
    if not config.hidden_sizes:
        problems.append(Problem("hidden_sizes", "must name at least one layer, as in [128, 128]"))
    if backend == "marllib":
        problems.extend(_marllib_problems(config))
    elif config.num_workers:
        problems.append(Problem("num_workers", "is a setting of backend marllib; benchmarl has num_envs"))
    shares = config.share_policy == "all" and config.algo not in ("happo", "hatrpo")
    if shares and not game.shareable and backend == "marllib":
        text = f"the agents of {config.env_id} cannot share one policy; set it to individual"
        problems.append(Problem("share_policy", text))
    return problems


def _marllib_problems(config: MarllibConfig) -> List[Problem]:
    problems: List[Problem] = []
    algorithm, game = ALGORITHMS[config.algo], GAMES[config.env_id]
    if config.reward_scale is not None:
        problems.append(Problem("reward_scale", "is a setting of backend benchmarl; marllib has none"))
    if config.episode_steps != EPISODE_STEPS:
        problems.append(Problem("episode_steps", f"marllib plays MPE with {EPISODE_STEPS}; use backend benchmarl"))
    if algorithm.paradigm == "VD" and not game.cooperative:
        able = ", ".join(name for name, each in GAMES.items() if each.cooperative)
        text = f"{config.algo} decomposes the value of a team, and plays {able} only"
        problems.append(Problem("env_id", text))
    if algorithm.family == "q" and config.share_policy == "individual":
        problems.append(Problem("share_policy", f"{config.algo} of marllib knows only one policy for all"))
    return problems


def load_worker_config(path: Union[str, Path]) -> MarllibConfig:
    """Read a config file: the worker's own object, or a payload with ``metadata.worker.config``.

    Raises:
        ConfigError: it cannot be read or used; with every problem found.
    """
    return MarllibConfig.from_dict(load_worker_config_from_file(path))


__all__ = ["MarllibConfig", "library_settings", "load_worker_config"]
