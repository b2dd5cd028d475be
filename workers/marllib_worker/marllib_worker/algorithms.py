"""What is known of algorithms and games without importing a library: who has what, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

BACKENDS = ("marllib", "benchmarl")

PARADIGMS = {
    "IL": "independent learning: each agent learns by itself",
    "CC": "centralised critic: actors see their own observation, critics all",
    "VD": "value decomposition: the team's value is put together from the agents'",
}


@dataclass(frozen=True)
class Algorithm:
    """One algorithm, whichever libraries have it.

    Attributes:
        paradigm: key of :data:`PARADIGMS`.
        family: how it learns, which decides the settings it has: ``ppo``, ``trpo``, ``a2c``, ``ddpg``, ``sac``, ``q``.
        backends: the libraries that have it.
        actions: ``discrete`` or ``continuous``, per backend. Where both are possible, the discrete ones are taken: they
            are what the canonical game has.
    """

    paradigm: str
    family: str
    backends: Tuple[str, ...]
    actions: str = "discrete"

    @property
    def on_policy(self) -> bool:
        """Whether it learns from fresh steps only."""
        return self.family in ("ppo", "trpo", "a2c")


_M, _B, _BOTH = ("marllib",), ("benchmarl",), ("marllib", "benchmarl")

ALGORITHMS: Dict[str, Algorithm] = {
    "ia2c": Algorithm("IL", "a2c", _M),
    "iddpg": Algorithm("IL", "ddpg", _BOTH, "continuous"),
    "itrpo": Algorithm("IL", "trpo", _M),
    "ippo": Algorithm("IL", "ppo", _BOTH),
    "isac": Algorithm("IL", "sac", _B),
    "maa2c": Algorithm("CC", "a2c", _M),
    "coma": Algorithm("CC", "a2c", _M),
    "maddpg": Algorithm("CC", "ddpg", _BOTH, "continuous"),
    "mappo": Algorithm("CC", "ppo", _BOTH),
    "matrpo": Algorithm("CC", "trpo", _M),
    "happo": Algorithm("CC", "ppo", _M),
    "hatrpo": Algorithm("CC", "trpo", _M),
    "masac": Algorithm("CC", "sac", _B),
    "vda2c": Algorithm("VD", "a2c", _M),
    "vdppo": Algorithm("VD", "ppo", _M),
    "facmac": Algorithm("VD", "ddpg", _M, "continuous"),
    "iql": Algorithm("VD", "q", _BOTH),
    "vdn": Algorithm("VD", "q", _BOTH),
    "qmix": Algorithm("VD", "q", _BOTH),
}
"""MARLlib counts ``iql`` among value decomposition: it is its ``qmix`` without a mixer."""


def algorithms_of(backend: str) -> Tuple[str, ...]:
    """Names of the algorithms that a backend has."""
    return tuple(name for name, algorithm in ALGORITHMS.items() if backend in algorithm.backends)


@dataclass(frozen=True)
class Game:
    """A game of PettingZoo's MPE, by its canonical name.

    Attributes:
        marllib: MARLlib's name of its map. It plays PettingZoo 1.12's version of it, one number older.
        benchmarl: BenchMARL's name of its task.
        cooperative: all agents get the same reward, or may as well: what value decomposition needs.
        shareable: one policy may serve all agents.
        agents: how many there are by default.
    """

    marllib: str
    benchmarl: str
    cooperative: bool
    shareable: bool
    agents: int


GAMES: Dict[str, Game] = {
    "simple_spread_v3": Game("simple_spread", "SIMPLE_SPREAD", True, True, 3),
    "simple_reference_v3": Game("simple_reference", "SIMPLE_REFERENCE", True, True, 2),
    "simple_speaker_listener_v4": Game("simple_speaker_listener", "SIMPLE_SPEAKER_LISTENER", True, True, 2),
    "simple_adversary_v3": Game("simple_adversary", "SIMPLE_ADVERSARY", False, False, 3),
    "simple_crypto_v3": Game("simple_crypto", "SIMPLE_CRYPTO", False, False, 3),
    "simple_push_v3": Game("simple_push", "SIMPLE_PUSH", False, False, 2),
    "simple_tag_v3": Game("simple_tag", "SIMPLE_TAG", False, False, 4),
    "simple_world_comm_v3": Game("simple_world_comm", "SIMPLE_WORLD_COMM", False, False, 6),
}

EPISODE_STEPS = 25
"""Length of an episode: what MARLlib's wrapper of MPE assumes, and its benchmarks use."""


@dataclass(frozen=True)
class Setting:
    """Where a setting of ours goes in a library: to one name, for some families of algorithms.

    Attributes:
        name: what the library calls it.
        families: those that have it.
        episodes: the library counts it in episodes, we in steps.
    """

    name: str
    families: Tuple[str, ...]
    episodes: bool = False


_ALL = ("ppo", "trpo", "a2c", "ddpg", "sac", "q")
_ON_POLICY = ("ppo", "trpo", "a2c")
_OFF_POLICY = ("ddpg", "sac", "q")

