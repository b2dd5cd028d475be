"""Handing a checkpoint from one run of an experiment to another, wherever the experiment is."""

from __future__ import annotations

from mosaic_cluster.runtime.backend import Origin
from mosaic_cluster.runtime.checkpoints import Checkpoint, checkpoint_at, copy_checkpoint, last_checkpoint
from mosaic_cluster.runtime.saved import Saved, copy_saved, saved_checkpoints, stored_at
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import StorageError

Found = Checkpoint | Saved


class Copying:
    """Finds a run's checkpoint and copies it to another run.

    Args:
        experiment: the experiment's folder in storage.
    """

    def __init__(self, experiment: Storage) -> None:
        self._experiment = experiment

    def find(self, run_id: str, before: int, at: int, origin: Origin | None) -> Found | None:
        """What a run's attempts before ``before`` saved at step ``at`` or soonest after it, else its last one.

        What it saved before it went on from its own ``origin`` does not count. ``None``: there is none since.
        """
        since = origin.attempt if origin else 1
        if self._experiment.is_local:
            folder = self._experiment.local_path / "runs" / run_id
            return checkpoint_at(folder, before, at, since) or last_checkpoint(folder, before, since)
        run = self._run(run_id)
        saved = [each for attempt in range(since, before) for each in saved_checkpoints(run, attempt)]
        late = [each for each in saved if each.step >= at]
        if late:  # of the same step, the later one, as in checkpoint_at
            return min(late, key=lambda each: (each.step, -each.attempt))
        return saved[-1] if saved else None

    def copy(self, found: Found | None, origin: Origin | None, source: str, target: str, label: str) -> str:
        """Copy what :meth:`find` found of the run ``source`` to the run ``target``, or else what that began from.

        Returns:
            The copy's path: absolute, or relative to the target's folder if that is in an object store.

        Raises:
            OSError, StorageError: it cannot be copied.
        """
        if found is None and origin is None:
            raise StorageError(f"run {source} has no checkpoint")
        if isinstance(found, Checkpoint):
            return copy_checkpoint(found, self._experiment.local_path / "runs" / target, label)
        if found is None:
            assert origin is not None
            if self._experiment.is_local:
                return origin.path
            found = stored_at(self._run(source), origin.path, origin.step, origin.attempt)
        return copy_saved(self._run(source), found, self._run(target), label)

    def _run(self, run_id: str) -> Storage:
        return self._experiment.at(f"runs/{run_id}")
