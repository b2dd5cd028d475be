"""``mosaic run``: run what a spec says, to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mosaic_cluster.cli.output import JsonOption, StorageOption, note

BackendOption = Annotated[str, typer.Option("--backend", help="'ray', or 'inline': this machine only, without Ray.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Ray cluster to join ('auto' or HOST:PORT); default $RAY_ADDRESS, else an embedded Ray.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("run")
    def run(
        spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML or JSON file.", show_default=False)],
        backend: BackendOption = "ray",
        address: AddressOption = None,
        storage: StorageOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Run what SPEC says, to the end.

        Ctrl-C once stops cleanly: workers checkpoint and end. Exit code: 0 completed, 1 failed,
        2 the spec is wrong, 130 interrupted or stopped.
        """
        from mosaic_cluster.app.driving import run as run_spec
        from mosaic_cluster.cli.following import finish, following

        with following(as_json) as view:
            result = run_spec(spec, backend=backend, address=address, storage=storage, listener=view, notice=note)
        finish(result, as_json)
