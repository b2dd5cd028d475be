"""Datasets of transitions: Parquet files, read into memory, and written by a trained policy.

Columns, one row a transition, in the order they were made: ``episode`` (int), ``observation`` (list of float32, as
encoded), ``action`` (list of numbers, in the environment's own units), ``reward`` (float), ``terminated``,
``truncated`` (bool), and ``next_observation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gymnasium import spaces
from ray.rllib.algorithms.marwil.marwil import MARWILConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.utils import flatten_dict
from ray.rllib.utils.spaces.space_utils import normalize_action

COLUMNS = ("episode", "observation", "action", "reward", "terminated", "truncated", "next_observation")
UPDATES = 20
"""Gradient steps between two looks at whether to go on."""


class BadDataset(ValueError):
    """A dataset that cannot be learned from."""


def read_transitions(path: str) -> dict[str, np.ndarray]:
    """All transitions of a file, or of all files in a folder, by column.

    Raises:
        BadDataset: it is not there, is empty, or lacks columns.
    """
    place = Path(path)
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    if not files or not all(file.is_file() for file in files):
        raise BadDataset(f"{path} is neither a Parquet file nor a folder with some")
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise BadDataset(f"{path} cannot be read: {error}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing or not table.num_rows:
        what = f"lacks the columns {', '.join(missing)}" if missing else "holds no transitions"
        raise BadDataset(f"{path} {what}; it must have {', '.join(COLUMNS)}")
    found = {}
    for name in COLUMNS:
        column = table.column(name).combine_chunks()
        wide = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        found[name] = np.stack(column.to_numpy(zero_copy_only=False)) if wide else column.to_numpy(zero_copy_only=False)
    return found


def write_transitions(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write transitions, each with the columns of :data:`COLUMNS`, as one file that appears whole."""
    floats = pa.list_(pa.float32())
    schema = pa.schema(
        {
            "episode": pa.int64(),
            "observation": floats,
            "action": pa.list_(pa.float64()),
            "reward": pa.float64(),
            "terminated": pa.bool_(),
            "truncated": pa.bool_(),
            "next_observation": floats,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), staged, compression="zstd")
    staged.replace(path)


def check_dataset(path: str, observation_space: spaces.Box, action_space: spaces.Space[Any]) -> int:
    """Whether a dataset is of such an environment.

    Returns:
        Number of its transitions.

    Raises:
        BadDataset: it is not, or it cannot be read.
    """
    data = read_transitions(path)
    width, wanted = data["observation"].shape[1], int(np.prod(observation_space.shape))
    if width != wanted:
        raise BadDataset(f"{path} has observations of {width} numbers, the environment's have {wanted}")
    actions = data["action"].reshape(len(data["action"]), -1)
    if isinstance(action_space, spaces.Discrete):
        low, high = int(action_space.start), int(action_space.start + action_space.n) - 1
        if actions.shape[1] != 1 or actions.min() < low or actions.max() > high:
            raise BadDataset(f"{path} has actions other than the environment's {low} to {high}")
    elif actions.shape[1] != int(np.prod(action_space.shape or (1,))):
        raise BadDataset(f"{path} has actions of {actions.shape[1]} numbers, not of {action_space}")
    return len(actions)


class Dataset(OfflineData):
    """Transitions in memory, for a learner in this process.

    MARWIL is given whole episodes, since it weighs by what followed; the others single transitions.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.is_multi_agent = False
        self.iter_batches_kwargs: dict[str, Any] = {}
        # RLlib's Algorithm fills these in.
        self.spaces: Any = None
        self.module_spec: Any = None
        self.learner_handles: Any = None
        self.locality_hints = None
        self._data = read_transitions(config.input_[0])
        self._random = np.random.default_rng(config.seed)
        self._whole = isinstance(config, MARWILConfig) and config.beta > 0.0
        ends = np.flatnonzero(np.diff(self._data["episode"])) + 1
        self._bounds = list(zip([0, *ends], [*ends, len(self._data["episode"])], strict=True))
        self._episodes: list[SingleAgentEpisode] = []
        self._connector: Any = None

    def sample(self, num_samples: int, return_iterator: bool = False, num_shards: int = 1) -> Any:
        """An endless iterator of batches; see RLlib's ``OfflineData``."""
        del num_samples, num_shards
        if not return_iterator:
            raise NotImplementedError("batches are only given one after another: dataset_num_iters_per_learner > 1")
        return [self]

    def iter_torch_batches(self, *, batch_size: int, device: Any = None, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Batches as the learner takes them, for ever."""
        del kwargs
        learner = self.learner_handles[0]
        # Of one environment: what RLlib says of an env runner's are those of many side by side.
        observation_space, action_space = self.config.observation_space, self.config.action_space
        if self._connector is None:
            self._episodes = [self._episode(*bounds, observation_space, action_space) for bounds in self._bounds]
            self._connector = self.config.build_learner_connector(
                input_observation_space=observation_space, input_action_space=action_space, device=device
            )
        while True:
            batch = self._connector(
                rl_module=learner.module, batch={}, episodes=self._drawn(batch_size), shared_data={}, metrics=None
            )
            yield flatten_dict(batch)

    def _drawn(self, count: int) -> list[SingleAgentEpisode]:
        if not self._whole:
            rows = self._random.integers(len(self._data["episode"]), size=count)
            starts = np.asarray([begin for begin, _ in self._bounds])
            episodes = np.searchsorted(starts, rows, side="right") - 1
            return [self._episodes[each][row - starts[each] : row - starts[each] + 1]
                    for each, row in zip(episodes, rows, strict=True)]  # fmt: skip
        drawn: list[SingleAgentEpisode] = []
        while sum(map(len, drawn)) < count:
            # A copy: what the learner's connectors add to it must not stay.
            drawn.append(self._episodes[self._random.integers(len(self._episodes))][:])
        return drawn

    def _episode(self, begin: int, end: int, observation_space: Any, action_space: Any) -> SingleAgentEpisode:
        data = {name: column[begin:end] for name, column in self._data.items()}
        seen = np.concatenate([data["observation"], data["next_observation"][-1:]]).astype(np.float32)
        if isinstance(action_space, spaces.Discrete):
            actions: Any = data["action"].reshape(-1).astype(np.int64)
        else:
            # Networks act in [-1, 1] where actions have bounds.
            own = data["action"].reshape(-1, *action_space.shape).astype(action_space.dtype)
            actions = np.stack([normalize_action(each, action_space) for each in own])
        return SingleAgentEpisode(
            observations=list(seen.reshape(-1, *observation_space.shape)),
            observation_space=observation_space,
            actions=list(actions),
            action_space=action_space,
            rewards=[float(each) for each in data["reward"]],
            terminated=bool(data["terminated"][-1]),
            truncated=not data["terminated"][-1],
            len_lookback_buffer=0,
        ).to_numpy()


__all__ = ["COLUMNS", "BadDataset", "Dataset", "check_dataset", "read_transitions", "write_transitions"]
