"""Games by their names, as Gymnasium and PettingZoo have them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
from typing import Any

from mosaic_cluster.worker.errors import ConfigError, Problem

FAMILIES = ("pettingzoo.classic", "mpe2", "pettingzoo.butterfly", "pettingzoo.sisl", "pettingzoo.atari")
"""Packages with PettingZoo games: one module each, named as the game is."""

_INSTALL = "pip install 'mosaic-cluster[games]'"


def make_game(name: str, **options: Any) -> Any:
    """A Gymnasium environment (``CartPole-v1``), or a PettingZoo game to be played in turns (``connect_four_v3``).

    Args:
        name: as Gymnasium or PettingZoo have it.
        options: for its constructor.

    Returns:
        a ``gymnasium.Env`` or a ``pettingzoo.AECEnv``, which its caller closes.

    Raises:
        ConfigError: there is no such game, it refuses the options, or its library is not installed.
    """
    return _made(name, "env", options)


def make_parallel_game(name: str, **options: Any) -> Any:
    """A PettingZoo game in which all agents act at once (``simple_spread_v3``).

    Returns:
        a ``pettingzoo.ParallelEnv``, which its caller closes.

    Raises:
        ConfigError: there is no such game, it is played in turns only, refuses the options, or its library is not
            installed.
    """
    return _made(name, "parallel_env", options)


def _made(name: str, constructor: str, options: dict[str, Any]) -> Any:
    # What pygame, on which many are built, would print; and it must not look for a screen.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    family = _family(name)
    try:
        if family is None:
            return _gymnasium(name, constructor, options)
        module = importlib.import_module(f"{family}.{name}")
        maker = getattr(module, constructor, None)
        if maker is None and not hasattr(module, "env"):  # a module that games lie in
            raise _refused(f"there is no game {name!r}{_hint(name)}")
        if maker is None:
            raise _refused(f"{name} is played in turns only: make_game({name!r}) makes it")
        return maker(**options)
    except ImportError as error:
        raise _refused(f"{name} needs what is not installed ({error}): {_INSTALL}") from error
    except (TypeError, AssertionError) as error:
        raise _refused(f"{name} cannot be made: {error}") from error


def _gymnasium(name: str, constructor: str, options: dict[str, Any]) -> Any:
    import gymnasium

    hint = _hint(name)
    if constructor != "env":
        raise _refused(f"PettingZoo has no {name!r}{hint}")
    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.Error as error:
        raise _refused(f"there is no game {name!r}{hint} ({error})") from error


def _hint(name: str) -> str:
    import gymnasium

    near = difflib.get_close_matches(name, [*gymnasium.registry, *_names()], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _family(name: str) -> str | None:
    for family in FAMILIES:
        try:
            if name.isidentifier() and importlib.util.find_spec(f"{family}.{name}") is not None:
                return family
        except ImportError:
            continue
    return None


def _names() -> list[str]:
    found = []
    for family in FAMILIES:
        try:
            spec = importlib.util.find_spec(family)
        except ImportError:
            continue
        places = list(spec.submodule_search_locations or ()) if spec else []
        found += [each.name for each in pkgutil.iter_modules(places) if "_v" in each.name]
    return found


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("game", message)])
