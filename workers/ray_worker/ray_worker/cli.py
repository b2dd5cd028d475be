"""``mosaic-ray --config run.json``, or ``python -m ray_worker.cli --config run.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mosaic_cluster.worker import run_program
from ray_worker.config import RayConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    return run_program("mosaic-ray", "Trains a policy with Ray RLlib.", RayConfig, _runtime, argv)


def _runtime(config: RayConfig, **options: Any) -> Any:
    from ray_worker.runtime import RayRuntime  # only here: Ray takes seconds to import

    return RayRuntime(config, **options)


if __name__ == "__main__":
    sys.exit(main())
