"""Runs a worker package that has no ``cli`` module of its own.

``python -m mosaic_cluster.worker.runner --package my_worker --config config.json [--dry-run] [-v]``

Exit codes: 0 done; 1 the run failed; 2 the config or the package cannot be used, so that a restart is
pointless. Prints nothing on stdout, which belongs to the worker's telemetry.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence

from mosaic_cluster.worker import _locate
from mosaic_cluster.worker.cli import WorkerCLI
from mosaic_cluster.worker.config import extract_worker_config, load_worker_config_from_file
from mosaic_cluster.worker.errors import BrokenWorker, InvalidInput, Problem

_LOGGER = logging.getLogger(__name__)
_FAILED = ("failed", "error")


class Unusable(Exception):
    """The config cannot be used.

    Args:
        problems: what is wrong with it.
    """

    def __init__(self, problems: List[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def build_config(package: str, data: Mapping[str, Any]) -> Any:
    """The config of a worker package from a dict, through its config class.

    Raises:
        BrokenWorker: the package has no config class, or no telling which.
        Unusable: the class refuses the values.
        Exception: what the package raises on import.
    """
    cls: Any = _locate.config_class(package)
    try:
        return cls.from_dict(dict(data))
    except Exception as error:
        problems = _locate.mistakes(error, _locate.field_names(cls))
        raise Unusable(problems) from error


def load_config(package: str, path: Path) -> Any:
    """The config of a worker package from a file, through its ``load_worker_config`` if it has one.

    Raises:
        BrokenWorker: the package has neither that nor a config class, or no telling which.
        Unusable: the file is not a possible config.
        OSError: it cannot be read.
        Exception: what the package raises on import.
    """
    loader = _locate.config_loader(package)
    try:
        data = load_worker_config_from_file(path)
        if loader is None:
            return build_config(package, extract_worker_config(data))
        return loader(path)
    except (*_locate.CONFIG_MISTAKES, InvalidInput) as error:
        raise Unusable(_locate.mistakes(error, ())) from error


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run it; see the module."""
    prog = "python -m mosaic_cluster.worker.runner"
    parser = WorkerCLI.create_base_parser(prog, "Runs a worker package that has no CLI of its own.")
    parser.add_argument("--package", required=True, help="the worker's package, my_worker")
    args = parser.parse_args(argv)
    WorkerCLI.setup_logging(args.verbose)
    try:
        config = load_config(args.package, args.config)
        runtime_class = _locate.runtime_class(args.package)
    except (BrokenWorker, Unusable, OSError, ImportError) as error:
        if args.verbose or isinstance(error, ImportError):
            traceback.print_exc()
        return _refuse(f"{args.package} cannot run {args.config}: {error}")
    return _run(runtime_class, config, dry_run=args.dry_run)


def _run(runtime_class: type, config: Any, *, dry_run: bool) -> int:
    try:
        runtime = _locate.make_runtime(runtime_class, config, dry_run=dry_run)
        if dry_run and not _locate.accepts_dry_run(runtime_class):
            _LOGGER.info("the config is fine; %s has no dry run of its own", runtime_class.__name__)
            return 0
        summary = runtime.run()
    except InvalidInput as error:
        return _refuse(str(error))
    except Exception:  # noqa: BLE001 - whatever a worker raises ends here, with its traceback
        traceback.print_exc()
        return 1
    if isinstance(summary, Mapping) and summary.get("status") in _FAILED:
        _LOGGER.error("the run says that it failed: %s", summary.get("error", "no reason given"))
        return 1
    return 0


def _refuse(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
