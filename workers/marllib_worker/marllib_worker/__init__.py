"""Multi-agent reinforcement learning with MARLlib, or with BenchMARL, as a MOSAIC worker.

Importing this package imports neither: names are loaded when they are first asked for, so that discovery and config
checks need no library. Python 3.8 source: MARLlib's interpreter is old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

    from marllib_worker.config import MarllibConfig, load_worker_config
    from marllib_worker.runtime import MarllibRuntime

__version__ = "0.1.0"

_HOMES = {
    "MarllibConfig": "marllib_worker.config",
    "MarllibRuntime": "marllib_worker.runtime",
    "load_worker_config": "marllib_worker.config",
}


def get_worker_metadata() -> Tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

    metadata = WorkerMetadata(
        name="MARLlib worker",
        version=__version__,
        description="17 multi-agent algorithms (independent, centralised critic, value decomposition) of MARLlib, "
        "9 of them also by BenchMARL",
        author="MOSAIC cluster contributors",
        homepage="https://github.com/Replicable-MARL/MARLlib",
        upstream_library="marllib",
        upstream_version="1.0.3",
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="marllib",
        supported_paradigms=("independent", "centralized_critic", "value_decomposition", "parameter_sharing"),
        env_families=("pettingzoo", "mpe"),
        action_spaces=("discrete", "continuous"),
        observation_spaces=("vector",),
        max_agents=16,
        supports_self_play=False,
        supports_population=False,
        supports_checkpointing=True,
        # BenchMARL may be frozen for as long as one likes; whether Ray 1.8 outlives a long freeze was not tried.
        supports_pause_resume=False,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=1,
        estimated_memory_mb=2048,
    )
    return metadata, capabilities


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["MarllibConfig", "MarllibRuntime", "__version__", "get_worker_metadata", "load_worker_config"]
