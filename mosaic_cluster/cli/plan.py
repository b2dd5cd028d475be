"""``mosaic plan``: what running a spec would do. Starts nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_cluster.cli.building import Building
from mosaic_cluster.cli.cluster import OnOption, SvgOption
from mosaic_cluster.cli.output import JsonOption, StorageOption, note, print_json
from mosaic_cluster.cli.run import AddressOption, BackendOption
from mosaic_cluster.worker.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from mosaic_cluster.experiments.planning import Prepared
    from mosaic_cluster.runtime.trying import DryRun


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("plan")
    def plan(
        spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML or JSON file.", show_default=False)],
        backend: BackendOption = "ray",
        address: AddressOption = None,
        storage: StorageOption = None,
        on: OnOption = None,
        svg: SvgOption = None,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run",
                help="Also have each worker check its config on this machine, its library included: what only it can "
                "know, such as whether there is such an environment.",
            ),
        ] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Check SPEC and print what running it would do: runs, resources, nodes, what would wait and why.

        With --on, on a cluster that is only described: without Ray, and with a picture of what would run where.
        Exit code 1 if a run could never run there, or a worker refuses its config.
        """
        if on is not None:
            _on(spec, on, storage, svg, dry_run, as_json)
            return
        if svg is not None:
            raise InvalidInput([Problem("--svg", "draws a described cluster: give one with --on")])
        from mosaic_cluster.app.driving import plan_of

        prepared, lines, answers = plan_of(spec, backend=backend, address=address, storage=storage, notice=note)
        tried, told = _tried(prepared) if dry_run else ([], [])
        if as_json:
            document = {"spec": prepared.document, "runs": answers, "lines": [*lines, *told]}
            print_json({**document, "dry_runs": [each.to_dict() for each in tried]})
        else:
            sys.stdout.write("\n".join([*lines, *told]) + "\n")
        _conclude(answers, tried)


def _tried(prepared: Prepared) -> tuple[list[DryRun], list[str]]:
    from mosaic_cluster.app.trying import dry_run_lines, try_out

    tried = try_out(prepared, Building().tell)
    return tried, dry_run_lines(tried)


def _conclude(answers: list[dict[str, Any]], tried: list[DryRun]) -> None:
    if any(answer["answer"] == "infeasible" for answer in answers) or not all(each.fine for each in tried):
        raise typer.Exit(1)


def _on(spec: Path, cluster: str, storage: str | None, svg: Path | None, dry_run: bool, as_json: bool) -> None:
    from mosaic_cluster.app.driving import plan_on
    from mosaic_cluster.cli.drawing import show, write_svg

    prepared, lines, answers, made = plan_on(spec, cluster, storage=storage)
    tried, told = _tried(prepared) if dry_run else ([], [])
    if as_json:
        document = {"spec": prepared.document, "runs": answers, "lines": [*lines, *told], "forecast": made.to_dict()}
        print_json({**document, "dry_runs": [each.to_dict() for each in tried]})
    else:
        sys.stdout.write("\n".join([*lines, *told]) + "\n\n")
        sys.stdout.flush()
        show(made.view)
    if svg is not None:
        shown = cluster if "(" in cluster else Path(cluster).name
        write_svg(svg, made.view, title=f"mosaic plan {spec.name} --on {shown}")
    _conclude(answers, tried)
