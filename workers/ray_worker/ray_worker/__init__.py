"""Ray RLlib as a MOSAIC worker.

Importing this package imports neither Ray nor torch: names are loaded when they are first asked for, so that
discovery and config checks are quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
    from ray_worker.config import RayConfig, load_worker_config
    from ray_worker.policy import RayPolicy, load_policy
    from ray_worker.runtime import RayRuntime

__version__ = "0.1.0"

_HOMES = {
    "RayConfig": "ray_worker.config",
    "RayPolicy": "ray_worker.policy",
    "RayRuntime": "ray_worker.runtime",
    "load_policy": "ray_worker.policy",
    "load_worker_config": "ray_worker.config",
}


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata, installed_version

    metadata = WorkerMetadata(
        name="Ray RLlib worker",
        version=__version__,
        description="PPO, APPO, IMPALA, DQN, SAC, BC, CQL, MARWIL and DreamerV3 of RLlib, single- and multi-agent",
        author="MOSAIC cluster contributors",
        homepage="https://docs.ray.io/en/latest/rllib/index.html",
        upstream_library="ray[rllib]",
        upstream_version=installed_version("ray"),
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="ray",
        supported_paradigms=("sequential", "parameter_sharing", "independent", "self_play", "shared_value_function"),
        env_families=("gymnasium", "pettingzoo"),
        action_spaces=("discrete", "continuous", "multi_discrete"),
        observation_spaces=("vector", "discrete", "image", "dict"),
        max_agents=100,
        supports_self_play=True,
        supports_population=False,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=2,
        estimated_memory_mb=2048,
    )
    return metadata, capabilities


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "RayConfig",
    "RayPolicy",
    "RayRuntime",
    "__version__",
    "get_worker_metadata",
    "load_policy",
    "load_worker_config",
]
