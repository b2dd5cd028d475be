"""What can be set. Importing this needs neither JAX nor pgx: a config is checked in no time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

PLAYERS = {
    "2048": 1,
    "animal_shogi": 2,
    "backgammon": 2,
    "chess": 2,
    "connect_four": 2,
    "gardner_chess": 2,
    "go_19x19": 2,
    "go_9x9": 2,
    "hex": 2,
    "minatar-asterix": 1,
    "minatar-breakout": 1,
    "minatar-freeway": 1,
    "minatar-seaquest": 1,
    "minatar-space_invaders": 1,
    "othello": 2,
    "shogi": 2,
    "tic_tac_toe": 2,
}
"""The games of pgx that can be learned, with how many play them."""

_HIDDEN = "players do not see everything, and a search of the true game would look at what is hidden from them"
REFUSED = {
    "bridge_bidding": f"four play it; {_HIDDEN}",
    "kuhn_poker": _HIDDEN,
    "leduc_holdem": _HIDDEN,
    "sparrow_mahjong": f"three play it; {_HIDDEN}",
}
"""The games of pgx that cannot, and why."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "gumbel_alphazero": {"max_considered_actions": 16},
    "alphazero": {"dirichlet_alpha": 0.3, "dirichlet_fraction": 0.25, "temperature": 1.0},
}
"""The algorithms, with the settings that only they have and their defaults."""

_LARGEST_SEED = 2**32 - 1


@dataclass
class _Settings:
    """The fields alone: every value possible by itself."""

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: int | None = config_field(
        None, help="seed of all randomness; null draws one and reports it", min=0, max=_LARGEST_SEED
    )
    env_id: str = config_field("tic_tac_toe", help="a game of pgx: " + ", ".join(PLAYERS))
    algo: str = config_field(
        "gumbel_alphazero",
        help="the search of self-play: gumbel_alphazero (sequential halving, good with few simulations) or alphazero "
        "(PUCT with Dirichlet noise); both search the true game, guided by the network",
        choices=tuple(DEFAULTS),
    )
    total_steps: int = config_field(
        400_000,
        help="how long to train; rounded up to a multiple of num_envs",
        unit="moves of self-play, over all games",
        min=1,
    )
    num_envs: int = config_field(256, help="games played side by side", min=1)
    num_simulations: int = config_field(32, help="simulations of the search before each move of self-play", min=1)
    max_considered_actions: int | None = config_field(
        None, help="moves that the search looks at in the position itself (gumbel_alphazero: 16)", min=1
    )
    dirichlet_alpha: float | None = config_field(
        None, help="how even the noise on the moves of the position itself is (alphazero: 0.3)", exclusive_min=0
    )
    dirichlet_fraction: float | None = config_field(None, help="weight of that noise (alphazero: 0.25)", min=0, max=1)
    temperature: float | None = config_field(
        None, help="of playing in proportion to visits; close to 0 plays the most visited move (alphazero: 1)", min=0
    )
    exploration: float = config_field(
        0.25,
        help="share of self-play moves that are drawn evenly from the legal ones instead; what is learned for those "
        "positions is the search's opinion all the same",
        min=0,
        max=1,
    )
    discount: float | None = config_field(
        None, help="of a later reward, per move (null: 1 for two players, 0.997 for one)", exclusive_min=0, max=1
    )
    max_game_moves: int = config_field(
        0,
        help="cut a game of self-play that is longer; the search's opinion of its last position counts as its result. "
        "0: never",
        unit="moves",
        min=0,
    )
    learning_rate: float = config_field(2e-3, help="Adam's step size, at the start", exclusive_min=0, max=1)
    anneal_lr: bool = config_field(False, help="lower the learning rate linearly, to 0 at total_steps")
    rollout_length: int = config_field(8, help="moves between two rounds of learning", unit="moves of each game", min=1)
    gradient_steps: int = config_field(8, help="gradient steps of a round of learning", min=1)
    batch_size: int = config_field(256, help="positions drawn for a gradient step", min=1)
    buffer_size: int = config_field(
        32_768,
        help="newest positions that are kept for learning; rounded down to a multiple of num_envs",
        unit="positions",
        min=1,
    )
    learning_starts: int = config_field(
        2_048, help="so many positions of finished games before the first gradient step", unit="positions", min=1
    )
    value_coef: float = config_field(1.0, help="weight of the value loss", min=0)
    weight_decay: float = config_field(1e-4, help="decoupled weight decay, as a share of the learning rate", min=0)
    max_grad_norm: float = config_field(1.0, help="longer gradients are scaled down to this norm", exclusive_min=0)
    network: str = config_field(
        "auto",
        help="mlp, or resnet for boards; auto takes resnet for boards of at least 5 by 5",
        choices=("auto", "mlp", "resnet"),
    )
    hidden_size: int | None = config_field(
        None, help="units of a layer of an mlp, channels of a resnet (null: 128 for mlp, 64 for resnet)", min=1
    )
    num_blocks: int = config_field(2, help="residual blocks of two layers each", min=1)
    eval_interval: int = config_field(
        50_000,
        help="evaluate at the start, past every so many steps, and at the end; 0: only at start and end",
        unit="moves",
        min=0,
    )
    eval_games: int = config_field(512, help="games of an evaluation; of two players, each half the games first", min=2)
    eval_simulations: int = config_field(
        0, help="simulations before each move in evaluations; 0: the network's best move without a search", min=0
    )
    eval_max_moves: int = config_field(
        1_000, help="an evaluation game that is longer counts as it then stands", unit="moves", min=1
    )
    reported_games: int = config_field(
        4, help="of so many of the games side by side, each end is a line of telemetry", min=0
    )
    checkpoint_every: int = config_field(
        100_000,
        help="save past every so many steps; 0 saves only at the end and when stopped",
        unit="moves",
        min=0,
    )
    keep_checkpoints: int = config_field(3, help="newest checkpoints that stay, beside the best", min=1)
    checkpoint_buffer: bool = config_field(
        True,
        help="put running games and learned positions into checkpoints; without them, a run that goes on begins new "
        "games and collects learning_starts positions before it learns on",
    )
    device: str = config_field(
        "auto",
        help="where networks and games live; cuda gets an environment with JAX for CUDA, auto takes what JAX finds",
        choices=("auto", "cpu", "cuda"),
    )


