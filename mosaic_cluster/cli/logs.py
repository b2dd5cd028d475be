"""``mosaic logs``: what runs printed."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, StorageOption


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("logs")
    def logs(
        experiment: ExperimentArgument = "latest",
        runs: Annotated[
            list[str] | None,
            typer.Argument(metavar="[RUN]...", help="Run ids or their ends; default: every run.", show_default=False),
        ] = None,
        follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the runs end.")] = False,
        raw: Annotated[bool, typer.Option("--raw", help="Telemetry lines exactly as they were printed.")] = False,
        only: Annotated[
            str | None, typer.Option("--only", help="'out' or 'err': one stream only.", show_default=False)
        ] = None,
        storage: StorageOption = None,
    ) -> None:
        """Print what runs printed: telemetry in short form, everything else as it is."""
        from mosaic_cluster.app.logs import STREAMS, log_lines
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location
        from mosaic_cluster.worker.errors import InvalidInput, Problem

        if only is not None and only not in STREAMS:
            raise InvalidInput([Problem("--only", f"{only!r} is no stream; there is 'out' and 'err'")])
        home = find_experiment(Storage.open(storage or default_location()), experiment)
        streams = [only] if only else list(STREAMS)
        try:
            for line in log_lines(home, runs or [], follow=follow, raw=raw, streams=streams):
                sys.stdout.write(line + "\n")
                if follow:
                    sys.stdout.flush()
            sys.stdout.flush()
        except BrokenPipeError:
            # `mosaic logs | head`: nobody reads on, which is no error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
