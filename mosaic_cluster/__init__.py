"""mosaic_cluster: any RL library, wrapped once as a standardized worker, on any Ray cluster."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
