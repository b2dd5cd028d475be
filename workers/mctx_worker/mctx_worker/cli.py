"""``mosaic-mctx --config run.json``, or ``python -m mctx_worker.cli --config run.json``.

stdout carries telemetry, one JSON object a line; everything for people goes to stderr.

Exit codes: 0 done; 1 the run failed; 2 the config cannot be used; 143 stopped by SIGTERM and 130 by Ctrl-C, with a
checkpoint saved.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mctx_worker.config import MctxConfig
from mosaic_cluster.worker import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    return run_program("mosaic-mctx", "Learns a game by self-play with mctx's search.", MctxConfig, _runtime, argv)


def _runtime(config: MctxConfig, **options: Any) -> Any:
    from mctx_worker.runtime import MctxRuntime  # only here: importing JAX takes seconds

    return MctxRuntime(config, **options)


if __name__ == "__main__":
    sys.exit(main())
