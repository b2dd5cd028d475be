"""``mosaic cluster``: look at a cluster's nodes, or pretend a cluster on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_cluster.cli.output import JsonOption, note, print_json
from mosaic_cluster.cli.run import AddressOption

if TYPE_CHECKING:
    from mosaic_cluster.placement import ClusterView

ON_HELP = "A cluster file, or a nodes table such as '4x(8cpu,2xA100-40GB)', instead of a live cluster."
OnOption = Annotated[str | None, typer.Option("--on", metavar="CLUSTER", help=ON_HELP, show_default=False)]
SvgOption = Annotated[
    Path | None, typer.Option("--svg", metavar="FILE", help="Write the picture as SVG too.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="cluster", help="Look at a cluster's nodes; pretend a cluster on this machine.")

    @group.command("nodes")
    def nodes(
        address: AddressOption = None,
        on: OnOption = None,
        show_all: Annotated[bool, typer.Option("--all", help="Every node, however many.")] = False,
        svg: SvgOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show nodes, GPUs and who knows their memory, what runs where, and what is free."""
        from mosaic_cluster.app.clusters import cluster_view

        view = cluster_view(on, address or _environment_address())
        if as_json:
            print_json(_document(view))
        else:
            from mosaic_cluster.cli.drawing import show

            show(view, show_all=show_all)
        if svg is not None:
            from mosaic_cluster.cli.drawing import write_svg

            write_svg(svg, view, title="mosaic cluster nodes")

    @group.command("simulate")
    def simulate(
        nodes: Annotated[
            str,
            typer.Option(
                "--nodes",
                metavar="CLUSTER",
                help="A nodes table such as '4x(8cpu,2xA100-40GB),2x(4cpu,1xRTX4090)', or a cluster file.",
                show_default=False,
            ),
        ],
        as_json: JsonOption = False,
    ) -> None:
        """Start a Ray cluster of many nodes on this machine, with pretend GPUs, until Ctrl-C.

        Runs on it are real; GPUs are only counted. With --json, one line tells the address, the variables that
        others need to join, and the process id of each node.
        """
        from mosaic_cluster.app.clusters import simulate as keep_up

        note("starting nodes ...")
        keep_up(nodes, _tell_json if as_json else _tell)


def _environment_address() -> str | None:
    import os

    return os.environ.get("RAY_ADDRESS") or None


def _document(view: ClusterView) -> dict[str, Any]:
    from dataclasses import asdict

    document = view.to_dict()
    document.setdefault("launchable", [asdict(kind) for kind in view.launchable])
    document.setdefault("holdings", [asdict(holding) for holding in view.holdings])
    return document


def _tell(cluster: Any) -> None:
    variables = " ".join(f"{name}={value}" for name, value in sorted(cluster.env.items()))
    count = len(cluster.names)
    sys.stdout.write(
        f"{count} node{'' if count == 1 else 's'} at {cluster.address}, until Ctrl-C. In another terminal:\n\n"
        f"  export {variables}\n  mosaic cluster nodes\n  mosaic run SPEC\n\n"
    )
    sys.stdout.flush()


def _tell_json(cluster: Any) -> None:
    import json

    nodes = {name: cluster.pid(name) for name in cluster.names}
    sys.stdout.write(json.dumps({"address": cluster.address, "env": cluster.env, "nodes": nodes}) + "\n")
    sys.stdout.flush()
