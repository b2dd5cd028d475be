"""A game of pgx, with what learning it needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from mctx_worker.config import PLAYERS
from mosaic_cluster.worker import ConfigError, Problem

# The largest result of a game, where it is not 1: a backgammon counts three times.
_BOUNDS = {"backgammon": 3.0}


@dataclass(frozen=True)
class Game:
    """A game of pgx.

    Attributes:
        env: the environment; its functions are for one game, to be vmapped.
        name: id of the game in pgx.
        players: 1 or 2.
        bound: of two players, the largest result of a game.
        actions: number of actions.
        observation_shape, observation_dtype: of one observation.
    """

    env: pgx.Env
    name: str
    players: int
    bound: float
    actions: int
    observation_shape: tuple[int, ...]
    observation_dtype: Any

    def init(self, key: jax.Array, count: int) -> Any:
        """States of ``count`` games at their start; who of two players begins is drawn."""
        return jax.vmap(self.env.init)(jax.random.split(key, count))

    def step(self, states: Any, actions: jax.Array, key: jax.Array) -> Any:
        """States after a move; chance, where the game has it, is drawn with ``key``. Games that are over stay so."""
        keys = jax.random.split(key, actions.shape[0])
        return jax.vmap(self.env.step)(states, actions, keys)

    def random_actions(self, states: Any, key: jax.Array) -> jax.Array:
        """An action for each state, drawn evenly from the legal ones."""
        return jax.random.categorical(key, mask_logits(jnp.zeros(()), states.legal_action_mask))


def mask_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """The logits, very low where an action is illegal."""
    return jnp.where(mask, logits, jnp.finfo(jnp.float32).min)


def rewards_of(states: Any, player: jax.Array) -> jax.Array:
    """What ``player`` (shape ``(games,)``) got for the last move."""
    return jnp.take_along_axis(states.rewards, player[:, None], axis=1)[:, 0].astype(jnp.float32)


def over(states: Any) -> jax.Array:
    """Whether each game has ended."""
    return states.terminated | states.truncated


def make_game(name: str) -> Game:
    """The game of that name.

    Raises:
        ConfigError: the installed pgx does not have it as it is known here.
    """
    try:
        env = pgx.make(name)  # type: ignore[arg-type]
    except (ValueError, ImportError) as error:
        text = f"is {name!r}, which the installed pgx {pgx.__version__} cannot make: {error}"
        raise ConfigError([Problem("env_id", text)]) from error
    if env.num_players != PLAYERS[name]:
        text = f"is {name!r}, which {env.num_players} play in the installed pgx; here it must be {PLAYERS[name]}"
        raise ConfigError([Problem("env_id", text)])
    state = jax.eval_shape(env.init, jax.random.PRNGKey(0))
    return Game(
        env=env,
        name=name,
        players=env.num_players,
        bound=_BOUNDS.get(name, 1.0),
        actions=math.prod(state.legal_action_mask.shape),
        observation_shape=tuple(state.observation.shape),
        observation_dtype=state.observation.dtype,
    )


__all__ = ["Game", "make_game", "mask_logits", "over", "rewards_of"]
