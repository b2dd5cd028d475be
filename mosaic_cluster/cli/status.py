"""``mosaic status``: how an experiment and its runs stand, and why."""

from __future__ import annotations

import time

import typer

from mosaic_cluster.cli.output import ExperimentArgument, JsonOption, StorageOption, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("status")
    def status(
        experiment: ExperimentArgument = "latest", storage: StorageOption = None, as_json: JsonOption = False
    ) -> None:
        """Show how an experiment and each of its runs stands, and why."""
        from rich.console import Console

        from mosaic_cluster.app.progress import Progress, memory_lines
        from mosaic_cluster.app.sweep_progress import summary_lines
        from mosaic_cluster.cli.live import progress_view
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.experiments.status import read_status
        from mosaic_cluster.storage import Storage, default_location

        home = find_experiment(Storage.open(storage or default_location()), experiment)
        document = read_status(home)
        if as_json:
            print_json(document)
            return
        console = Console()
        console.print(progress_view(Progress.from_status(document, time.time())))
        if "sweep" in document:
            for line in summary_lines(document, headline=False):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        for line in memory_lines(document):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(home.location, markup=False, highlight=False, soft_wrap=True)
