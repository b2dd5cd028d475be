"""From our config to RLlib's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from mosaic_cluster.worker import ConfigError, Problem
from ray_worker.config import (
    ALGORITHMS,
    ALONE,
    EPISODES,
    MAIN,
    RayConfig,
    Share,
    env_settings,
    module_of,
    opponents_of,
)
from ray_worker.environments import UnknownGame, make_env
from ray_worker.modules import (
    MASKED,
    MaskedAPPOModule,
    MaskedPPOModule,
    SharedValueModule,
    SharedValues,
    SharedValuesLearner,
)

ENV = "mosaic-env"
ITERATION_SECONDS = 1.0
_ITERATION_STEPS = {"dqn": 200, "sac": 100, "dreamerv3": 32}
_NEVER = 1_000_000_000
_RECORDS = 10_000
"""Most episodes that an env runner keeps between two looks at them."""


@dataclass(frozen=True)
class Game:
    """What a run's environment is like.

    Attributes:
        agents: names; empty for a single-agent environment.
        masked: number of actions whose mask is in front of the observations; 0: none.
        observation_spaces, action_spaces: as networks have them, by agent; of single-agent environments under ``""``.
        seen_spaces: canonical observations, before they are encoded.
    """

    agents: tuple[str, ...]
    masked: int
    observation_spaces: dict[str, spaces.Space[Any]]
    action_spaces: dict[str, spaces.Space[Any]]
    seen_spaces: dict[str, spaces.Space[Any]]


def look_at_game(config: RayConfig) -> Game:
    """Make the environment once, and see whether the config goes with it.

    Raises:
        ConfigError: it cannot be made, or the algorithm or the policies do not go with it.
    """
    try:
        env = make_env(env_settings(config))
    except UnknownGame as error:
        raise ConfigError([Problem("env_id", str(error))]) from error
    try:
        if config.multi_agent:
            agents = tuple(env.possible_agents)
            made = dict(env.observation_spaces), dict(env.action_spaces), dict(env.seen_spaces)
            game = Game(agents, env.masked, *made)
        else:
            made = {"": env.observation_space}, {"": env.action_space}, dict(env.seen_spaces)
            game = Game((), env.masked, *made)
    finally:
        env.close()
    problems = _misfits(config, game)
    if problems:
        raise ConfigError(problems)
    return game


def _misfits(config: RayConfig, game: Game) -> list[Problem]:
    found = []
    kinds = {type(space).__name__ for space in game.action_spaces.values()}
    wrong = sorted(kinds - set(config.algorithm.actions))
    if wrong:
        fit = [n for n, a in ALGORITHMS.items() if kinds <= set(a.actions) and (a.multi_agent or not game.agents)]
        what = (
            f"{config.algo} takes {', '.join(config.algorithm.actions)} actions, {config.env_id} has {', '.join(wrong)}"
        )
        found.append(
            Problem("algo", f"{what}: " + (f"set algo to one of {', '.join(fit)}" if fit else "none here does"))
        )
    if game.masked and not config.algorithm.masks:
        able = " or ".join(name for name, each in ALGORITHMS.items() if each.masks)
        found.append(
            Problem(
                "algo",
                f"{config.env_id} has action masks, which {config.algo} does not heed; set algo to {able}",
            )
        )
    if any(
        int(getattr(space, "start", 0)) for space in game.action_spaces.values() if isinstance(space, spaces.Discrete)
    ):
        found.append(Problem("env_id", f"{config.env_id} counts its actions from other than 0, which RLlib cannot"))
    if game.masked and kinds != {"Discrete"}:
        found.append(
            Problem("env_id", f"{config.env_id} has masks of actions that are not Discrete: they are not supported")
        )
    alike = len(set(map(str, game.observation_spaces.values()))) == len(set(map(str, game.action_spaces.values()))) == 1
    if game.agents and not alike and config.policies != "independent":
        each = "its agents differ in what they see or do"
        found.append(Problem("policies", f"{each}, so that one network cannot serve all; set independent"))
    if config.policies == "self_play" and len(game.agents) < 2:
        found.append(Problem("policies", f"{config.env_id} has one agent: nobody plays against it"))
    return found


def modules_of(config: RayConfig, game: Game) -> list[str]:
    """All RLModules of a run."""
    found = list(dict.fromkeys(module_of(config, agent) for agent in game.agents or ("",)))
    return found + (opponents_of(config) if config.policies == "self_play" else [])


class Mapping:
    """Which module plays which agent in an episode.

    In self-play one agent, another one in each episode, is played by the policy that learns; each of the others by any
    of its earlier versions.
    """

    def __init__(self, config: RayConfig, agents: tuple[str, ...]) -> None:
        self._of = {agent: module_of(config, agent) for agent in agents}
        self._agents = list(agents)
        self._opponents = opponents_of(config) if config.policies == "self_play" else []

    def __call__(self, agent_id: str, episode: Any = None, **kwargs: Any) -> str:
        """RLlib's ``policy_mapping_fn``."""
        if not self._opponents or episode is None:
            return self._of[agent_id]
        drawn = zlib.crc32(str(episode.id_).encode())
        if self._agents[drawn % len(self._agents)] == agent_id:
            return MAIN
        drawn = zlib.crc32(f"{episode.id_}/{agent_id}".encode())
        return self._opponents[drawn % len(self._opponents)]


