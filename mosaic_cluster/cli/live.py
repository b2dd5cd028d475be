"""A live table of runs on a terminal; plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mosaic_cluster.app.progress import Progress, RunRow
from mosaic_cluster.cli.output import state_style
from mosaic_cluster.units import format_bytes, format_duration

PLAIN_SECONDS = 10.0
ROWS = 30


class LiveView:
    """Draws status documents as they come.

    Args:
        console: where to draw; a live table if it is a terminal, else a line at each change and every
            ten seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._printed: dict[str, tuple[tuple[str, str], float]] = {}

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, status: dict[str, Any]) -> None:
        """Show a status document."""
        progress = Progress.from_status(status, time.time())
        if self._live is not None:
            self._live.update(progress_table(progress))
        else:
            self._plain(progress)

    def _plain(self, progress: Progress) -> None:
        now = time.monotonic()
        for row in progress.rows:
            shown, at = self._printed.get(row.run_id, (("", ""), 0.0))
            state = (row.state, row.reason)
            if state != shown or now - at >= PLAIN_SECONDS:
                self._printed[row.run_id] = (state, now)
                stamp = time.strftime("%H:%M:%S")
                self._console.print(f"{stamp}  {row.line()}", markup=False, highlight=False, soft_wrap=True)


def progress_table(progress: Progress) -> Table:
    """The table of an experiment's runs."""
    table = Table(title=progress.heading(), title_justify="left", expand=False, pad_edge=False)
    for name, justify in (
        ("run", "left"),
        ("worker", "left"),
        ("seed", "right"),
        ("state", "left"),
        ("step", "right"),
        ("steps/s", "right"),
        ("return", "right"),
        ("memory", "right"),
        ("for", "right"),
        ("why", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in progress.rows[:ROWS]:
        table.add_row(*_cells(row))
    if len(progress.rows) > ROWS:
        table.caption = f"and {len(progress.rows) - ROWS} more: `mosaic status {progress.experiment_id}`"
    return table


def _cells(row: RunRow) -> list[Text | str]:
    return [
        row.short_id,
        row.worker,
        "" if row.seed is None else str(row.seed),
        Text(row.state, style=state_style(row.state)),
        "" if row.step is None else f"{row.step:,}",
        "" if not row.rate else f"{row.rate:,.0f}",
        "" if row.episodic_return is None else f"{row.episodic_return:.1f}",
        format_bytes(row.peak_rss) if row.peak_rss else "",
        format_duration(round(row.running)),
        Text(row.reason),
    ]
