"""``mosaic bridge``: write an experiment's metrics to another tracker."""

from __future__ import annotations

from typing import Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, StorageOption, note


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("bridge")
    def bridge(
        experiment: ExperimentArgument,
        name: Annotated[str, typer.Argument(metavar="NAME", help="tensorboard, wandb or mlflow.", show_default=False)],
        storage: StorageOption = None,
        option: Annotated[
            list[str] | None,
            typer.Option(
                "--option", help="KEY=VALUE, over what the spec says.", metavar="KEY=VALUE", show_default=False
            ),
        ] = None,
    ) -> None:
        """Write EXPERIMENT's metrics to another tracker: what it does not have yet.

        Of an experiment that runs, until it ends or Ctrl-C. What was written is remembered: the next time goes on
        from there.
        """
        from mosaic_cluster.app.bridging import bridge_experiment
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location

        home = find_experiment(Storage.open(storage or default_location()), experiment)
        files = bridge_experiment(home, name, option or [], note)
        note(f"{home.experiment_id} is in {name}: " + (f"{files} files written" if files else "there was nothing new"))
