"""``mosaic ls``: the experiments in a storage."""

from __future__ import annotations

import time

import typer

from mosaic_cluster.cli.output import JsonOption, StorageOption, note, print_json, state_style


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("ls")
    def ls(storage: StorageOption = None, as_json: JsonOption = False) -> None:
        """List the experiments in a storage, the newest last."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from mosaic_cluster.app.listing import list_experiments
        from mosaic_cluster.units import format_duration

        place, rows = list_experiments(storage)
        if as_json:
            print_json(rows)
            return
        if not rows:
            note(f"no experiments in {place}; say where with --storage")
            return
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        # Whole on the narrowest terminal: it is what other verbs are given.
        table.add_column("experiment", no_wrap=True, min_width=max(len(row["experiment_id"]) for row in rows))
        for name in ("kind", "state", "runs"):
            table.add_column(name, no_wrap=True)
        for name in ("started", "why"):
            table.add_column(name, overflow="fold", min_width=len(name))
        for row in rows:
            done = f"{row['completed']}/{row['runs']}"
            age = format_duration(round(max(0.0, time.time() - row["created_at"]))) + " ago"
            state = Text(row["state"], style=state_style(row["state"]))
            table.add_row(row["experiment_id"], row["kind"], state, done, age, Text(row["reason"]))
        Console().print(table)
