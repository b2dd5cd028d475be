"""``mosaic schema``: the JSON Schema of specs, for editors and other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from mosaic_cluster.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("schema")
    def schema(
        kind: Annotated[
            str | None, typer.Argument(metavar="[KIND]", help="Only this kind of spec.", show_default=False)
        ] = None,
    ) -> None:
        """Print the JSON Schema of specs."""
        from mosaic_cluster.specs import json_schema

        print_json(json_schema(kind))
