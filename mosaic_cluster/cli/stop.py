"""``mosaic stop``: Stop runs: checkpoint, then end."""

from __future__ import annotations

from typing import Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, JsonOption, StorageOption


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("stop")
    def stop(
        experiment: ExperimentArgument,
        runs: Annotated[
            list[str] | None,
            typer.Argument(metavar="[RUN]...", help="Run ids or their ends; default: every run.", show_default=False),
        ] = None,
        storage: StorageOption = None,
        wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until it has happened.")] = 60.0,
        as_json: JsonOption = False,
    ) -> None:
        """Stop an experiment, or some of its runs: each worker checkpoints and ends within its grace time."""
        from mosaic_cluster.cli.asking import ask

        ask("stop", experiment, runs or [], storage, wait, as_json)