@dataclass
class MctxConfig(_Settings):
    """The config of one run.

    Raises:
        ConfigError: when made with impossible values, with every problem found. It is also a ``ValueError``.
    """

    def __post_init__(self) -> None:
        problems = config_problems(_Settings, asdict(self)) or _combination_problems(asdict(self))
        if problems:
            raise ConfigError(problems)
        for name, default in DEFAULTS[self.algo].items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        if self.discount is None:
            self.discount = 1.0 if PLAYERS[self.env_id] == 2 else 0.997

    def to_dict(self) -> dict[str, Any]:
        """All settings that the algorithm has, as plain JSON values; ``from_dict`` takes them back."""
        foreign = _foreign(self.algo)
        return {name: value for name, value in asdict(self).items() if name not in foreign}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MctxConfig:
        """Build a config from what a person wrote.

        Raises:
            ConfigError: unknown settings, impossible values and combinations of them, all at once.
        """
        problems = config_problems(_Settings, data)
        if problems and isinstance(data, Mapping):
            # What is wrong by itself takes no part in combinations; the others are still looked at.
            wrong = {problem.path for problem in problems}
            values = {spec.name: data.get(spec.name, spec.default) for spec in fields(_Settings)}
            problems += _combination_problems(values, wrong)
        if problems:
            raise ConfigError(problems)
        return build_config(cls, data)

    @property
    def players(self) -> int:
        """How many play the game: 1 or 2."""
        return PLAYERS[self.env_id]


def load_worker_config(path: str | Path) -> MctxConfig:
    """Read a config file: the settings themselves, or a trainer's payload with ``metadata.worker.config``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not JSON, or not a possible config.
    """
    return load_worker_config_from_file(path, MctxConfig)


def _foreign(algo: str) -> dict[str, str]:
    """Settings that only other algorithms have, with the name of one that has it."""
    others = {name: other for other, settings in DEFAULTS.items() for name in settings}
    return {name: other for name, other in others.items() if name not in DEFAULTS[algo]}


def _combination_problems(values: Mapping[str, Any], wrong: Collection[str] = ()) -> list[Problem]:
    """What is wrong with settings together; those that are wrong by themselves take no part in it."""
    problems = []

    def add(problem: Problem) -> None:
        if problem.path not in wrong:
            problems.append(problem)

    game, algo = values["env_id"], values["algo"]
    if isinstance(values["run_id"], str) and not values["run_id"].strip():
        add(Problem("run_id", "must not be empty"))
    if game in REFUSED:
        add(Problem("env_id", f"{game} cannot be learned here: {REFUSED[game]}"))
    elif game not in PLAYERS:
        add(Problem("env_id", f"is {game!r}, which is no game of pgx 2.6; choose one of {', '.join(PLAYERS)}"))
    if "algo" not in wrong:
        for name, other in _foreign(algo).items():
            if values[name] is not None:
                own = " and ".join(DEFAULTS[algo])
                add(Problem(name, f"is not a setting of {algo}, but of {other}; of its own, {algo} has {own}"))
    if not {"buffer_size", "num_envs"} & set(wrong) and values["buffer_size"] < 2 * values["num_envs"]:
        text = f"is {values['buffer_size']}, but must hold at least two moves of each of the {values['num_envs']} games"
        add(Problem("buffer_size", f"{text}: set it to {2 * values['num_envs']} or more"))
    elif not {"learning_starts", "buffer_size"} & set(wrong) and values["learning_starts"] > values["buffer_size"]:
        text = f"is {values['learning_starts']}, more than buffer_size ({values['buffer_size']}) ever holds"
        add(Problem("learning_starts", f"{text}: lower it, or learning never starts"))
    if "eval_games" not in wrong and values["eval_games"] % 2:
        text = f"is {values['eval_games']}, but each side begins half of them"
        add(Problem("eval_games", f"{text}: make it even"))
    return problems


__all__ = ["DEFAULTS", "PLAYERS", "REFUSED", "MctxConfig", "load_worker_config"]
