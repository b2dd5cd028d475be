"""``mosaic plan``: what running a spec would do. Starts nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mosaic_cluster.cli.cluster import OnOption, SvgOption
from mosaic_cluster.cli.output import JsonOption, StorageOption, note, print_json
from mosaic_cluster.cli.run import AddressOption, BackendOption
from mosaic_cluster.worker.errors import InvalidInput, Problem


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
        as_json: JsonOption = False,
    ) -> None:
        """Check SPEC and print what running it would do: runs, resources, nodes, what would wait and why.

        With --on, on a cluster that is only described: without Ray, and with a picture of what would run where.
        """
        if on is not None:
            _on(spec, on, storage, svg, as_json)
            return
        if svg is not None:
            raise InvalidInput([Problem("--svg", "draws a described cluster: give one with --on")])
        from mosaic_cluster.app.driving import plan_of

        prepared, lines, answers = plan_of(spec, backend=backend, address=address, storage=storage, notice=note)
        if as_json:
            print_json({"spec": prepared.document, "runs": answers, "lines": lines})
        else:
            sys.stdout.write("\n".join(lines) + "\n")


def _on(spec: Path, cluster: str, storage: str | None, svg: Path | None, as_json: bool) -> None:
    from mosaic_cluster.app.driving import plan_on
    from mosaic_cluster.cli.drawing import show, write_svg

    prepared, lines, answers, made = plan_on(spec, cluster, storage=storage)
    if as_json:
        print_json({"spec": prepared.document, "runs": answers, "lines": lines, "forecast": made.to_dict()})
    else:
        sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()
        show(made.view)
    if svg is not None:
        shown = cluster if "(" in cluster else Path(cluster).name
        write_svg(svg, made.view, title=f"mosaic plan {spec.name} --on {shown}")
