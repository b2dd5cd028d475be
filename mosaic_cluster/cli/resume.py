"""``mosaic resume``: continue an experiment whose driver ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, JsonOption, StorageOption, note
from mosaic_cluster.cli.run import AddressOption, BackendOption


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("resume")
    def resume(
        experiment: ExperimentArgument,
        backend: BackendOption = "ray",
        address: AddressOption = None,
        storage: StorageOption = None,
        spec: Annotated[
            Path | None,
            typer.Option("--spec", help="The spec, if you edited it.", metavar="SPEC", show_default=False),
        ] = None,
        allow_changed: Annotated[
            bool, typer.Option("--allow-changed", help="Accept an edited spec, where that is possible.")
        ] = False,
        retry_failed: Annotated[
            bool, typer.Option("--retry-failed", help="Give runs that FAILED another try, too.")
        ] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Continue an experiment that was stopped, paused, or lost its driver.

        Completed runs are not run again; the others continue from their last checkpoints under the same ids.
        A spec that was edited is refused with what differs, unless --allow-changed.
        """
        from mosaic_cluster.app.driving import continue_experiment
        from mosaic_cluster.cli.following import finish, following
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location

        home = find_experiment(Storage.open(storage or default_location()), experiment)
        with following(as_json) as view:
            result = continue_experiment(
                home,
                backend=backend,
                address=address,
                spec=spec,
                allow_changed=allow_changed,
                retry_failed=retry_failed,
                listener=view,
                notice=note,
            )
        finish(result, as_json)
