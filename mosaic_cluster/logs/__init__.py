"""What of an attempt's logs was let go, so that whoever reads them steps over it. Standard library only."""

from __future__ import annotations

from mosaic_cluster.logs.released import RELEASED, Released, read_released

__all__ = ["RELEASED", "Released", "read_released"]
