"""The command line that every worker understands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Type, TypeVar, Union

from mosaic_cluster.worker.config import load_worker_config_from_file

if TYPE_CHECKING:
    import argparse

_T = TypeVar("_T")
_PathLike = Union[str, "os.PathLike[str]"]

GRPC_TARGET = "127.0.0.1:50055"


class WorkerCLI:
    """Building blocks for a worker's ``cli`` module::

    def main(argv=None):
        args = WorkerCLI.create_base_parser("my-worker", "Trains things.").parse_args(argv)
        WorkerCLI.setup_logging(args.verbose)
        config = WorkerCLI.load_and_validate_config(args.config, MyConfig)
        MyRuntime(config, dry_run=args.dry_run).run()
        return 0
    """

    @staticmethod
    def create_base_parser(prog: str, description: str) -> argparse.ArgumentParser:
        """A parser to which a worker adds its own arguments.

        It has ``--config`` (required), ``--verbose``, ``--dry-run``, ``--worker-id``, ``--grpc`` and
        ``--grpc-target``.
        """
        import argparse

        parser = argparse.ArgumentParser(
            prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add = parser.add_argument
        add("--config", type=Path, required=True, metavar="FILE", help="the run's config, a JSON file")
        add("-v", "--verbose", action="store_true", help="log debug messages too")
        add("--dry-run", action="store_true", help="check the config without training")
        add("--worker-id", metavar="ID", help="name of this worker, instead of the config's")
        add("--grpc", action="store_true", help="announce the worker over gRPC, where it can")
        where = "where to announce it (default: %(default)s)"
        add("--grpc-target", metavar="HOST:PORT", default=GRPC_TARGET, help=where)
        return parser

    @staticmethod
    def setup_logging(verbose: bool = False) -> None:
        """Log to stderr: stdout belongs to telemetry.

        Handlers that a library has put on the root logger stay, unless they write to stdout.

        Args:
            verbose: DEBUG and above, instead of INFO and above.
        """
        import logging

        root = logging.getLogger()
        for handler in list(root.handlers):
            if getattr(handler, "stream", None) in (sys.stdout, sys.__stdout__):
                root.removeHandler(handler)
        if not root.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            root.addHandler(handler)
        root.setLevel(logging.DEBUG if verbose else logging.INFO)

    @staticmethod
    def load_and_validate_config(path: _PathLike, config_class: Type[_T]) -> _T:
        """Read a config file into ``config_class``, through its ``from_dict``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not JSON, or not a possible config (a ``ConfigError`` where the class raises one).
            TypeError: ``config_class`` has no ``from_dict``.
        """
        if not callable(getattr(config_class, "from_dict", None)):
            raise TypeError(f"{config_class.__name__} needs a class method from_dict(data)")
        try:
            return load_worker_config_from_file(path, config_class)
        except (TypeError, KeyError, AssertionError) as error:
            words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"the config file {path} makes no {config_class.__name__}: {words}") from error


__all__ = ["WorkerCLI"]
