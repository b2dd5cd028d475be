"""``mosaic plan``: what running a spec would do. Starts nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mosaic_cluster.cli.output import JsonOption, StorageOption, note, print_json
from mosaic_cluster.cli.run import AddressOption, BackendOption


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("plan")
    def plan(
        spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML or JSON file.", show_default=False)],
        backend: BackendOption = "ray",
        address: AddressOption = None,
        storage: StorageOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Check SPEC and print what running it would do: runs, resources, nodes, what would wait and why."""
        from mosaic_cluster.app.driving import plan_of

        prepared, lines, answers = plan_of(spec, backend=backend, address=address, storage=storage, notice=note)
        if as_json:
            print_json({"spec": prepared.document, "runs": answers, "lines": lines})
        else:
            sys.stdout.write("\n".join(lines) + "\n")
