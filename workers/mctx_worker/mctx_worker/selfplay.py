"""Self-play: many games side by side, and the buffer of what was met in them.

The buffer is a ring of rows; a row is one move of every game. So the positions of a game stand below each other, and
what became of them is found by walking the rows backwards, once the game has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mctx_worker.config import MctxConfig
from mctx_worker.games import Game, over, rewards_of
from mctx_worker.network import Params
from mctx_worker.search import Search


class Buffer(NamedTuple):
    """Positions; the first two axes of each array are rows and games.

    Attributes:
        observations, masks: what the network gets, and which moves were legal.
        policies: the search's opinion of the moves.
        values: the search's opinion of the position, for the player to move.
        rewards: what the player got for the move made.
        signs: 1 where the same player moved next, -1 where the opponent did.
        ends: 0: the game went on; 1: the move ended it; 2: it was cut after the move.
        written: rows written since the beginning; a scalar.
    """

    observations: jax.Array
    masks: jax.Array
    policies: jax.Array
    values: jax.Array
    rewards: jax.Array
    signs: jax.Array
    ends: jax.Array
    written: jax.Array


class Games(NamedTuple):
    """The games that are being played.

    Attributes:
        states: of pgx.
        first: which player began each game.
        moves: made in each game.
        returns: rewards so far, shape ``(games, players)``.
        buffer: see there.
    """

    states: Any
    first: jax.Array
    moves: jax.Array
    returns: jax.Array
    buffer: Buffer


class Ended(NamedTuple):
    """What one move of all games ended; each of shape ``(games,)``.

    Attributes:
        ended: whether the game is over, or was cut.
        cut: whether it was cut.
        result: total reward of the player who began.
        moves: how many the game had.
    """

    ended: jax.Array
    cut: jax.Array
    result: jax.Array
    moves: jax.Array


def begin(config: MctxConfig, game: Game, key: jax.Array) -> Games:
    """All games at their start, with an empty buffer."""
    states = game.init(key, config.num_envs)
    shape = (config.buffer_size // config.num_envs, config.num_envs)
    buffer = Buffer(
        observations=jnp.zeros((*shape, *game.observation_shape), game.observation_dtype),
        masks=jnp.zeros((*shape, game.actions), bool),
        policies=jnp.zeros((*shape, game.actions), jnp.float32),
        values=jnp.zeros(shape, jnp.float32),
        rewards=jnp.zeros(shape, jnp.float32),
        signs=jnp.ones(shape, jnp.int8),
        ends=jnp.zeros(shape, jnp.int8),
        written=jnp.zeros((), jnp.int32),
    )
    zeros = jnp.zeros(config.num_envs, jnp.int32)
    returns = jnp.zeros((config.num_envs, game.players), jnp.float32)
    return Games(states, states.current_player.astype(jnp.int32), zeros, returns, buffer)


def make_play(config: MctxConfig, game: Game, search: Search) -> Callable[..., tuple[Games, Ended]]:
    """One move of every game: search, move, remember, and begin anew where a game is over.

    Returns:
        a function of parameters, games (given up) and a key.
    """

    def play(params: Params, games: Games, key: jax.Array) -> tuple[Games, Ended]:
        search_key, explore_key, random_key, chance_key, init_key = jax.random.split(key, 5)
        states, count = games.states, config.num_envs
        found = search(params, states, search_key)
        explores = jax.random.uniform(explore_key, (count,)) < config.exploration
        actions = jnp.where(explores, game.random_actions(states, random_key), found.action)
        mover = states.current_player
        after = game.step(states, actions, chance_key)
        moves = games.moves + 1
        cut = ~over(after) & (moves >= config.max_game_moves if config.max_game_moves else jnp.zeros(count, bool))
        ended = over(after) | cut
        returns = games.returns + after.rewards.astype(jnp.float32)
        buffer = games.buffer
        row = buffer.written % buffer.values.shape[0]
        buffer = Buffer(
            observations=buffer.observations.at[row].set(states.observation),
            masks=buffer.masks.at[row].set(states.legal_action_mask),
            policies=buffer.policies.at[row].set(found.action_weights),
            values=buffer.values.at[row].set(found.search_tree.summary().value),
            rewards=buffer.rewards.at[row].set(rewards_of(after, mover)),
            signs=buffer.signs.at[row].set(jnp.where(after.current_player == mover, 1, -1).astype(jnp.int8)),
            ends=buffer.ends.at[row].set(jnp.where(cut, 2, ended).astype(jnp.int8)),
            written=buffer.written + 1,
        )
        result = jnp.take_along_axis(returns, games.first[:, None], axis=1)[:, 0]
        fresh = game.init(init_key, count)
        states = jax.tree.map(lambda new, old: jnp.where(_like(ended, old), new, old), fresh, after)
        played = Games(
            states=states,
            first=jnp.where(ended, states.current_player, games.first),
            moves=jnp.where(ended, 0, moves),
            returns=jnp.where(ended[:, None], 0.0, returns),
            buffer=buffer,
        )
        return played, Ended(ended, cut, result, moves)

    return jax.jit(play, donate_argnums=1)


def targets(buffer: Buffer, discount: float) -> tuple[jax.Array, jax.Array]:
    """What became of each position of the buffer.

    Returns:
        the discounted outcome for the player to move, and whether it is known: the game has ended. Both of shape
        ``(rows, games)``. A game that was cut ends with the search's opinion of its last position.
    """
    rows = buffer.values.shape[0]
    order = (buffer.written + jnp.arange(rows)) % rows  # oldest first; rows never written come before those
    written = jnp.arange(rows) >= rows - buffer.written

    def back(later: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        outcome, known = later
        value, reward, sign, end, real = row
        outcome = reward + jnp.where(end == 1, 0.0, discount * sign * outcome)
        outcome = jnp.where(end == 2, value, outcome)
        known = real & (known | (end > 0))
        return (outcome, known), (outcome, known)

    nothing = (jnp.zeros(buffer.values.shape[1]), jnp.zeros(buffer.values.shape[1], bool))
    columns = (buffer.values, buffer.rewards, buffer.signs, buffer.ends)
    chronological = (*(column[order] for column in columns), written)
    _, (outcomes, known) = jax.lax.scan(back, nothing, chronological, reverse=True)
    return jnp.zeros_like(outcomes).at[order].set(outcomes), jnp.zeros_like(known).at[order].set(known)


def _like(flags: jax.Array, array: jax.Array) -> jax.Array:
    """Flags of shape ``(games,)`` with as many axes as the array has."""
    return flags.reshape(flags.shape + (1,) * (array.ndim - 1))


__all__ = ["Buffer", "Ended", "Games", "begin", "make_play", "targets"]
