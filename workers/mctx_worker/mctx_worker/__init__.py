"""Self-play with the tree search of mctx on the games of pgx, as a MOSAIC worker.

Importing this package imports none of JAX, mctx and pgx: names are loaded when they are first asked for, so that
discovery and config checks are quick, and need no environment built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker import lazy_names

if TYPE_CHECKING:
    from mctx_worker.config import MctxConfig, load_worker_config
    from mctx_worker.policy import load_policy
    from mctx_worker.runtime import MctxRuntime
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

__version__ = "0.1.0"

UPSTREAM_VERSION = "0.0.71"
"""The release of mctx that environment.toml pins."""

_HOMES = {
    "MctxConfig": "mctx_worker.config",
    "MctxRuntime": "mctx_worker.runtime",
    "load_policy": "mctx_worker.policy",
    "load_worker_config": "mctx_worker.config",
}


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """What this worker is and what it needs: the entry point of the group ``mosaic.workers``."""
    from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata

    metadata = WorkerMetadata(
        name="mctx worker",
        version=__version__,
        description="AlphaZero with Gumbel or PUCT search: vectorised self-play on the games of pgx",
        author="MOSAIC cluster contributors",
        homepage="https://github.com/google-deepmind/mctx",
        upstream_library="mctx",
        upstream_version=UPSTREAM_VERSION,
        license="MIT",
    )
    capabilities = WorkerCapabilities(
        worker_type="mctx",
        supported_paradigms=("self_play", "sequential"),
        env_families=("pgx", "pettingzoo_classic"),
        action_spaces=("discrete",),
        observation_spaces=("board", "vector"),
        max_agents=2,
        supports_self_play=True,
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

__all__ = ["MctxConfig", "MctxRuntime", "__version__", "get_worker_metadata", "load_policy", "load_worker_config"]
