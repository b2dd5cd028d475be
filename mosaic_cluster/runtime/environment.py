"""Environment variables of a worker's process: what it is, what it may take, and how its libraries keep to that."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mosaic_cluster.catalog import Ready
from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.backend import AttemptOrder
from mosaic_cluster.runtime.checkpoints import Checkpoint
from mosaic_cluster.units import MIB

THREAD_VARIABLES = (
    # Mathematics: OpenMP (torch too), and the libraries under NumPy and SciPy.
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    # JAX on CPUs (XLA's thread pool): newer releases, older ones.
    "PJRT_NPROC",
    "NPROC",
    # Libraries in Rust.
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
GPU_CONTEXT = 640 * MIB
"""GPU memory that a process takes beside what its library allocates: CUDA's own, of which a library's limit knows
nothing."""

OURS = (
    "MOSAIC_RESUME_FROM",
    "MOSAIC_REPORT_STEPS",
    "MOSAIC_GPU_MEMORY",
    "MOSAIC_GPU_MEMORY_CAP",
    "MOSAIC_RAY_ADDRESS",
    "MOSAIC_RAY_NAMESPACE",
    "MOSAIC_RAY_NODE",
    "MOSAIC_PLACEMENT_GROUP",
)
"""What a worker must not have from anywhere else where it is not set here."""

RAY_CREDENTIALS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""What a worker that joins the cluster needs of Ray's own variables."""


def attempt_environment(
    order: AttemptOrder, base: Mapping[str, str], resumed: Checkpoint | None, ready: Ready | None = None
) -> dict[str, str]:
    """Environment variables of the worker's process. What the spec sets wins, but over what is ours.

    Args:
        base: of the process that starts it.
        resumed: the checkpoint it goes on from.
        ready: what it runs in; by default, the interpreter of this process.
    """
    ready = ready or Ready(sys.executable)
    if not order.storage.is_local:  # its worker has files to work with, and no business with our credentials
        base = {name: value for name, value in base.items() if not name.startswith("AWS_")}
    environment = ready.variables(base)
    threads = str(max(1, int(order.placement.cpus)))
    environment.update(dict.fromkeys(THREAD_VARIABLES, threads))
    environment.update(ready.declared_variables)
    environment.update(_gpu_variables(order))
    environment["PYTHONUNBUFFERED"] = "1"
    environment.update(order.environment)
    if "XLA_CLIENT_MEM_FRACTION" in environment and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in order.environment:
        # The newer name of the same: JAX refuses both at once.
        environment.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    for name in OURS:
        environment.pop(name, None)
    environment.update(
        MOSAIC_EXPERIMENT_ID=order.experiment_id,
        MOSAIC_EXPERIMENT_DIR=str(order.folder),
        MOSAIC_RUN_ID=order.run_id,
        MOSAIC_RUN_DIR=str(order.run_dir),
        MOSAIC_ATTEMPT=str(order.attempt),
        MOSAIC_CHECKPOINT_DIR=str(order.run_dir / "checkpoints"),
        MOSAIC_CPUS=f"{order.placement.cpus:g}",
        MOSAIC_NODE=order.placement.node_name,
        MOSAIC_AGENTS=str(order.placement.agents),
    )
    if order.placement.gpu_memory is not None:
        environment["MOSAIC_GPU_MEMORY"] = str(order.placement.gpu_memory)
    cap = gpu_memory_cap(order)
    if cap is not None:
        environment["MOSAIC_GPU_MEMORY_CAP"] = str(cap)
    environment.update(_joining_variables(order, base))
    if resumed is not None:
        environment["MOSAIC_RESUME_FROM"] = resumed.path
    if order.watch is not None and order.watch.rungs:
        environment["MOSAIC_REPORT_STEPS"] = ",".join(map(str, order.watch.rungs))
    return environment


def _joining_variables(order: AttemptOrder, base: Mapping[str, str]) -> dict[str, str]:
    joining = order.joining
    if joining is None:
        return {}
    return {
        "MOSAIC_RAY_ADDRESS": joining.address,
        "MOSAIC_RAY_NAMESPACE": joining.namespace,
        "MOSAIC_RAY_NODE": joining.node_address,
        "MOSAIC_PLACEMENT_GROUP": joining.group,
        **{name: base[name] for name in RAY_CREDENTIALS if name in base},
        # The GPUs of the group are for what the worker starts in it.
        "CUDA_VISIBLE_DEVICES": "",
    }


def gpu_memory_cap(order: AttemptOrder) -> int | None:
    """Bytes that a library may allocate on the GPU that the run shares; ``None``: no limit is set for it."""
    declared = order.placement.gpu_memory
    if declared is None or not _shares(order.placement) or order.limits.on_excess == "warn":
        return None
    return declared - min(GPU_CONTEXT, declared // 2)


def _shares(placement: Placement) -> bool:
    return 0 < placement.gpus <= 1 and placement.gpu_memory is not None


def _gpu_variables(order: AttemptOrder) -> dict[str, str]:
    placement = order.placement
    if not placement.gpus:
        # Ray leaves the variable alone when no GPU was asked for: the worker would see all of them.
        return {"CUDA_VISIBLE_DEVICES": ""}
    if not _shares(placement):
        return {}
    # Left alone, JAX takes three quarters of a GPU at once, and TensorFlow all of it.
    found = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    cap = gpu_memory_cap(order)
    if cap is not None:
        assert placement.gpu_memory is not None
        steps = max(1, int(placement.gpus * cap / placement.gpu_memory * 10_000))
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{steps / 10_000:.4f}"
    return found
