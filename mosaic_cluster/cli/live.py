"""A live table of runs on a terminal; plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
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
            self._live.update(progress_view(progress))
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


def progress_view(progress: Progress) -> Group:
    """The table of an experiment's runs, and below it why each is as it is."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold dim")
    for name in ("run", "worker", "seed", "state", "step", "steps/s", "return", "memory", "time"):
        table.add_column(name, justify="left" if name in ("run", "worker", "state") else "right", no_wrap=True)
    rows = progress.rows[:ROWS]
    for row in rows:
        table.add_row(*_cells(row))
    lines = [Text.assemble((row.short_id, "bold"), "  ", row.reason) for row in rows if row.reason]
    if len(progress.rows) > ROWS:
        lines.append(Text(f"and {len(progress.rows) - ROWS} more: `mosaic status --json` lists them"))
    return Group(Text(progress.heading()), table, *lines)


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
    ]
