"""The ``mosaic`` command. One file per verb; a new verb is a new file and a line in ``VERBS``."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from mosaic_cluster import __version__
from mosaic_cluster.cli.output import report_error
from mosaic_cluster.worker.errors import MosaicError

VERBS = (
    "run",
    "plan",
    "resume",
    "ls",
    "status",
    "logs",
    "watch",
    "query",
    "report",
    "bridge",
    "stop",
    "pause",
    "unpause",
    "workers",
    "cluster",
    "schema",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mosaic {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The command with all its verbs."""
    app = typer.Typer(
        name="mosaic",
        help="Run standardized RL workers on Ray clusters: placed by what they declare, every event kept.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ) -> None:
        del version

    for verb in VERBS:
        import_module(f"mosaic_cluster.cli.{verb}").register(app)
    return app


def main() -> None:
    """Entry point: errors of ours become one readable message and their exit code."""
    try:
        build()()
    except MosaicError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
