"""XuanCe's 52 algorithms, for one agent and for several, as a MOSAIC worker.

Importing this package imports neither XuanCe nor torch: names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
    from xuance_worker.config import XuanCeConfig, load_worker_config
    from xuance_worker.policy import load_policy
    from xuance_worker.runtime import XuanCeRuntime

__version__ = "0.1.0"

UPSTREAM_VERSION = "1.4.4"
"""The release of XuanCe that this is written for, and that its environment has."""

_HOMES = {
    "XuanCeConfig": "xuance_worker.config",
    "XuanCeRuntime": "xuance_worker.runtime",
    "load_policy": "xuance_worker.policy",
    "load_worker_config": "xuance_worker.config",
}


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

    metadata = WorkerMetadata(
        name="XuanCe worker",
        version=__version__,
        description="XuanCe's algorithms for one agent and several, on Gymnasium, particle worlds and your games",
        author="MOSAIC cluster contributors",
        homepage="https://github.com/agi-brain/xuance",
        upstream_library="xuance",
        upstream_version=UPSTREAM_VERSION,
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="xuance",
        supported_paradigms=("sequential", "simultaneous", "parameter_sharing", "independent", "shared_value_function"),
        env_families=("gymnasium", "pettingzoo"),
        action_spaces=("discrete", "continuous"),
        observation_spaces=("vector", "discrete"),
        max_agents=64,
        supports_self_play=False,
        supports_population=False,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=1,
        estimated_memory_mb=1200,
    )
    return metadata, capabilities


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "UPSTREAM_VERSION",
    "XuanCeConfig",
    "XuanCeRuntime",
    "__version__",
    "get_worker_metadata",
    "load_policy",
    "load_worker_config",
]
