"""``mosaic-marllib --config run.json``, or ``python -m marllib_worker.cli --config run.json``."""

from __future__ import annotations

import sys
from typing import Any, Optional, Sequence

from mosaic_cluster.worker import run_program

from marllib_worker.config import MarllibConfig


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one config; returns the exit code."""
    text = "Trains agents of a team with MARLlib or BenchMARL."
    return run_program("mosaic-marllib", text, MarllibConfig, _make_runtime, argv)


def _make_runtime(config: MarllibConfig, **options: Any) -> Any:
    from marllib_worker.runtime import MarllibRuntime

    return MarllibRuntime(config, **options)


if __name__ == "__main__":
    sys.exit(main())
