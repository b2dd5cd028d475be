"""What a trained worker leaves to play with: a policy, loaded from a checkpoint.

A worker's distribution registers a loader::

    [project.entry-points."mosaic.policies"]
    my_worker = "my_worker.policy:load_policy"

    def load_policy(checkpoint, *, game=None, agent=None, device="cpu", **options): ...

The canonical interface of a game is its PettingZoo (or Gymnasium) observation, action and action mask. A policy
adapts inside itself; a game that it does not play is refused when it is loaded, never approximated.
"""

from __future__ import annotations

from typing import Any, Optional, Protocol, Tuple, runtime_checkable

from mosaic_cluster.worker.errors import ConfigError, Problem

POLICY_ENTRY_POINT_GROUP = "mosaic.policies"


@runtime_checkable
class Policy(Protocol):
    """Acts in games, by their canonical observations.

    Attributes:
        games: names of the games it plays, as Gymnasium and PettingZoo have them: ``"CartPole-v1"``,
            ``"connect_four_v3"``, ``"simple_spread_v3"``; ``("*",)``: any.
    """

    games: Tuple[str, ...]

    def reset(self, seed: Optional[int] = None) -> None:
        """Begin new episodes: what is remembered of earlier ones is forgotten.

        Args:
            seed: of the policy's own randomness; ``None`` goes on with what it has.
        """
        ...

    def act(self, observation: Any, action_mask: Optional[Any] = None) -> Any:
        """The action for one observation.

        Args:
            observation: of the game's observation space; for PettingZoo's ``{"observation": ..., "action_mask":
                ...}`` its ``observation`` alone.
            action_mask: shape (number of actions,), 1 where an action is legal; ``None``: all are.

        Returns:
            an action of the game's action space: an int for Discrete, an array for Box.
        """
        ...

    def act_batch(self, observations: Any, action_masks: Optional[Any] = None) -> Any:
        """Actions of many environments at once; row *i* of each call is environment *i*.

        Args:
            observations: shape (environments, ...).
            action_masks: shape (environments, number of actions), or ``None``.

        Returns:
            shape (environments, ...).
        """
        ...


def refuse_game(game: Optional[str], plays: Tuple[str, ...], worker: str) -> None:
    """Refuse a game that a policy does not play; to be called by loaders.

    Raises:
        ConfigError: ``game`` is not among ``plays``.
    """
    if game is not None and "*" not in plays and game not in plays:
        known = ", ".join(plays) or "none"
        raise ConfigError([Problem("game", f"a policy of {worker} does not play {game!r}; this one plays {known}")])


__all__ = ["POLICY_ENTRY_POINT_GROUP", "Policy", "refuse_game"]
