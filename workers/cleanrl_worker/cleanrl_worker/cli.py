"""``mosaic-cleanrl --config run.json``, or ``python -m cleanrl_worker.cli --config run.json``.

stdout carries telemetry, one JSON object a line; everything for people goes to stderr.

Exit codes: 0 done; 1 the run failed; 2 the config cannot be used, so that a restart is pointless;
143 stopped by SIGTERM and 130 by Ctrl-C, with a checkpoint saved.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cleanrl_worker.config import CleanRLConfig
from mosaic_cluster.worker import ConfigError, WorkerCLI

LOGGER = logging.getLogger(__name__)


class StopRequest:
    """Remembers the first SIGTERM or SIGINT. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> None:
        """Take over both signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self.signal is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    stop = StopRequest()
    stop.install()  # before torch is imported, which takes seconds
    parser = WorkerCLI.create_base_parser("mosaic-cleanrl", "Trains a policy, in the style of CleanRL.")
    parser.add_argument(
        "--emit-summary", action="store_true", help='end stdout with the summary, {"type":"summary",...}'
    )
    args = parser.parse_args(argv)
    WorkerCLI.setup_logging(args.verbose)
    if args.grpc:
        LOGGER.warning("--grpc is accepted and ignored: this worker reports on stdout only")
    try:
        config = WorkerCLI.load_and_validate_config(args.config, CleanRLConfig)
    except (ValueError, OSError) as error:
        return _refuse(error)

    from cleanrl_worker.runtime import CleanRLRuntime

    try:
        runtime = CleanRLRuntime(config, dry_run=args.dry_run, stop_requested=stop, worker_id=args.worker_id)
        summary = runtime.run()
    except ConfigError as error:
        return _refuse(error)
    except Exception:
        LOGGER.exception("the run failed")
        return 1
    if args.emit_summary:
        line = {"type": "summary", "run_id": config.run_id, **summary}
        sys.stdout.write(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    if summary["status"] == "cancelled" and stop.signal is not None:
        return 128 + stop.signal
    return 0


def _refuse(error: Exception) -> int:
    sys.stderr.write(f"{error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
