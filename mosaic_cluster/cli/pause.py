"""``mosaic pause``: Pause runs."""

from __future__ import annotations

from typing import Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, JsonOption, StorageOption


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("pause")
    def pause(
        experiment: ExperimentArgument,
        runs: Annotated[
            list[str] | None,
            typer.Argument(metavar="[RUN]...", help="Run ids or their ends; default: every run.", show_default=False),
        ] = None,
        storage: StorageOption = None,
        wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until it has happened.")] = 60.0,
        as_json: JsonOption = False,
    ) -> None:
        """Pause an experiment, or some of its runs.

        A worker that supports it checkpoints and gives its resources back; others are frozen where they are.
        """
        from mosaic_cluster.cli.asking import ask

        ask("pause", experiment, runs or [], storage, wait, as_json)
