"""The search: mctx over the true game, with the network's opinion of the positions it reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx

from mctx_worker.config import MctxConfig
from mctx_worker.games import Game, mask_logits, over, rewards_of
from mctx_worker.network import Network, Params

Search = Callable[[Params, Any, jax.Array], mctx.PolicyOutput]


def make_search(config: MctxConfig, game: Game, network: Network, *, simulations: int, noise: bool = True) -> Search:
    """A search for each of a batch of positions.

    Args:
        simulations: for each position.
        noise: explore, as self-play must; without it the best known action is taken.

    Returns:
        a function of parameters, pgx states and a key. Its answer holds ``action`` ``(batch,)``, ``action_weights``
        ``(batch, actions)``, the better policy to learn from, and the tree, whose root's value is the better value.
    """
    assert config.discount is not None
    recurrent = make_recurrent(game, network, config.discount)

    def search(params: Params, states: Any, key: jax.Array) -> mctx.PolicyOutput:
        logits, raw = network(params, states.observation)
        root = mctx.RootFnOutput(
            prior_logits=mask_logits(logits, states.legal_action_mask),
            value=network.value(raw),
            embedding=_without_observation(states),
        )
        common: dict[str, Any] = {
            "params": params,
            "rng_key": key,
            "root": root,
            "recurrent_fn": recurrent,
            "num_simulations": simulations,
            "invalid_actions": ~states.legal_action_mask,
        }
        if config.algo == "gumbel_alphazero":
            assert config.max_considered_actions is not None
            return mctx.gumbel_muzero_policy(
                **common,
                max_num_considered_actions=config.max_considered_actions,
                gumbel_scale=1.0 if noise else 0.0,
            )
        return mctx.muzero_policy(
            **common,
            dirichlet_alpha=config.dirichlet_alpha,
            dirichlet_fraction=config.dirichlet_fraction if noise else 0.0,
            temperature=config.temperature if noise else 0.0,
        )

    return search


def make_recurrent(game: Game, network: Network, discount: float) -> Callable[..., Any]:
    """What a search asks for a move from a position: reward, discount, and the network's opinion of what follows.

    Values are those of the player to move. The discount is negative where the next move is the opponent's, positive
    where the same player moves on (a single player; two dice at backgammon), and zero where the game is over.
    """

    def recurrent(params: Params, key: jax.Array, actions: jax.Array, states: Any) -> Any:
        mover = states.current_player
        states = game.step(states, actions, key)
        logits, raw = network(params, states.observation)
        ended = over(states)
        sign = jnp.where(states.current_player == mover, 1.0, -1.0)
        output = mctx.RecurrentFnOutput(
            reward=rewards_of(states, mover),
            discount=jnp.where(ended, 0.0, discount * sign),
            prior_logits=mask_logits(logits, states.legal_action_mask),
            value=jnp.where(ended, 0.0, network.value(raw)),
        )
        return output, _without_observation(states)

    return recurrent


def _without_observation(states: Any) -> Any:
    """A tree keeps every state that it meets; their observations, often the larger part, are made anew."""
    return states.replace(observation=jnp.zeros(states.current_player.shape))


__all__ = ["Search", "make_recurrent", "make_search"]
