"""LLM and VLM agents in text and grid worlds, evaluated through any OpenAI-compatible endpoint.

Importing this package imports no world: discovery and config checks are quick and need no environment built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from barlog_worker.config import BarlogConfig, load_worker_config
    from barlog_worker.policy import load_policy
    from barlog_worker.runtime import BarlogRuntime
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

__version__ = "0.1.0"

_HOMES = {
    "BarlogConfig": "barlog_worker.config",
    "BarlogRuntime": "barlog_worker.runtime",
    "load_policy": "barlog_worker.policy",
    "load_worker_config": "barlog_worker.config",
}


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

    metadata = WorkerMetadata(
        name="BARLOG worker",
        version=__version__,
        description="LLM and VLM agents in BabyAI, Crafter, TextWorld and NetHack, behind OpenAI-compatible endpoints",
        author="MOSAIC cluster contributors",
        homepage="https://github.com/balrog-ai/BALROG",
        # The worlds and agents are ours; BALROG itself is driven where it is installed (backend: balrog).
        upstream_library="balrog",
        upstream_version=None,
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="barlog",
        supported_paradigms=("evaluation",),
        env_families=("babyai", "crafter", "textworld", "nethack"),
        action_spaces=("discrete", "text"),
        observation_spaces=("text", "image"),
        max_agents=1,
        supports_self_play=False,
        supports_population=False,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        gpu_memory_mb=None,
        cpu_cores=1,
        estimated_memory_mb=1024,
    )
    return metadata, capabilities


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "BarlogConfig",
    "BarlogRuntime",
    "__version__",
    "get_worker_metadata",
    "load_policy",
    "load_worker_config",
]
