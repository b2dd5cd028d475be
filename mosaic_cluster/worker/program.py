"""The program of a worker: a whole ``cli`` module in one call.

::

    def main(argv=None):
        return run_program("my-worker", "Trains things.", MyConfig, make_runtime, argv)

    def make_runtime(config, **options):
        from my_worker.runtime import MyRuntime      # only here: importing the library takes seconds

        return MyRuntime(config, **options)

stdout carries telemetry, one JSON object a line; everything for people goes to stderr.

Exit codes: 0 done; 1 the run failed; 2 the config cannot be used, so that a restart is pointless; 143 stopped by
SIGTERM and 130 by Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import IO, Any, Callable, Dict, Optional, Sequence, Type

from mosaic_cluster.worker import _lines
from mosaic_cluster.worker._plain import json_text, to_plain
from mosaic_cluster.worker.cli import WorkerCLI
from mosaic_cluster.worker.errors import InvalidInput


class StopRequest:
    """Remembers the first SIGTERM or SIGINT; calling it tells whether there was one. A second Ctrl-C ends the process.

    Attributes:
        signal: number of the signal, ``None`` before there was one.
    """

    def __init__(self) -> None:
        self.signal: Optional[int] = None

    def install(self) -> None:
        """Take over both signals; to be called again where a library has taken them for itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self.signal is not None

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        self.signal = self.signal or number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_program(
    prog: str,
    description: str,
    config_class: Type[Any],
    make_runtime: Callable[..., Any],
    argv: Optional[Sequence[str]] = None,
) -> int:
    """Read the command line and the config, run, and say how it ended.

    Args:
        prog, description: for ``--help``.
        config_class: has ``from_dict``; what it raises as ``ValueError`` is the config's fault.
        make_runtime: called with the config and the keywords ``dry_run`` (bool), ``stop_requested`` (a
            :class:`StopRequest`) and ``worker_id`` (text or ``None``); gives an object whose ``run()`` returns a
            summary with ``status``: ``completed``, ``cancelled`` or ``dry-run``.
        argv: without the program's name; default: the process's own.

    Returns:
        the exit code.
    """
    import logging

    stop = StopRequest()
    stop.install()  # before a library is imported, which takes seconds
    parser = WorkerCLI.create_base_parser(prog, description)
    parser.add_argument(
        "--emit-summary", action="store_true", help='end stdout with the summary, {"type":"summary",...}'
    )
    args = parser.parse_args(argv)
    WorkerCLI.setup_logging(args.verbose)
    logger = logging.getLogger(prog)
    if args.grpc:
        logger.warning("--grpc is accepted and ignored: this worker reports on stdout only")
    telemetry = claim_stdout()
    try:
        config = WorkerCLI.load_and_validate_config(args.config, config_class)
    except (ValueError, OSError) as error:
        return _refuse(error)
    try:
        runtime = make_runtime(config, dry_run=args.dry_run, stop_requested=stop, worker_id=args.worker_id)
        summary: Dict[str, Any] = runtime.run()
    except InvalidInput as error:
        return _refuse(error)
    except Exception:
        logger.exception("the run failed")
        return 1
    if args.emit_summary:
        line = {"type": "summary", "run_id": getattr(config, "run_id", None), **to_plain(summary)}
        telemetry.write(json_text(line) + "\n")
        telemetry.flush()
    if summary.get("status") == "cancelled" and stop.signal is not None:
        return 128 + stop.signal
    return 1 if summary.get("status") == "failed" else 0


def claim_stdout() -> IO[str]:
    """Keep stdout for telemetry: what a library or a child process prints, in Python or in C, goes to stderr.

    Emitters that were given no sink write to the stream from then on.

    Returns:
        the stream for telemetry; the same one when it is called again.
    """
    if _lines.claimed is None:
        sys.stdout.flush()
        _lines.claimed = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
    return _lines.claimed


def telemetry_stream() -> Optional[IO[str]]:
    """What :func:`claim_stdout` gave, for ``TelemetryEmitter(sink=...)``; ``None`` where stdout is nobody's."""
    return _lines.claimed


def _refuse(error: Exception) -> int:
    sys.stderr.write("%s\n" % error)
    return 2


__all__ = ["StopRequest", "claim_stdout", "run_program", "telemetry_stream"]
