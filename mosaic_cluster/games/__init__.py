"""Games by their names, policies from checkpoints, and playing the one with the other.

The canonical interface of a game is its PettingZoo (or Gymnasium) observation, action and action mask.
"""

from __future__ import annotations

from mosaic_cluster.games.building import make_game, make_parallel_game
from mosaic_cluster.games.interactive import InteractivePolicy
from mosaic_cluster.games.loading import PolicyEntry, load_policy, policy_entries
from mosaic_cluster.games.playing import Episode, Match, play

__all__ = [
    "Episode",
    "InteractivePolicy",
    "Match",
    "PolicyEntry",
    "load_policy",
    "make_game",
    "make_parallel_game",
    "play",
    "policy_entries",
]