class Reporter(RLlibCallback):
    """Tells each episode that ends, as one text, through RLlib's metrics.

    RLlib hands out episodes in pieces, as they are sampled: what earlier pieces gave is kept until the last one.
    """

    def __init__(self) -> None:
        self._open: dict[str, dict[str, Any]] = {}

    def on_sample_end(self, *, metrics_logger: Any, samples: Any, **kwargs: Any) -> None:
        """See RLlib; ``samples`` are pieces of episodes."""
        for piece in samples:
            told = self._open.setdefault(piece.id_, {"steps": 0, "returns": {}, "modules": {}})
            told["steps"] += len(piece)
            for agent, module, value in _returns(piece):
                told["returns"][agent] = told["returns"].get(agent, 0.0) + value
                told["modules"][agent] = module
            if piece.is_done:
                del self._open[piece.id_]
                told["terminated"] = bool(piece.is_terminated)
                metrics_logger.log_value(EPISODES, json.dumps(told), reduce="item_series", window=_RECORDS)


def _returns(piece: Any) -> list[tuple[str, str, float]]:
    """Agent, its module, and what it got in a piece of an episode."""
    if not hasattr(piece, "agent_episodes"):
        return [("", ALONE, float(piece.get_return()))]
    found = piece.agent_episodes.items()
    return [(str(agent), str(piece.module_for(agent)), float(each.get_return())) for agent, each in found]


def checked(config: RayConfig, share: Share, seed: int) -> tuple[Game, AlgorithmConfig, dict[str, Any]]:
    """The environment, the dataset and the settings, all looked at.

    Returns:
        The game, RLlib's config of the run, and what else was found: ``transitions`` of a dataset.

    Raises:
        ConfigError: something does not go together.
    """
    game = look_at_game(config)
    found: dict[str, Any] = {}
    if config.algorithm.offline:
        from ray_worker.offline import BadDataset, check_dataset

        try:
            seen, actions = game.observation_spaces[""], game.action_spaces[""]
            found["transitions"] = check_dataset(str(config.dataset), seen, actions)
        except BadDataset as error:
            raise ConfigError([Problem("dataset", str(error))]) from error
    return game, build_config(config, game, share, seed), found


def build_config(config: RayConfig, game: Game, share: Share, seed: int) -> AlgorithmConfig:
    """RLlib's config of a run.

    Raises:
        ConfigError: RLlib refuses something of it.
    """
    register_env(ENV, make_env)
    module, name = config.algorithm.config.split(".")
    found: AlgorithmConfig = getattr(import_module(f"ray.rllib.algorithms.{module}"), name)()
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("env_id", lambda: _environment(found, config)),
        ("training", lambda: _training(found, config)),
        ("model", lambda: _modules(found, config, game)),
        ("num_env_runners", lambda: _processes(found, config, share)),
        ("dataset", lambda: _offline(found, config, game)),
        ("seed", lambda: found.debugging(seed=seed, log_level="ERROR")),
    ]
    problems = []
    for path, step in steps:
        try:
            step()
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            problems.append(Problem(path, f"RLlib refuses it: {error}"))
    if not problems:
        try:
            found.copy(copy_frozen=False).validate()
        except ValueError as error:
            problems.append(Problem("training", f"RLlib refuses it: {error}"))
    if problems:
        raise ConfigError(problems)
    return found


def _environment(found: AlgorithmConfig, config: RayConfig) -> None:
    found.environment(ENV, env_config=env_settings(config), disable_env_checking=True)
    found.framework("torch")
    found.callbacks(Reporter)
    # Often enough for a heartbeat a second and a checkpoint in time; by steps where that can be, which is reproducible.
    found.reporting(
        min_time_s_per_iteration=ITERATION_SECONDS if config.algo in ("appo", "impala") else None,
        min_sample_timesteps_per_iteration=_ITERATION_STEPS.get(config.algo, 0),
        min_train_timesteps_per_iteration=0,
    )


