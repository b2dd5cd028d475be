"""Which backends there are. Loaded only when used: one of them brings Ray."""

from __future__ import annotations

from importlib import import_module

from mosaic_cluster.runtime.backend import Backend
from mosaic_cluster.worker.errors import BackendError, InvalidInput, Problem

BACKENDS = ("ray", "inline")


def make_backend(name: str, address: str | None) -> Backend:
    """The backend of that name.

    Args:
        name: ``ray`` or ``inline``.
        address: for Ray: ``None`` for an embedded one, ``auto`` or ``host:port`` to join a cluster.

    Raises:
        InvalidInput: there is no such backend, or it takes no address.
        BackendError: Ray is not installed, or the cluster cannot be reached.
    """
    if name == "inline":
        if address is not None:
            problem = "is about Ray; the inline backend runs on this machine only: leave it out"
            raise InvalidInput([Problem("--address", problem)])
        backend: Backend = import_module("mosaic_cluster.runtime.inline").InlineBackend()
        return backend
    if name != "ray":
        raise InvalidInput([Problem("--backend", f"there is no {name!r}; give one of: {', '.join(BACKENDS)}")])
    try:
        module = import_module("mosaic_cluster.runtime.ray_backend")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise BackendError(
            "Ray is not installed here: `pip install 'mosaic-cluster[cluster]'`, "
            "or run on this machine without it: --backend inline"
        ) from error
    on_ray: Backend = module.RayBackend(address)
    return on_ray
