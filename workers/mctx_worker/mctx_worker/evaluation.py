"""Evaluation: games against a random player and against an older network; a single player just plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mctx_worker.config import MctxConfig
from mctx_worker.games import Game, mask_logits, over
from mctx_worker.network import Network, Params
from mctx_worker.search import make_search


class Match(NamedTuple):
    """Games of an evaluation.

    Attributes:
        states: of pgx.
        seat: the player that is evaluated, of each game.
        returns: of that player, so far.
        moves: made so far, of each game.
    """

    states: Any
    seat: jax.Array
    returns: jax.Array
    moves: jax.Array


class Evaluation:
    """Plays evaluation games, one move of all at a time, so that a request to stop is heard.

    In the even half of the games the player that is evaluated moves first, in the odd half second.
    """

    def __init__(self, config: MctxConfig, game: Game, network: Network) -> None:
        self._config, self._game, self._network = config, game, network
        self._search = None
        if config.eval_simulations:
            self._search = make_search(config, game, network, simulations=config.eval_simulations, noise=False)
        self._begin = jax.jit(self._begin_games)
        self._against_random = jax.jit(self._move_against_random)
        self._against_past = jax.jit(self._move_against_past)

    def against_random(self, params: Params, key: jax.Array, stop: Callable[[], bool]) -> np.ndarray | None:
        """Results of ``eval_games`` against a random player, or a single player's returns; ``None`` if stopped."""
        return self._play(self._against_random, params, key, stop)

    def against_past(self, params: Params, past: Params, key: jax.Array, stop: Callable[[], bool]) -> np.ndarray | None:
        """Results against an older network; both play by chance, as likely as their policies say."""
        return self._play(self._against_past, (params, past), key, stop)

    def _play(self, move: Any, params: Any, key: jax.Array, stop: Callable[[], bool]) -> np.ndarray | None:
        match = self._begin(jax.random.fold_in(key, 0))
        for number in range(1, self._config.eval_max_moves + 1):
            match, running = move(params, match, jax.random.fold_in(key, number))
            if stop():
                return None
            if not running:
                break
        return np.asarray(match.returns)

    def _begin_games(self, key: jax.Array) -> Match:
        count = self._config.eval_games
        states = self._game.init(key, count)
        first = states.current_player.astype(jnp.int32)
        seat = first
        if self._game.players == 2:
            seat = jnp.where(jnp.arange(count) % 2 == 0, first, 1 - first)
        return Match(states, seat, jnp.zeros(count), jnp.zeros(count, jnp.int32))

    def _move_against_random(self, params: Params, match: Match, key: jax.Array) -> tuple[Match, jax.Array]:
        mine_key, other_key, chance_key = jax.random.split(key, 3)
        states = match.states
        if self._search is not None:
            mine = self._search(params, states, mine_key).action
        else:
            logits, _ = self._network(params, states.observation)
            mine = jnp.argmax(mask_logits(logits, states.legal_action_mask), axis=-1)
        return self._after(match, mine, self._game.random_actions(states, other_key), chance_key)

    def _move_against_past(self, both: tuple[Params, Params], match: Match, key: jax.Array) -> tuple[Match, jax.Array]:
        keys = jax.random.split(key, 3)
        states = match.states
        drawn = []
        for params, player_key in zip(both, keys[:2], strict=True):
            logits, _ = self._network(params, states.observation)
            drawn.append(jax.random.categorical(player_key, mask_logits(logits, states.legal_action_mask)))
        return self._after(match, drawn[0], drawn[1], keys[2])

    def _after(self, match: Match, mine: jax.Array, other: jax.Array, key: jax.Array) -> tuple[Match, jax.Array]:
        states = match.states
        was_over = over(states)
        actions = jnp.where(states.current_player == match.seat, mine, other)
        after = self._game.step(states, actions, key)
        got = jnp.take_along_axis(after.rewards, match.seat[:, None], axis=1)[:, 0]
        returns = match.returns + jnp.where(was_over, 0.0, got)
        moves = match.moves + ~was_over
        return Match(after, match.seat, returns, moves), jnp.any(~over(after))


def against_random_metrics(returns: np.ndarray, players: int) -> dict[str, float]:
    """What a heartbeat says of an evaluation: ``episodic_return`` is the mean result or return."""
    metrics = {"episodic_return": round(float(returns.mean()), 6)}
    if players == 2:
        metrics.update(
            win_rate=round(float((returns > 0).mean()), 6),
            draw_rate=round(float((returns == 0).mean()), 6),
            loss_rate=round(float((returns < 0).mean()), 6),
            win_rate_first=round(float((returns[0::2] > 0).mean()), 6),
            win_rate_second=round(float((returns[1::2] > 0).mean()), 6),
        )
    return metrics


__all__ = ["Evaluation", "against_random_metrics"]
