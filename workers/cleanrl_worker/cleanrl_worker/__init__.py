"""Single-file deep reinforcement learning in the style of CleanRL, as a MOSAIC worker.

Importing this package imports neither torch nor gymnasium: names are loaded when they are first asked for, so
that discovery and config checks are quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from cleanrl_worker.config import CleanRLConfig, load_worker_config
    from cleanrl_worker.runtime import CleanRLRuntime
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

__version__ = "0.1.0"

_HOMES = {
    "CleanRLConfig": "cleanrl_worker.config",
    "CleanRLRuntime": "cleanrl_worker.runtime",
    "load_worker_config": "cleanrl_worker.config",
}


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata, installed_version

    metadata = WorkerMetadata(
        name="CleanRL worker",
        version=__version__,
        description="PPO, DQN, SAC and TD3, one readable file each, in the style of CleanRL, on Gymnasium "
        "environments; and the scripts of CleanRL's release, as they are",
        author="MOSAIC cluster contributors",
        homepage="https://github.com/vwxyzjn/cleanrl",
        # The algorithms are written here, in CleanRL's style; what runs underneath is torch.
        upstream_library="torch",
        upstream_version=installed_version("torch"),
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="cleanrl",
        supported_paradigms=("sequential",),
        env_families=("gymnasium",),
        action_spaces=("discrete", "continuous"),
        observation_spaces=("vector", "discrete"),
        max_agents=1,
        supports_self_play=False,
        supports_population=False,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=1,
        estimated_memory_mb=512,
    )
    return metadata, capabilities


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["CleanRLConfig", "CleanRLRuntime", "__version__", "get_worker_metadata", "load_worker_config"]
