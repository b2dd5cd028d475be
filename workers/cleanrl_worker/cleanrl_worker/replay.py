"""Storage of transitions for the algorithms that learn from old ones. How they draw from it is their business."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cleanrl_worker.session import TrainingError


class ReplayBuffer:
    """The newest ``capacity`` transitions. A full buffer overwrites its oldest row.

    Memory is taken as rows are filled: a large capacity costs a short run nothing.

    Args:
        capacity: rows.
        observation_size: D, entries of an observation.
        action_shape: of one action: ``()`` for the number of a discrete one, ``(A,)`` for a vector.
        action_dtype: ``int64`` or ``float32``.

    Attributes:
        obs, next_obs: (capacity, D) float32. ``next_obs`` is the true successor, never the first state of a
            new episode.
        actions: (capacity, *action_shape).
        rewards: (capacity,) float32.
        terminated: (capacity,) bool: nothing comes after ``next_obs``, its value is 0. An episode that was
            cut short is not terminated: its last state has a value.
    """

    FIELDS = ("obs", "next_obs", "actions", "rewards", "terminated")

    def __init__(self, capacity: int, observation_size: int, action_shape: tuple[int, ...], action_dtype: Any) -> None:
        self.capacity = capacity
        self.obs = np.zeros((capacity, observation_size), dtype=np.float32)
        self.next_obs = np.zeros((capacity, observation_size), dtype=np.float32)
        self.actions = np.zeros((capacity, *action_shape), dtype=action_dtype)
        self.rewards = np.zeros(capacity, dtype=np.float32)
        self.terminated = np.zeros(capacity, dtype=np.bool_)
        self._filled = 0
        self._next = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, **columns: np.ndarray[Any, Any]) -> None:
        """Take N transitions, one of each environment: an array (N, ...) for every one of ``FIELDS``."""
        count = len(columns["rewards"])
        rows = (self._next + np.arange(count)) % self.capacity
        for name in self.FIELDS:
            getattr(self, name)[rows] = columns[name]
        self._next = (self._next + count) % self.capacity
        self._filled = min(self._filled + count, self.capacity)

    def rows(self, chosen: np.ndarray[Any, Any], device: torch.device) -> list[torch.Tensor]:
        """Some rows, as tensors in the order of ``FIELDS``.

        Args:
            chosen: (M,) numbers of rows, each less than ``len(self)``.
            device: where they go.
        """
        return [torch.from_numpy(getattr(self, name)[chosen]).to(device) for name in self.FIELDS]

    def state_dict(self) -> dict[str, Any]:
        """The filled rows as tensors, and where the next one goes."""
        content = {name: torch.from_numpy(getattr(self, name)[: self._filled].copy()) for name in self.FIELDS}
        return {**content, "capacity": self.capacity, "next": self._next}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take saved rows: at their old places where the capacity is the same, else the newest that fit.

        Raises:
            TrainingError: they are rows of another environment.
        """
        for name in self.FIELDS:
            if saved[name].shape[1:] != getattr(self, name).shape[1:]:
                raise TrainingError(
                    f"the checkpoint's replay buffer holds {name} of shape {tuple(saved[name].shape[1:])}; those "
                    f"of this environment have {getattr(self, name).shape[1:]}. Resume with the environment that "
                    "it was made with."
                )
        count = len(saved["rewards"])
        same = saved["capacity"] == self.capacity
        self._filled = min(count, self.capacity)
        self._next = saved["next"] if same else self._filled % self.capacity
        # From the oldest row to the newest: a full ring's oldest is the one to be overwritten next.
        oldest = saved["next"] if count == saved["capacity"] else 0
        by_age = (oldest + np.arange(count)) % max(count, 1)
        order = np.arange(count) if same else by_age[count - self._filled :]
        for name in self.FIELDS:
            getattr(self, name)[: self._filled] = saved[name].numpy()[order]


__all__ = ["ReplayBuffer"]
