"""``mosaic-xuance --config run.json``, or ``python -m xuance_worker.cli --config run.json``.

Exit codes: 0 done; 1 the run failed; 2 the config cannot be used; 143 stopped by SIGTERM, with a checkpoint saved.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mosaic_cluster.worker import run_program
from xuance_worker.config import XuanCeConfig


def make_runtime(config: XuanCeConfig, **options: Any) -> Any:
    """The runtime, which imports XuanCe when it runs."""
    from xuance_worker.runtime import XuanCeRuntime

    return XuanCeRuntime(config, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    return run_program("mosaic-xuance", "Trains with one of XuanCe's algorithms.", XuanCeConfig, make_runtime, argv)


if __name__ == "__main__":
    sys.exit(main())
