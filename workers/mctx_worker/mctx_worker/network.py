"""The network: from an observation to logits of a policy and a value.

Parameters are a dict of dicts of arrays, so that a checkpoint can name each of them.

The value head is bounded for two players (``bound * tanh``). A single player's returns may be of any size; there the
head's number goes through the inverse of ``h(x) = sign(x) (sqrt(|x| + 1) - 1) + x / 1000`` (Pohlen et al. 2018, as
in MuZero), and is learned before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mctx_worker.config import MctxConfig
from mctx_worker.games import Game
from mosaic_cluster.worker import ConfigError, Problem

Params = dict[str, Any]

_EPSILON = 1e-3


@dataclass(frozen=True)
class Network:
    """An architecture; its parameters are passed to each call.

    Attributes:
        kind: ``mlp`` or ``resnet``.
        hidden: units of a layer, or channels.
        blocks: residual blocks.
        shape: of an observation.
        actions: number of logits.
        bound: of the value; ``None``: unbounded.
    """

    kind: str
    hidden: int
    blocks: int
    shape: tuple[int, ...]
    actions: int
    bound: float | None

    def init(self, key: jax.Array) -> Params:
        """Parameters at the start: layers that keep the variance; both heads begin at zero."""
        keys = iter(jax.random.split(key, 2 * self.blocks + 3))
        conv = self.kind == "resnet"
        inputs = self.shape[-1] if conv else math.prod(self.shape)
        params: Params = {"stem": self._layer(next(keys), inputs)}
        for block in range(self.blocks):
            params[f"block{block}"] = {
                "first": self._layer(next(keys), self.hidden),
                "second": self._layer(next(keys), self.hidden, gain=0.5),
                "norm": _norm_params(self.hidden),
            }
        params["norm"] = _norm_params(self.hidden)
        cells = math.prod(self.shape[:2]) if conv else 1
        if conv:  # a few channels for each head, then all cells together
            for head in ("policy", "value"):
                params[f"{head}_planes"] = _dense_params(next(keys), self.hidden, _HEAD_CHANNELS, 2**0.5)
        width = cells * _HEAD_CHANNELS if conv else self.hidden
        params["policy"] = {"w": jnp.zeros((width, self.actions)), "b": jnp.zeros(self.actions)}
        params["value"] = {"w": jnp.zeros((width, 1)), "b": jnp.zeros(1)}
        return params

    def __call__(self, params: Params, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits ``(batch, actions)`` and what the value head says, ``(batch,)``: see :meth:`value`.

        Args:
            observations: shape ``(batch, *shape)``, any dtype.
        """
        x = observations.astype(jnp.float32)
        if self.kind == "mlp":
            x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(self._apply(params["stem"], x))
        for block in range(self.blocks):
            part = params[f"block{block}"]
            y = jax.nn.relu(self._apply(part["first"], _norm(part["norm"], x)))
            x = x + self._apply(part["second"], y)
        x = jax.nn.relu(_norm(params["norm"], x))
        heads = {}
        for head in ("policy", "value"):
            y = x
            if self.kind == "resnet":
                y = jax.nn.relu(_dense(params[f"{head}_planes"], x)).reshape(x.shape[0], -1)
            heads[head] = _dense(params[head], y)
        return heads["policy"], heads["value"][:, 0]

    def value(self, raw: jax.Array) -> jax.Array:
        """The value that the head's number stands for."""
        if self.bound is not None:
            return self.bound * jnp.tanh(raw)
        root = (jnp.sqrt(1 + 4 * _EPSILON * (jnp.abs(raw) + 1 + _EPSILON)) - 1) / (2 * _EPSILON)
        return jnp.sign(raw) * (root**2 - 1)

    def value_loss(self, raw: jax.Array, target: jax.Array) -> jax.Array:
        """Squared error of each value: in units of the bound, or, where there is none, of ``h``."""
        if self.bound is not None:
            return (jnp.tanh(raw) - target / self.bound) ** 2
        scaled = jnp.sign(target) * (jnp.sqrt(jnp.abs(target) + 1) - 1) + _EPSILON * target
        return (raw - scaled) ** 2

    def _layer(self, key: jax.Array, inputs: int, gain: float = 2**0.5) -> Params:
        if self.kind == "mlp":
            return _dense_params(key, inputs, self.hidden, gain)
        weights = _weights(key, 9 * inputs, self.hidden, gain)
        return {"w": weights.reshape(3, 3, inputs, self.hidden), "b": jnp.zeros(self.hidden)}

    def _apply(self, part: Params, x: jax.Array) -> jax.Array:
        if self.kind == "mlp":
            return _dense(part, x)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, part["w"], (1, 1), "SAME", dimension_numbers=numbers) + part["b"]


_HEAD_CHANNELS = 8


def make_network(config: MctxConfig, game: Game) -> Network:
    """The network that a config asks for.

    Raises:
        ConfigError: a resnet for a game without a board.
    """
    board = len(game.observation_shape) == 3
    kind = config.network
    if kind == "auto":
        kind = "resnet" if board and min(game.observation_shape[:2]) >= 5 else "mlp"
    if kind == "resnet" and not board:
        text = f"is resnet, but an observation of {game.name} is no board (shape {game.observation_shape}): take mlp"
        raise ConfigError([Problem("network", text)])
    return Network(
        kind=kind,
        hidden=config.hidden_size or {"mlp": 128, "resnet": 64}[kind],
        blocks=config.num_blocks,
        shape=game.observation_shape,
        actions=game.actions,
        bound=game.bound if game.players == 2 else None,
    )


def _weights(key: jax.Array, inputs: int, outputs: int, gain: float) -> jax.Array:
    return jax.random.normal(key, (inputs, outputs)) * gain / inputs**0.5


def _dense_params(key: jax.Array, inputs: int, outputs: int, gain: float) -> Params:
    return {"w": _weights(key, inputs, outputs, gain), "b": jnp.zeros(outputs)}


def _dense(part: Params, x: jax.Array) -> jax.Array:
    return x @ part["w"] + part["b"]


def _norm_params(size: int) -> Params:
    return {"scale": jnp.ones(size), "offset": jnp.zeros(size)}


def _norm(part: Params, x: jax.Array) -> jax.Array:
    """Layer normalisation over the last axis."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * part["scale"] + part["offset"]


__all__ = ["Network", "Params", "make_network"]
