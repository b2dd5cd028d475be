"""``mosaic workers new``: begin a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(group: typer.Typer) -> None:
    """Add the verb."""

    @group.command("new")
    def new(
        name: Annotated[str, typer.Argument(metavar="NAME", help="as my_worker", show_default=False)],
        path: Annotated[Path, typer.Option("--path", metavar="DIR", help="where its folder is made")] = Path("."),
    ) -> None:
        """Write the package of a new worker, which keeps the contract at once. Nothing is overwritten."""
        from mosaic_cluster.app.scaffolding import new_worker

        folder = new_worker(name, path)
        typer.echo(f"made {folder}. Next:")
        typer.echo(f"  pip install -e {folder}")
        typer.echo(f"  mosaic workers check {name}")
        typer.echo(f"  mosaic run {folder / 'example.yaml'}")
