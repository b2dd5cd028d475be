"""A live table of runs on a terminal; plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mosaic_cluster.app.progress import Progress, RunRow
from mosaic_cluster.app.sweep_progress import SweepProgress, TrialRow
from mosaic_cluster.cli.output import state_style
from mosaic_cluster.units import format_duration

PLAIN_SECONDS = 10.0
ROWS = 30
RUN_ROWS = 12
SLOW_START = 5.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
WAITING = ("PENDING", "PAUSED")


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
        for row in progress.rows:
            # Of a sweep's runs, those that wait are too many to tell: their trials are.
            if progress.sweep is None or row.state not in WAITING:
                self._say(row.run_id, (row.state, row.reason), row.line(), again=row.state not in ENDED)
        for line in progress.notices:
            # How many runs it is about may grow: it is said once all the same.
            self._say(line.partition(" runs: ")[2] or line, ("", "said"), line, again=False)
        for trial in progress.sweep.rows if progress.sweep else ():
            self._say(trial.name, (trial.state, trial.rung), trial.line(), again=False)

    def _say(self, what: str, state: tuple[str, str], line: str, *, again: bool) -> None:
        """Print a line if its state has changed, or now and then."""
        now = time.monotonic()
        shown, at = self._printed.get(what, (("", ""), 0.0))
        if state != shown or (again and now - at >= PLAIN_SECONDS):
            self._printed[what] = (state, now)
            stamp = time.strftime("%H:%M:%S")
            self._console.print(f"{stamp}  {line}", markup=False, highlight=False, soft_wrap=True)


def progress_view(progress: Progress) -> Group:
    """The table of an experiment's runs, and below it why each is as it is; of a sweep, its trials first."""
    if progress.sweep is not None:
        return _sweep_view(progress, progress.sweep)
    lines = [Text.assemble((row.short_id, "bold"), "  ", row.words) for row in progress.rows[:ROWS] if row.words]
    if len(progress.rows) > ROWS:
        lines.append(Text(f"and {len(progress.rows) - ROWS} more: `mosaic status --json` lists them"))
    lines += _notices(progress)
    return Group(Text(progress.heading()), _run_table(progress.rows[:ROWS]), *lines)


def _run_table(rows: Sequence[RunRow]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold dim")
    for name in ("run", "worker", "seed", "state", "step", "steps/s", "return", "memory", "time"):
        table.add_column(name, justify="left" if name in ("run", "worker", "state") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _sweep_view(progress: Progress, sweep: SweepProgress) -> Group:
    several = any(row.worker for row in sweep.rows)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold dim")
    # Where it is narrow, the names of settings and metrics give way, not what tells trials apart.
    table.add_column("trial", no_wrap=True)
    for name in (*(["worker"] if several else []), *sweep.columns):
        table.add_column(name, overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("rung", justify="right", no_wrap=True)
    table.add_column(sweep.metric, justify="right", overflow="fold")
    shown = _of_interest(sweep.rows)
    for row in shown:
        table.add_row(*_trial_cells(row, sweep.columns, several))
    parts: list[Text | Table] = [Text(progress.heading()), Text(sweep.headline), table]
    if len(shown) < len(sweep.rows):
        parts.append(Text(f"and {len(sweep.rows) - len(shown)} more: `mosaic status --json` lists them"))
    active = [row for row in progress.rows if row.state not in ENDED and row.state not in WAITING]
    if active:
        parts += [Text(""), _run_table(active[:RUN_ROWS])]
        # A start that takes longer has a reason: its environment is built, say.
        noted = (
            row
            for row in active[:RUN_ROWS]
            if row.stood_still >= 1 or row.warnings or (row.state == "STARTING" and row.running >= SLOW_START)
        )
        parts += [Text(f"{row.short_id}  {row.words}") for row in noted]
    waiting = next((row for row in progress.rows if row.state == "PENDING" and row.reason), None)
    if waiting is not None:
        parts.append(Text(f"{waiting.trial or ''} {waiting.short_id}  {waiting.reason}", style="dim"))
    return Group(*parts, *_notices(progress))


def _notices(progress: Progress) -> list[Text]:
    return [Text(line, style="yellow") for line in progress.notices]


def _of_interest(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """As many as fit: the best and those under way before those that are over, in their order."""
    if len(rows) <= ROWS:
        return list(rows)
    rank = {"RUNNING": 1, "PAUSED": 2, "FAILED": 3, "COMPLETED": 4}
    chosen = sorted(rows, key=lambda row: (not row.best, rank.get(row.state, 5)))[:ROWS]
    return sorted(chosen, key=lambda row: row.name)


def _trial_cells(row: TrialRow, columns: Sequence[str], several: bool) -> list[Text | str]:
    return [
        Text(row.name, style="bold" if row.best else ""),
        *([row.worker or ""] if several else []),
        *(row.params.get(name, "") for name in columns),
        Text(row.state, style=state_style(row.state)),
        row.rung,
        Text(row.score, style="bold green" if row.best else ""),
    ]


def _cells(row: RunRow) -> list[Text | str]:
    return [
        f"{row.trial} {row.short_id}" if row.trial else row.short_id,
        row.worker,
        "" if row.seed is None else str(row.seed),
        Text(row.state, style=state_style(row.state)),
        "" if row.step is None else f"{row.step:,}",
        "" if not row.rate else f"{row.rate:,.0f}",
        "" if row.episodic_return is None else f"{row.episodic_return:.1f}",
        row.peak_memory,
        format_duration(round(row.running)),
    ]
