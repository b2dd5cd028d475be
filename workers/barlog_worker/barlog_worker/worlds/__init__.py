"""The worlds: games told as text, one file each.

A world is found by its name in :data:`HOMES` and is imported when it is first asked for; what its library needs is
imported with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from barlog_worker.worlds.base import Action, Demonstration, Game, Observation, World

if TYPE_CHECKING:
    from pathlib import Path

    from barlog_worker.config import BarlogConfig

HOMES = {
    "babyai": "barlog_worker.worlds.babyai:BabyAI",
    "crafter": "barlog_worker.worlds.crafter:Crafter",
    "textworld": "barlog_worker.worlds.textworld:TextWorld",
    "nethack": "barlog_worker.worlds.nethack:NetHack",
}


def open_world(name: str, config: BarlogConfig, folder: Path) -> World:
    """A world, ready to make games.

    Args:
        name: one of :data:`HOMES`.
        config: the run's.
        folder: where it may leave files, such as games that it makes.

    Raises:
        ConfigError: its library is not installed here, or a task of the config is not known to it.
    """
    from mosaic_cluster.worker import ConfigError, Problem

    module, _, cls = HOMES[name].partition(":")
    try:
        made: Any = getattr(import_module(module), cls)(config, folder)
    except ImportError as error:
        words = (
            f"{name} cannot be played here, {error}; build the worker's environment with `mosaic workers install "
            "barlog`, or leave this world out"
        )
        raise ConfigError([Problem("worlds", words)]) from error
    return made


__all__ = ["HOMES", "Action", "Demonstration", "Game", "Observation", "World", "open_world"]
