"""Its policies: loaded from a checkpoint that it left, and played with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mosaic_cluster.conformance.findings import Failed, Finding, NotRun, Warned
from mosaic_cluster.conformance.laboratory import Laboratory
from mosaic_cluster.games import load_policy, make_game, policy_entries
from mosaic_cluster.worker.errors import ConfigError, InvalidInput, MosaicError
from mosaic_cluster.worker.policy import Policy

_STEPS = 12
_BATCH = 3
_NO_GAME = "no_such_game_v0"


def policy(lab: Laboratory) -> None:
    """Its checkpoint is a policy: it acts legally, the same with the same seed, alone and in batches."""
    loaded = _loaded(lab)
    try:
        games = tuple(loaded.games)
        if not games:
            raise Failed("it says that it plays no games", "give it games = (...), by their usual names")
        game = lab.case.policy_game or games[0]
        if game == "*":
            raise NotRun(
                "it plays any game, and none was named", "say policy_game in conformance.json or --config FILE"
            )
        _plays(loaded, game)
    except MosaicError as error:
        raise Failed(f"it failed: {error}", "it must act on what the game gives it") from None
    finally:
        _close(loaded)


def policy_refuses(lab: Laboratory) -> None:
    """A game that its policy does not play is refused when it is loaded."""
    path = _checkpoint(lab)
    try:
        loaded = _load(lab, path, _NO_GAME)
    except InvalidInput:
        return
    except MosaicError as error:
        raise Warned(f"it fails, and does not refuse: {str(error)[:300]}", "use refuse_game: ConfigError") from None
    _close(loaded)
    raise Failed(f"it takes the game {_NO_GAME!r}", "refuse what it does not play: refuse_game(game, games, worker)")


def _plays(loaded: Policy, game: str) -> None:
    try:
        env = make_game(game)
    except ConfigError as error:
        raise NotRun(f"the game cannot be made here: {error}") from None
    try:
        turns = _aec(env) if hasattr(env, "agent_iter") else _single(env)
        loaded.reset(5)
        actions, seen, masks, space = turns(loaded)
        loaded.reset(5)
        again, *_ = turns(loaded)
        if not _same(actions, again):
            raise Failed(f"reset(5) twice, and it acted {actions[:5]}, then {again[:5]}", "seed all that it draws from")
        batch_masks = None if masks[0] is None else np.stack([masks[0]] * _BATCH)
        batch = loaded.act_batch(np.stack([np.asarray(seen[0])] * _BATCH), batch_masks)
        shape = (_BATCH, *np.shape(actions[0]))
        if np.shape(batch) != shape:
            raise Failed(f"act_batch of {_BATCH} gives the shape {np.shape(batch)}, not {shape}", "one row each")
        for action in batch:
            _legal(space, action, masks[0])
    finally:
        env.close()


def _single(env: Any) -> Callable[[Policy], tuple[list[Any], list[Any], list[Any], Any]]:
    def turns(loaded: Policy) -> tuple[list[Any], list[Any], list[Any], Any]:
        observation, info = env.reset(seed=1)
        actions, seen, masks = [], [], []
        for _ in range(_STEPS):
            mask = info.get("action_mask")
            action = loaded.act(observation, mask)
            _legal(env.action_space, action, mask)
            actions.append(action)
            seen.append(observation)
            masks.append(mask)
            observation, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
        return actions, seen, masks, env.action_space

    return turns


def _aec(env: Any) -> Callable[[Policy], tuple[list[Any], list[Any], list[Any], Any]]:
    """It plays the first agent; the others take the first legal action, or a seeded draw where no mask says which."""

    def turns(loaded: Policy) -> tuple[list[Any], list[Any], list[Any], Any]:
        env.reset(seed=1)
        for number, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(number)
        mine = env.possible_agents[0]
        actions, seen, masks = [], [], []
        for agent in env.agent_iter(_STEPS * len(env.possible_agents)):
            observation, _, terminated, truncated, info = env.last()
            if terminated or truncated:
                break
            mask = info.get("action_mask")
            if isinstance(observation, dict) and "action_mask" in observation:
                observation, mask = observation["observation"], observation["action_mask"]
            if agent != mine:
                env.step(int(np.flatnonzero(mask)[0]) if mask is not None else env.action_space(agent).sample())
                continue
            action = loaded.act(observation, mask)
            _legal(env.action_space(agent), action, mask)
            actions.append(action)
            seen.append(observation)
            masks.append(mask)
            env.step(action)
        return actions, seen, masks, env.action_space(mine)

    return turns


def _legal(space: Any, action: Any, mask: Any) -> None:
    if not space.contains(action):
        raise Failed(f"it chose {action!r}, which is no action of {space}", "give the game's own actions")
    if mask is not None and not mask[int(action) - int(getattr(space, "start", 0))]:
        raise Failed(f"it chose {action!r}, which the mask {list(mask)} forbids", "heed the mask")


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _loaded(lab: Laboratory) -> Policy:
    path = _checkpoint(lab)
    try:
        return _load(lab, path, lab.case.policy_game)
    except Finding:
        raise
    except MosaicError as error:
        raise Failed(f"{path} cannot be loaded as a policy: {error}", "load_policy must take what it saved") from None


def _load(lab: Laboratory, path: str, game: str | None) -> Policy:
    return load_policy(lab.case.worker, path, game=game, config=lab.case.config, own_process=True)


def _checkpoint(lab: Laboratory) -> str:
    """The last one of the whole run, for a worker that has policies."""
    entry = next((each for each in policy_entries() if each.name == lab.case.worker), None)
    if entry is None:
        raise NotRun("it registers no policies", "register load_policy under mosaic.policies if it trains any")
    if entry.error is not None:
        raise Failed(entry.error, "look at the entry point mosaic.policies in its pyproject.toml")
    saved = lab.trained.events("checkpoint_saved")
    if not saved:
        raise NotRun("there is no checkpoint to load")
    return str(lab.trained.folder / str(saved[-1]["path"]))


def _close(loaded: Policy) -> None:
    close = getattr(loaded, "close", None)
    if callable(close):
        close()


CHECKS = (policy, policy_refuses)
