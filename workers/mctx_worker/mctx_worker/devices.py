"""Where JAX computes; to be settled before anything of JAX or pgx is used, since importing pgx makes arrays."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from mosaic_cluster.worker import ConfigError, Problem

LOGGER = logging.getLogger(__name__)


def choose_device(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """Settle where JAX computes.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where JAX sees one.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda``, and JAX sees no GPU.
    """
    import jax

    logging.getLogger("jax").setLevel(logging.WARNING)  # that a machine has no TPU is no news
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return "cpu"
    seen = jax.default_backend()
    if seen != "cpu":
        return "cuda"
    if device == "cuda":
        text = "is cuda, but JAX sees no GPU here: ask for one (resources), or set device to cpu"
        raise ConfigError([Problem("device", text)])
    if environ.get("CUDA_VISIBLE_DEVICES", "").strip():
        LOGGER.warning("a GPU is granted, but the JAX of this environment is for CPUs: set device to cuda")
    return "cpu"


__all__ = ["choose_device"]
