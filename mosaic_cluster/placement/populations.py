"""Agents that are more than one worker serves, split over several."""

from __future__ import annotations


def split_agents(total: int, max_agents: int) -> tuple[int, ...]:
    """Split a population evenly over as few workers as serve it.

    Args:
        total: agents, 1 or more.
        max_agents: agents that one worker serves at most, 1 or more.

    Returns:
        Agents of each worker: as even as can be, the larger ones first, ``total`` in all.

    Raises:
        ValueError: an argument is below 1.
    """
    if total < 1 or max_agents < 1:
        raise ValueError(f"cannot split {total} agents by {max_agents}: give 1 or more of each")
    workers = -(-total // max_agents)
    least, more = divmod(total, workers)
    return (least + 1,) * more + (least,) * (workers - more)
