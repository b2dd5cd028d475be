"""Environments by their names, and one episode in any of them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_cluster.worker import ConfigError, Problem

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

TURNS = "pettingzoo.classic"
FAMILIES = (TURNS, "mpe2", "pettingzoo.butterfly", "pettingzoo.sisl", "pettingzoo.atari")
"""Packages with PettingZoo environments: one module each, named as the environment is."""

Act = Callable[[str, Any, Any], Any]
"""Called with an agent's name, its observation and its action mask (or ``None``); gives its action."""

ONLY_AGENT = "agent_0"


@dataclass
class Step:
    """What one step brought.

    Attributes:
        rewards: by agent.
        ended: whether it was the last of its episode.
        terminated, truncated: how that ended.
    """

    rewards: dict[str, float] = field(default_factory=dict)
    ended: bool = False
    terminated: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Environment:
    """A built environment behind one interface.

    Attributes:
        api: ``gymnasium``, ``aec`` or ``parallel``.
        agents: names, in the order of the environment.
    """

    env: Any
    api: str
    agents: tuple[str, ...]

    def action_space(self, agent: str) -> Any:
        """Of one agent."""
        return self.env.action_space if self.api == "gymnasium" else self.env.action_space(agent)

    def episode(self, act: Act, seed: int) -> Iterator[Step]:
        """Play one episode; one item for each step that was taken.

        Args:
            act: chooses each action.
            seed: of the environment's randomness.
        """
        return _EPISODES[self.api](self.env, act, seed)

    def close(self) -> None:
        """Let it go."""
        self.env.close()


def make(env_id: str, api: str = "auto", kwargs: Mapping[str, Any] | None = None) -> Environment:
    """Build an environment.

    Args:
        env_id: as Gymnasium or PettingZoo name it.
        api: ``auto``, ``gymnasium``, ``aec`` or ``parallel``.
        kwargs: for its constructor.

    Raises:
        ConfigError: there is no such environment, it does not have that interface, or refuses the keywords.
    """
    family = next((each for each in FAMILIES if _has(each, env_id)), None)
    try:
        if family is None:
            return _gymnasium(env_id, api, kwargs or {})
        if api == "gymnasium":
            raise ConfigError([Problem("api", f"{env_id} is a PettingZoo environment: use aec, parallel or auto")])
        chosen = ("aec" if family == TURNS else "parallel") if api == "auto" else api
        module = importlib.import_module(f"{family}.{env_id}")
        maker = getattr(module, "parallel_env" if chosen == "parallel" else "env", None)
        if maker is None:
            raise ConfigError([Problem("api", f"{env_id} cannot be played as {chosen!r}: use aec")])
        env = maker(**(kwargs or {}))
        return Environment(env, chosen, tuple(env.possible_agents))
    except ConfigError:
        raise
    except Exception as error:  # whatever a constructor says to keywords that it does not like
        words = f"{env_id} cannot be made with {dict(kwargs or {}) or 'no env_kwargs'}: {type(error).__name__}: {error}"
        raise ConfigError([Problem("env_id", words)]) from error


def _gymnasium(env_id: str, api: str, kwargs: Mapping[str, Any]) -> Environment:
    import gymnasium

    if api not in ("auto", "gymnasium"):
        raise ConfigError([Problem("env_id", f"PettingZoo has no {env_id!r}{_nearest(env_id, _pettingzoo_names())}")])
    try:
        env = gymnasium.make(env_id, **kwargs)
    except gymnasium.error.Error as error:
        near = _nearest(env_id, [*gymnasium.registry, *_pettingzoo_names()])
        raise ConfigError([Problem("env_id", f"{env_id!r} cannot be made{near}: {error}")]) from error
    return Environment(env, "gymnasium", (ONLY_AGENT,))


def _has(family: str, name: str) -> bool:
    try:
        return name.isidentifier() and importlib.util.find_spec(f"{family}.{name}") is not None
    except ImportError:
        return False


def _pettingzoo_names() -> list[str]:
    found = []
    for family in FAMILIES:
        try:
            spec = importlib.util.find_spec(family)
        except ImportError:
            continue
        places = list(spec.submodule_search_locations or ()) if spec else []
        found += [each.name for each in pkgutil.iter_modules(places) if "_v" in each.name]
    return found


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _gymnasium_episode(env: Any, act: Act, seed: int) -> Iterator[Step]:
    observation, info = env.reset(seed=seed)
    ended = False
    while not ended:
        action = act(ONLY_AGENT, observation, info.get("action_mask"))
        observation, reward, terminated, truncated, info = env.step(action)
        ended = bool(terminated or truncated)
        yield Step({ONLY_AGENT: float(reward)}, ended, bool(terminated), bool(truncated))


def _aec_episode(env: Any, act: Act, seed: int) -> Iterator[Step]:
    env.reset(seed=seed)
    terminated = truncated = False
    while env.agents:
        agent = env.agent_selection
        observation, _, over, cut, info = env.last()
        if over or cut:
            terminated, truncated = terminated or bool(over), truncated or bool(cut)
            env.step(None)
            continue
        mask = info.get("action_mask")
        if isinstance(observation, Mapping) and "action_mask" in observation:
            observation, mask = observation["observation"], observation["action_mask"]
        env.step(act(agent, observation, mask))
        ended = all(env.terminations[each] or env.truncations[each] for each in env.agents)
        yield Step(
            {each: float(reward) for each, reward in env.rewards.items()},
            ended,
            any(env.terminations.values()),
            any(env.truncations.values()),
        )


def _parallel_episode(env: Any, act: Act, seed: int) -> Iterator[Step]:
    observations, infos = env.reset(seed=seed)
    while env.agents:
        actions = {
            agent: act(agent, observations[agent], infos.get(agent, {}).get("action_mask")) for agent in env.agents
        }
        observations, rewards, terminations, truncations, infos = env.step(actions)
        yield Step(
            {agent: float(reward) for agent, reward in rewards.items()},
            not env.agents,
            any(terminations.values()),
            any(truncations.values()),
        )


_EPISODES: dict[str, Callable[[Any, Act, int], Iterator[Step]]] = {
    "gymnasium": _gymnasium_episode,
    "aec": _aec_episode,
    "parallel": _parallel_episode,
}


__all__ = ["Act", "Environment", "Step", "make"]
