"""``mosaic report``: the curves of an experiment, in a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mosaic_cluster.cli.output import ExperimentArgument, StorageOption, note, state_style
from mosaic_cluster.worker.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from mosaic_cluster.reports import Report

AXES = ("steps", "seconds")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("report")
    def report(
        experiment: ExperimentArgument = "latest",
        metric: Annotated[
            str | None,
            typer.Option(
                "--metric",
                help="What is drawn (default: what a sweep is judged by, else episodic_return).",
                show_default=False,
            ),
        ] = None,
        axis: Annotated[str, typer.Option("--x", help="Drawn over: steps (of the environment) or seconds.")] = "steps",
        out: Annotated[
            Path | None,
            typer.Option("--out", help="Folder (default: report, in the experiment's folder).", show_default=False),
        ] = None,
        storage: StorageOption = None,
    ) -> None:
        """Draw the curves of all workers and trials together, also while they run.

        Writes report.png and report.html, which holds the picture, and prints the final values.
        """
        from mosaic_cluster.app.reporting import read_report, write_report
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location

        if axis not in AXES:
            raise InvalidInput([Problem("--x", f"there is no {axis!r}; give one of: {', '.join(AXES)}")])
        home = find_experiment(Storage.open(storage or default_location()), experiment)
        found = read_report(home, metric, axis)
        _show(found)
        for place in write_report(home, found, out):
            note(place)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mosaic_cluster.reports import rows

    lines = rows(report)
    several = len({line.environment for line in lines}) > 1
    title = f"{report.experiment_id}  {report.metric}"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    columns = ["environment"] if several else []
    columns += ["trial"] if any(line.trial for line in lines) else []
    columns += ["worker", "settings", "seeds", "final", "steps", "time", "state"]
    columns += ["reason"] if any(line.reason for line in lines) else []
    for name in columns:
        text = name in ("environment", "settings", "final", "reason")
        justify: Literal["left", "right"] = "right" if name in ("seeds", "steps", "time") else "left"
        table.add_column(name, justify=justify, no_wrap=not text, overflow="fold")
    for line in lines:
        style = state_style(line.state)
        table.add_row(*(Text(getattr(line, name), style=style if name == "state" else "") for name in columns))
    Console().print(table)
