"""Random and scripted baselines, as a MOSAIC worker. Importing this imports neither gymnasium nor pettingzoo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

__version__ = "0.1.0"


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata, installed_version

    metadata = WorkerMetadata(
        name="Random worker",
        version=__version__,
        description="Uniform (masked) and scripted baselines on any Gymnasium or PettingZoo environment",
        author="MOSAIC cluster contributors",
        homepage="https://gymnasium.farama.org",
        upstream_library="gymnasium",
        upstream_version=installed_version("gymnasium"),
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="random",
        supported_paradigms=("sequential", "multi_agent"),
        env_families=("gymnasium", "pettingzoo"),
        action_spaces=("discrete", "continuous", "multi_discrete", "multi_binary"),
        observation_spaces=("vector", "image", "discrete", "dict"),
        max_agents=64,
        supports_self_play=False,
        supports_population=False,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=1,
        estimated_memory_mb=256,
    )
    return metadata, capabilities


__all__ = ["__version__", "get_worker_metadata"]
