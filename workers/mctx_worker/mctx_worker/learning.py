"""Learning: draw positions of finished games, move the network towards the search's policy and the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mctx_worker.config import MctxConfig
from mctx_worker.games import mask_logits
from mctx_worker.network import Network, Params
from mctx_worker.selfplay import Buffer, targets


class Material(NamedTuple):
    """What there is to learn from.

    Attributes:
        outcomes: of each position, flat.
        counted: positions with a known outcome up to each position, flat: where to look a drawn number up.
        known: how many there are; a scalar.
    """

    outcomes: jax.Array
    counted: jax.Array
    known: jax.Array


def make_optimizer(config: MctxConfig) -> optax.GradientTransformation:
    """Adam with decoupled weight decay; its updates are still to be multiplied by minus the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay),
    )


def make_gather(config: MctxConfig) -> Callable[[Buffer], Material]:
    """Look through the buffer for what can be learned from."""
    discount = config.discount
    assert discount is not None

    def gather(buffer: Buffer) -> Material:
        outcomes, known = targets(buffer, discount)
        counted = jnp.cumsum(known.reshape(-1).astype(jnp.int32))
        return Material(outcomes.reshape(-1), counted, counted[-1])

    return jax.jit(gather)


def make_learn(config: MctxConfig, network: Network, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """A round of gradient steps.

    Returns:
        a function of parameters, optimizer state (both given up), buffer, material, learning rate and key; it gives
        the new parameters and optimizer state, and the means of the losses.
    """

    def loss_of(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, raw = network(params, batch["observations"])
        log_probs = jax.nn.log_softmax(mask_logits(logits, batch["masks"]))
        policy_loss = -jnp.where(batch["masks"], batch["policies"] * log_probs, 0.0).sum(axis=-1).mean()
        entropy = -jnp.where(batch["masks"], jnp.exp(log_probs) * log_probs, 0.0).sum(axis=-1).mean()
        value_loss = network.value_loss(raw, batch["outcomes"]).mean()
        loss = policy_loss + config.value_coef * value_loss
        return loss, {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def learn(
        params: Params, opt_state: Any, buffer: Buffer, material: Material, rate: jax.Array, key: jax.Array
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        shape = (config.gradient_steps, config.batch_size)
        drawn = jax.random.randint(key, shape, 0, material.known)
        places = jnp.searchsorted(material.counted, drawn, side="right")
        games = buffer.values.shape[1]

        def step(carry: tuple[Params, Any], place: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            params, opt_state = carry
            row, column = place // games, place % games
            batch = {
                "observations": buffer.observations[row, column],
                "masks": buffer.masks[row, column],
                "policies": buffer.policies[row, column],
                "outcomes": material.outcomes[place],
            }
            gradients, losses = jax.grad(loss_of, has_aux=True)(params, batch)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            params = jax.tree.map(lambda value, update: value - rate * update, params, updates)
            return (params, opt_state), losses

        (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), places)
        return params, opt_state, jax.tree.map(jnp.mean, losses)

    return jax.jit(learn, donate_argnums=(0, 1))


__all__ = ["Material", "make_gather", "make_learn", "make_optimizer"]
