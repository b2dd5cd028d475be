"""``mosaic-cleanrl --config run.json``, or ``python -m cleanrl_worker.cli --config run.json``.

stdout carries telemetry, one JSON object a line; everything for people goes to stderr. Exit codes: see
:mod:`mosaic_cluster.worker.program`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cleanrl_worker.algorithms import SCRIPTS
from cleanrl_worker.config import CleanRLConfig
from mosaic_cluster.worker import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    return run_program("mosaic-cleanrl", "Trains a policy, in the style of CleanRL.", CleanRLConfig, make_runtime, argv)


def make_runtime(config: CleanRLConfig, **options: Any) -> Any:
    """A script of the release needs none of what our own algorithms import, and the other way round."""
    if config.algo in SCRIPTS:
        from cleanrl_worker.release import ScriptRuntime

        return ScriptRuntime(config, **options)
    from cleanrl_worker.runtime import CleanRLRuntime

    return CleanRLRuntime(config, **options)


if __name__ == "__main__":
    sys.exit(main())
