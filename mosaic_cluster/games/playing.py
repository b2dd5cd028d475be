"""Policies against each other, in a game that two play in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.games.building import make_game
from mosaic_cluster.worker.errors import ConfigError, PolicyError, Problem
from mosaic_cluster.worker.policy import Policy

PLAYERS = 2


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        seed: of the game.
        seats: which agent of the game each policy was, in the policies' order.
        rewards: what each policy got in all, in the policies' order.
        moves: how many were made.
        truncated: whether it was cut off.
    """

    seed: int
    seats: tuple[str, ...]
    rewards: tuple[float, ...]
    moves: int
    truncated: bool = False

    @property
    def winner(self) -> int | None:
        """Index of the policy that got more; ``None``: a draw."""
        first, second = self.rewards
        return None if first == second else int(second > first)


@dataclass(frozen=True)
class Match:
    """Episodes of the same two policies.

    Attributes:
        game: its name.
        episodes: in the order in which they were played.
    """

    game: str
    episodes: tuple[Episode, ...]

    def wins(self, policy: int = 0) -> int:
        """Episodes in which the policy of that index got more than the other."""
        return sum(each.winner == policy for each in self.episodes)

    @property
    def draws(self) -> int:
        """Episodes in which both got the same."""
        return sum(each.winner is None for each in self.episodes)

    def mean_reward(self, policy: int = 0) -> float:
        """Of all episodes."""
        return statistics.fmean(each.rewards[policy] for each in self.episodes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "game": self.game,
            "episodes": len(self.episodes),
            "wins": [self.wins(0), self.wins(1)],
            "draws": self.draws,
            "mean_rewards": [self.mean_reward(0), self.mean_reward(1)],
        }


def play(
    policies: Sequence[Policy],
    game: str,
    episodes: int,
    seed: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
) -> Match:
    """Let two policies play a game in turns; they change seats after each episode.

    Episode *i* is played with the seed ``seed + i``; each policy is reset with one made of that and its index. The
    same policies, game and seed give the same match, if the policies keep to their seeds.

    Args:
        policies: two.
        game: name of a PettingZoo game of two agents.
        episodes: at least 1; an even number gives each the first seat as often.
        seed: at least 0.
        options: for the game's constructor.

    Raises:
        ConfigError: these policies cannot play that, or a policy does not play this game.
        PolicyError: a policy failed, or chose an action that its mask does not allow or the game does not have.
    """
    _check(policies, game, episodes, seed)
    env = make_game(game, **(options or {}))
    try:
        agents = getattr(env, "possible_agents", ())
        if len(agents) != PLAYERS or not hasattr(env, "agent_iter"):
            raise ConfigError(
                [Problem("game", f"{game} is no game that two play in turns: it has {len(agents)} agents")]
            )
        played = []
        for number in range(episodes):
            order = (0, 1) if number % PLAYERS == 0 else (1, 0)
            played.append(_episode(env, [policies[index] for index in order], order, seed + number))
        return Match(game, tuple(played))
    finally:
        env.close()


def _check(policies: Sequence[Policy], game: str, episodes: int, seed: int) -> None:
    problems = []
    if len(policies) != PLAYERS:
        problems.append(Problem("policies", f"must be two, not {len(policies)}"))
    elif policies[0] is policies[1]:
        problems.append(Problem("policies", "must be two objects: one cannot keep two seats apart"))
    for index, each in enumerate(policies):
        games = tuple(each.games)
        if "*" not in games and game not in games:
            problems.append(
                Problem(f"policies[{index}]", f"does not play {game!r}; it plays {', '.join(games) or 'none'}")
            )
    if episodes < 1:
        problems.append(Problem("episodes", f"must be at least 1, not {episodes}"))
    if seed < 0:
        problems.append(Problem("seed", f"must be at least 0, not {seed}"))
    if problems:
        raise ConfigError(problems)


def _episode(env: Any, seated: Sequence[Policy], order: Sequence[int], seed: int) -> Episode:
    """Args: seated: policies by seat; order: their indices."""
    env.reset(seed=seed)
    agents = list(env.possible_agents)
    for policy, index in zip(seated, order, strict=True):
        policy.reset(seed * PLAYERS + index)
    by_agent = dict(zip(agents, seated, strict=True))
    rewards = dict.fromkeys(agents, 0.0)
    moves, cut = 0, False
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, info = env.last()
        rewards[agent] += float(reward)
        cut = cut or bool(truncated)
        if terminated or truncated:
            env.step(None)
            continue
        mask = info.get("action_mask")
        if isinstance(observation, Mapping) and "action_mask" in observation:
            observation, mask = observation["observation"], observation["action_mask"]
        action = by_agent[agent].act(observation, mask)
        _check_legal(env.action_space(agent), action, mask, agent)
        env.step(action)
        moves += 1
    seats = sorted(zip(order, agents, strict=True))
    return Episode(seed, tuple(agent for _, agent in seats), tuple(rewards[agent] for _, agent in seats), moves, cut)


def _check_legal(space: Any, action: Any, mask: Any, agent: str) -> None:
    """An illegal move would count as a lost game, and hide that the policy is broken."""
    if not space.contains(action):
        raise PolicyError(f"the policy of {agent} chose {action!r}, which is no action of {space}")
    if mask is not None and not mask[int(action) - int(getattr(space, "start", 0))]:
        legal = [index for index, allowed in enumerate(mask) if allowed]
        raise PolicyError(f"the policy of {agent} chose {action!r}, which is illegal here; legal are {legal}")