def _training(found: AlgorithmConfig, config: RayConfig) -> None:
    given: dict[str, Any] = {"gamma": config.gamma}
    if config.algo == "dreamerv3":
        given["model_size"] = "XS"
    if config.algo == "cql":
        given["lr"] = None  # its default, which its own check refuses: it has one for each network
    if config.train_batch_size is not None:
        given["train_batch_size_per_learner"] = max(1, config.train_batch_size // max(1, config.num_learners))
        if config.algo == "ppo" and config.minibatch_size is None:  # RLlib's default may be more than that
            given["minibatch_size"] = min(found.minibatch_size, given["train_batch_size_per_learner"])
    for name in ("minibatch_size", "num_epochs", "entropy_coeff"):
        if getattr(config, name) is not None:
            given[name] = getattr(config, name)
    if config.learning_rate is not None:
        given |= _learning_rates(config)
    if config.multi_agent and config.algo in ("dqn", "sac"):
        given["replay_buffer_config"] = {"type": "MultiAgentPrioritizedEpisodeReplayBuffer", "capacity": 50_000}
    given |= config.training
    found.training(**given)


def _learning_rates(config: RayConfig) -> dict[str, Any]:
    rate = config.learning_rate
    if config.algo in ("sac", "cql"):
        return {"actor_lr": rate, "critic_lr": rate, "alpha_lr": rate}
    if config.algo == "dreamerv3":
        return {"world_model_lr": rate, "actor_lr": rate, "critic_lr": rate}
    return {"lr": rate}


def _modules(found: AlgorithmConfig, config: RayConfig, game: Game) -> None:
    if config.multi_agent:
        names = modules_of(config, game)
        trained = [MAIN] if config.policies == "self_play" else names
        found.multi_agent(
            policies=set(names), policy_mapping_fn=Mapping(config, game.agents), policies_to_train=trained
        )
    if config.algo == "dreamerv3":
        return
    model: dict[str, Any] = {"fcnet_hiddens": list(config.hidden_layers), "fcnet_activation": config.activation}
    model |= _model_defaults(config) | config.model
    unknown = sorted(set(config.model) - set(DefaultModelConfig.__dataclass_fields__))
    if unknown:
        known = ", ".join(sorted(DefaultModelConfig.__dataclass_fields__))
        raise ValueError(f"{', '.join(unknown)} is not of its DefaultModelConfig, which has {known}")
    if config.policies == "shared_value_function":
        found.training(learner_class=SharedValuesLearner)
        model |= {MASKED: game.masked, "vf_share_layers": True}
        specs = {
            agent: RLModuleSpec(module_class=SharedValueModule, model_config=model)
            for agent in modules_of(config, game)
        }
        found.rl_module(rl_module_spec=MultiRLModuleSpec(multi_rl_module_class=SharedValues, rl_module_specs=specs))
    elif game.masked:
        kind = MaskedAPPOModule if config.algo == "appo" else MaskedPPOModule
        found.rl_module(rl_module_spec=RLModuleSpec(module_class=kind, model_config={**model, MASKED: game.masked}))
    else:
        found.rl_module(model_config=model)


def _model_defaults(config: RayConfig) -> dict[str, Any]:
    """Heads without layers of their own, unless one asks for some."""
    return {"head_fcnet_hiddens": []} if config.algo in ("ppo", "appo", "impala", "bc", "marwil") else {}


def _processes(found: AlgorithmConfig, config: RayConfig, share: Share) -> None:
    found.env_runners(
        num_env_runners=share.runners,
        num_envs_per_env_runner=1 if config.algorithm.offline else config.num_envs_per_env_runner,
        num_cpus_per_env_runner=1,
        num_gpus_per_env_runner=0,
        create_local_env_runner=True,
    )
    # A runner that died is started anew within the run's group; that it never comes back must not go unnoticed.
    found.fault_tolerance(restart_failed_env_runners=True)
    per_learner = min(1.0, share.gpus) if config.device != "cpu" else 0.0
    found.learners(num_learners=config.num_learners, num_gpus_per_learner=per_learner)
    if config.num_learners:
        # One with a GPU asks for no CPU, though one is counted for it: an env runner may have that of the GPU's bundle.
        found.learners(num_cpus_per_learner=0 if per_learner else 1)
    found.resources(num_cpus_for_main_process=0)


def _offline(found: AlgorithmConfig, config: RayConfig, game: Game) -> None:
    if not config.algorithm.offline:
        return
    from ray_worker.offline import UPDATES, Dataset

    found.environment(observation_space=game.observation_spaces[""], action_space=game.action_spaces[""])
    # Not with Ray Data, whose tasks would run anywhere in the cluster: a dataset of transitions fits in memory.
    found.offline_data(input_=[str(config.dataset)], offline_data_class=Dataset, dataset_num_iters_per_learner=UPDATES)
    found.evaluation(
        evaluation_interval=_NEVER,  # by itself: when to play is said in steps, by us
        evaluation_num_env_runners=0,
        evaluation_duration=config.evaluation_episodes,
        evaluation_duration_unit="episodes",
        evaluation_config={"explore": False},
    )


__all__ = ["Game", "build_config", "checked", "look_at_game", "modules_of"]
