"""``mosaic workers check``: does a worker keep the contract?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mosaic_cluster.cli.building import Building
from mosaic_cluster.cli.output import JsonOption, note, print_json

if TYPE_CHECKING:
    from mosaic_cluster.conformance import Verdict

_STYLES = {"passed": "green", "failed": "bold red", "warned": "yellow", "not run": "dim"}


def register(group: typer.Typer) -> None:
    """Add the verb."""

    @group.command("check")
    def check(
        name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
        config: Annotated[
            Path | None,
            typer.Option(
                "--config",
                metavar="FILE",
                show_default=False,
                exists=True,
                dir_okay=False,
                help="JSON or YAML: a config that takes seconds, or {config, long_config, policy_game, ...}. Default: "
                "conformance.json beside the worker's code, else its own defaults.",
            ),
        ] = None,
        library: Annotated[
            bool, typer.Option("--library/--no-library", help="Whether its library is there; without, some checks.")
        ] = True,
        strict: Annotated[bool, typer.Option("--strict", help="What it only should do counts as failed, too.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Try whether a worker keeps the contract: its real processes, from outside. Exit code 1 if it does not."""
        from mosaic_cluster.catalog import Catalog
        from mosaic_cluster.conformance import case_of, check_worker
        from mosaic_cluster.worker.errors import BrokenWorker

        try:
            package = Catalog().get(name).package
        except BrokenWorker:  # that is a verdict, too
            package = name
        more = {} if library else {"library": False}
        case = case_of(name, package, config, strict=strict, **more)
        verdicts = check_worker(case, (lambda verdict: None) if as_json else _print, Building().tell)
        failed = sum(verdict.status == "failed" for verdict in verdicts)
        if as_json:
            print_json({"worker": name, "passed": not failed, "checks": [each.to_dict() for each in verdicts]})
        else:
            _conclude(name, verdicts)
        if failed:
            raise typer.Exit(1)


def _print(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, style=_STYLES[verdict.status])
    grid.add_column(width=20)
    grid.add_column()
    words = Text(verdict.about)
    if verdict.reason:
        words.append(f"\n{verdict.reason}")
    if verdict.remedy:
        words.append(f"\n→ {verdict.remedy}", style="cyan")
    grid.add_row(verdict.status, verdict.check, words)
    Console().print(grid, highlight=False)


def _conclude(name: str, verdicts: list[Verdict]) -> None:
    counts = {status: sum(each.status == status for each in verdicts) for status in _STYLES}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if counts["failed"]:
        note(f"{name} does not keep the contract: {told}")
    else:
        note(f"{name} keeps the contract: {told}")
