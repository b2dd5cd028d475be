"""Sweeps on simulated runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulation import Clock, SimBackend

from mosaic_cluster.catalog import Catalog, WorkerEntry
from mosaic_cluster.experiments import conductor as conductor_module
from mosaic_cluster.experiments import launching
from mosaic_cluster.experiments.conductor import Conductor
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.launching import launch, prepare, resume
from mosaic_cluster.worker import WorkerCapabilities


class FakeCatalog(Catalog):
    """Knows the curves worker without asking anybody."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__()
        told = {"supports_checkpointing": True, "supports_pause_resume": True, **capabilities}
        self._capabilities = WorkerCapabilities(worker_type="curves", **told)

    def get(self, name: str) -> WorkerEntry:
        return WorkerEntry(name, "x:y", "x", "1", "x", "python", capabilities=self._capabilities)

    def check_configs(self, entry: WorkerEntry, configs: Any) -> list[list[Any]]:
        del entry
        return [[] for _ in configs]


class Killed(Exception):
    """The driver died."""


class Sweeps:
    """Runs sweeps in virtual time.

    Args:
        folder: results go below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.catalog = FakeCatalog()
        self.conductor: Conductor | None = None
        self.backend = SimBackend(self.clock)

    def spec(self, **changes: Any) -> dict[str, Any]:
        """A spec; ``None`` takes a key out."""
        base: dict[str, Any] = {
            "kind": "sweep",
            "name": "sim",
            "worker": "curves",
            "config": {"steps": 9},
            "space": {"quality": {"choice": [1, 2, 3, 4, 5, 6]}},
            "search": "grid",
            "seeds": [1, 2],
            "metric": {"name": "score", "at": [1, 3, 9]},
            "storage": str(self.folder),
        }
        return {key: value for key, value in {**base, **changes}.items() if value is not None}

    def run(
        self,
        *,
        slots: int = 4,
        die_at: int | None = None,
        arrange: Callable[[SimBackend], None] | None = None,
        **changes: Any,
    ) -> Conductor:
        """Run a sweep to its end, or until the driver dies before it writes journal entry ``die_at``."""
        self.backend = SimBackend(self.clock, slots)
        if arrange is not None:
            arrange(self.backend)
        prepared = prepare(self.spec(**changes), self.catalog)
        return self._drive(lambda: launch(prepared, self.backend, clock=self.clock), die_at)

    def resume(self, home: ExperimentHome, *, die_at: int | None = None, slots: int = 4, **more: Any) -> Conductor:
        """Take a sweep up again."""
        self.backend = SimBackend(self.clock, slots)
        return self._drive(lambda: resume(home, self.catalog, self.backend, clock=self.clock, **more), die_at)

    def _drive(self, begin: Callable[[], Conductor], die_at: int | None) -> Conductor:
        with pytest.MonkeyPatch.context() as patch:
            if die_at is not None:
                append = conductor_module.Journal.append

                def dying(journal: Any, kind: str, **data: Any) -> None:
                    if journal._next >= die_at:
                        raise Killed
                    append(journal, kind, **data)

                patch.setattr(conductor_module.Journal, "append", dying)
            self.conductor = begin()
            self.conductor.run_to_end()
        return self.conductor

    def homes(self) -> list[ExperimentHome]:
        """Experiments there are."""
        from mosaic_cluster.experiments.home import experiments_in
        from mosaic_cluster.storage import Storage

        return experiments_in(Storage.open(self.folder))


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """Simulated sweeps whose drivers count as dead as soon as they stop."""
    gone = {"host": conductor_module.socket.gethostname(), "pid": 1, "process_started": 0.0}
    monkeypatch.setattr(conductor_module, "driver_identity", lambda: gone)
    monkeypatch.setattr(launching, "driver_identity", lambda: gone)
    monkeypatch.setattr(launching, "provenance", lambda *_: {})
    return Sweeps(tmp_path)
