"""``mosaic watch``: metrics of running experiments as they come."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, StorageOption, state_style

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from mosaic_cluster.app.watching import WatchedRun, Watching

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
ROWS = 40
PLAIN_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("watch")
    def watch(
        experiment: ExperimentArgument = "latest",
        runs: Annotated[
            list[str] | None,
            typer.Argument(metavar="[RUN]...", help="Run ids or their ends, or trials; default: all."),
        ] = None,
        metric: Annotated[
            list[str] | None,
            typer.Option("--metric", "-m", help="A metric to show; may be given again.", show_default=False),
        ] = None,
        once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="A line of JSON each time something changes.")] = False,
        storage: StorageOption = None,
    ) -> None:
        """Watch metrics as they come, with their history, until the runs have ended."""
        from mosaic_cluster.app.watching import Watcher
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location

        home = find_experiment(Storage.open(storage or default_location()), experiment)
        watcher = Watcher(home, runs or [], metric or [])
        looks = iter([watcher.look()]) if once else watcher.follow()
        if as_json:
            for now in looks:
                sys.stdout.write(json.dumps(now.to_dict(), ensure_ascii=False) + "\n")
                sys.stdout.flush()
            return
        _draw(looks, live=not once)


def _draw(looks: Iterator[Watching], *, live: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if live and console.is_terminal:
        with Live(console=console, refresh_per_second=8) as screen:
            for now in looks:
                screen.update(watch_view(now))
        return
    shown_at = -math.inf
    for now in looks:
        if time.monotonic() - shown_at >= PLAIN_SECONDS or now.over:
            shown_at = time.monotonic()
            console.print(watch_view(now))


def watch_view(now: Watching) -> Group:
    """A table of runs: how far they are, the latest value of each metric, and how it went."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold dim")
    for name in ("run", "state", "step", "events"):
        table.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=True)
    for name in now.metrics:
        table.add_column(name, justify="right", overflow="fold")
        table.add_column("", no_wrap=True)
    for run in now.runs[:ROWS]:
        table.add_row(*_cells(run, now.metrics))
    parts: list[Text | Table] = [Text(f"{now.experiment_id}  {now.state}"), table]
    if len(now.runs) > ROWS:
        parts.append(Text(f"and {len(now.runs) - ROWS} more runs: name those you want to see"))
    others = [name for name in now.known if name not in now.metrics]
    if others:
        more = f", and {len(others) - 10} more" if len(others) > 10 else ""
        parts.append(Text(f"other metrics: {', '.join(others[:10])}{more}", style="dim"))
    return Group(*parts)


def _cells(run: WatchedRun, metrics: Sequence[str]) -> list[Text | str]:
    from rich.text import Text

    short = run.run_id[-6:].lower()
    cells: list[Text | str] = [
        f"{run.trial} {short}" if run.trial else short,
        Text(run.state, style=state_style(run.state)),
        "" if run.step is None else f"{run.step:,}",
        f"{run.events:,}",
    ]
    for name in metrics:
        reading = run.latest.get(name)
        cells.append("" if reading is None else f"{reading[1]:.5g}")
        cells.append(Text(sparkline([value for _, value in run.history.get(name, ())]), style="cyan"))
    return cells


def sparkline(values: Sequence[float]) -> str:
    """Values as bars, lowest to highest; more than fit are averaged."""
    if not values:
        return ""
    width = min(SPARK_WIDTH, len(values))
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(BARS[min(len(BARS) - 1, int((mean - low) / span * len(BARS)))] for mean in means)
