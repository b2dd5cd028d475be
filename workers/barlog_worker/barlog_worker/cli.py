"""``mosaic-barlog --config run.json``, or ``python -m barlog_worker.cli --config run.json``.

stdout carries telemetry, one JSON object a line; everything for people goes to stderr.

Exit codes: 0 done; 1 the run failed; 2 the config cannot be used, so that a restart is pointless;
143 stopped by SIGTERM and 130 by Ctrl-C, finished episodes kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from barlog_worker.config import BarlogConfig
from mosaic_cluster.worker import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    return run_program(
        "mosaic-barlog", "Evaluates a language model as an agent in text and grid worlds.", BarlogConfig, _runtime, argv
    )


def _runtime(config: BarlogConfig, **options: Any) -> Any:
    from barlog_worker.runtime import BarlogRuntime

    return BarlogRuntime(config, **options)


if __name__ == "__main__":
    sys.exit(main())