# Several rows of one field: the one whose families hold the algorithm's counts; several of those: all of them.
MARLLIB_SETTINGS: Mapping[str, Tuple[Setting, ...]] = {
    "learning_rate": (
        Setting("lr", ("ppo", "a2c", "q")),
        Setting("critic_lr", ("trpo", "ddpg")),
        Setting("actor_lr", ("ddpg",)),
    ),
    "rollout_steps": (Setting("batch_episode", _ON_POLICY, episodes=True),),
    "update_epochs": (Setting("num_sgd_iter", ("ppo", "trpo")),),
    "batch_size": (Setting("batch_episode", ("ddpg", "q")),),
    "buffer_size": (
        Setting("buffer_size", ("q",), episodes=True),
        Setting("buffer_size_episode", ("ddpg",), episodes=True),
    ),
    "entropy_coef": (Setting("entropy_coeff", _ON_POLICY),),
    "gae_lambda": (Setting("lambda", _ON_POLICY),),
    "clip_coef": (Setting("clip_param", ("ppo", "trpo")),),
    "exploration_steps": (Setting("epsilon_timesteps", ("q",)),),
    "exploration_final": (Setting("final_epsilon", ("q",)),),
}

BENCHMARL_SETTINGS: Mapping[str, Tuple[Setting, ...]] = {
    "learning_rate": (Setting("lr", _ALL),),
    "rollout_steps": (
        Setting("on_policy_collected_frames_per_batch", _ON_POLICY),
        Setting("off_policy_collected_frames_per_batch", _OFF_POLICY),
    ),
    "update_epochs": (
        Setting("on_policy_n_minibatch_iters", _ON_POLICY),
        Setting("off_policy_n_optimizer_steps", _OFF_POLICY),
    ),
    "batch_size": (
        Setting("on_policy_minibatch_size", _ON_POLICY),
        Setting("off_policy_train_batch_size", _OFF_POLICY),
    ),
    "buffer_size": (Setting("off_policy_memory_size", _OFF_POLICY),),
    "entropy_coef": (Setting("entropy_coef", _ON_POLICY),),
    "gae_lambda": (Setting("lmbda", _ON_POLICY),),
    "clip_coef": (Setting("clip_epsilon", _ON_POLICY),),
    "exploration_steps": (Setting("exploration_anneal_frames", ("ddpg", "q")),),
    "exploration_final": (Setting("exploration_eps_end", ("ddpg", "q")),),
}

SETTINGS: Mapping[str, Mapping[str, Tuple[Setting, ...]]] = {
    "marllib": MARLLIB_SETTINGS,
    "benchmarl": BENCHMARL_SETTINGS,
}


def settings_for(backend: str, algo: str, field_name: str) -> Tuple[Setting, ...]:
    """Where a field goes for one algorithm of a backend; empty: it has no such setting."""
    family = ALGORITHMS[algo].family
    return tuple(each for each in SETTINGS[backend].get(field_name, ()) if family in each.families)


# MPE's episodes are cut off, and BenchMARL counts what would have come after: with 0.99 that is a value of 100 steps,
# which a critic takes long to learn. A smaller discount and smaller rewards bring it near to where networks begin.
_BENCHMARL = {"gamma": 0.9, "reward_scale": 0.1, "learning_rate": 1e-3}
_REPLAY = {"rollout_steps": 800, "update_epochs": 50, "batch_size": 256, "num_envs": 16, **_BENCHMARL}

DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "marllib": {
        "ppo": {"rollout_steps": 1000, "update_epochs": 10, "learning_rate": 7e-4, "num_envs": 8, "gamma": 0.99},
        "trpo": {"rollout_steps": 1000, "num_envs": 8, "gamma": 0.99},
        "a2c": {"rollout_steps": 250, "num_envs": 2, "gamma": 0.99},
        "ddpg": {"batch_size": 32, "num_envs": 1, "gamma": 0.99},
        "q": {"batch_size": 32, "exploration_steps": 20_000, "num_envs": 1, "gamma": 0.99},
    },
    "benchmarl": {
        "ppo": {
            **_BENCHMARL,
            "rollout_steps": 1000,
            "update_epochs": 10,
            "batch_size": 500,
            "num_envs": 20,
            # Returns as they were: a critic that has yet to learn misleads.
            "gae_lambda": 1.0,
            "entropy_coef": 0.01,
            "gamma": 0.95,
        },
        "ddpg": _REPLAY,
        "sac": _REPLAY,
        "q": _REPLAY,
    },
}
"""What a family of algorithms gets where the config says nothing: found on simple_spread_v3, with minutes to train.

A field that stands neither here nor in the config keeps the library's own default.
"""


__all__ = [
    "ALGORITHMS",
    "BACKENDS",
    "DEFAULTS",
    "EPISODE_STEPS",
    "GAMES",
    "PARADIGMS",
    "SETTINGS",
    "Algorithm",
    "Game",
    "Setting",
    "algorithms_of",
    "settings_for",
]
