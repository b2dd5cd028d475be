"""``mosaic workers``: which workers are installed, what they declare, what they can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_cluster.cli import check_a_worker, new_worker, workers_environments
from mosaic_cluster.cli.output import JsonOption, note, print_json

if TYPE_CHECKING:
    from mosaic_cluster.catalog import WorkerEntry


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(no_args_is_help=False)
    words = "List the installed workers, try them, begin new ones, and look after what they run in."
    app.add_typer(group, name="workers", help=words)

    @group.callback(invoke_without_command=True)
    def workers(context: typer.Context, as_json: JsonOption = False) -> None:
        if context.invoked_subcommand is not None:
            return
        from mosaic_cluster.catalog import Catalog

        entries = Catalog().entries()
        if as_json:
            print_json([entry_document(entry) for entry in entries])
        elif not entries:
            note("no workers are installed: install a package with a `mosaic.workers` entry point")
        else:
            _table(entries)

    @group.command("show")
    def show(
        name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)], as_json: JsonOption = False
    ) -> None:
        """Show what a worker declares, and every field of its config."""
        from mosaic_cluster.catalog import Catalog

        entry = Catalog().get(name)
        if as_json:
            print_json(entry_document(entry))
        else:
            _show(entry)

    workers_environments.register(group)
    check_a_worker.register(group)
    new_worker.register(group)


def entry_document(entry: WorkerEntry) -> dict[str, Any]:
    """A catalog entry as JSON."""
    return entry.to_dict()


def _table(entries: tuple[WorkerEntry, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("worker", "version", "library", "CPUs", "memory", "GPU", "agents"):
        table.add_column(name, no_wrap=True)
    table.add_column("about", overflow="fold")
    for entry in entries:
        if entry.error is not None or entry.capabilities is None or entry.metadata is None:
            reason = (entry.error or "").strip().splitlines()
            table.add_row(
                entry.name, entry.version, "", "", "", "", "",
                Text("broken: " + (reason[-1] if reason else "it declares nothing"), style="red"),
            )  # fmt: skip
            continue
        needs, about = entry.capabilities, entry.metadata
        table.add_row(
            entry.name,
            entry.version,
            " ".join(part for part in (about.upstream_library, about.upstream_version) if part),
            str(needs.cpu_cores),
            f"{needs.estimated_memory_mb} MB",
            _gpu(needs),
            str(needs.max_agents),
            Text(about.description),
        )
    Console().print(table)


def _gpu(needs: Any) -> str:
    if needs.gpu_memory_mb:
        return f"{needs.gpu_memory_mb} MB"
    return "yes" if needs.requires_gpu else ""


def _show(entry: WorkerEntry) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console()
    about, needs = entry.metadata, entry.capabilities
    console.print(f"{entry.name} {entry.version}  ({entry.distribution}, {entry.value})", highlight=False)
    if about is not None:
        console.print(Text(f"{about.name}: {about.description}\n{about.homepage}  {about.license}"))
    if needs is not None:
        table = Table("declares", "value", pad_edge=False)
        for name, value in sorted(needs.to_dict().items()):
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            table.add_row(name, Text(shown))
        console.print(table)
    for environment in entry.environments:
        when = " and ".join(f"{path} is {' or '.join(one)}" for path, one in environment.when.items())
        python = f"Python {' or '.join(environment.python) or 'as here'}"
        what = environment.interpreter or environment.image_uri or python
        number = len(environment.steps)
        count = f", {number} step{'' if number == 1 else 's'} to build" if environment.is_built else ""
        said = f"  {what}{count}{', used if ' + when if when else ''}"
        console.print(Text.assemble(("environment ", "bold"), (environment.name, "cyan"), said), highlight=False)
    if entry.config_fields is None:
        console.print("its config's fields are not known (no dataclass found)")
        return
    console.print(Text("config", style="bold"))
    for field in entry.config_fields:
        default = "required" if field.required else f"default {field.default}" if field.default is not None else ""
        about_it = ", ".join(part for part in (field.type, default, _range(field), field.unit or "") if part)
        console.print(Text.assemble(("  " + field.name, "cyan"), f"  {about_it}"), highlight=False)
        if field.help:
            console.print(Padding(Text(field.help, style="dim"), (0, 0, 0, 6)), highlight=False)


def _range(field: Any) -> str:
    if field.choices:
        return " | ".join(map(str, field.choices))
    low = "" if field.min is None else f"≥ {field.min}"
    if field.exclusive_min is not None:
        low = f"> {field.exclusive_min}"
    high = "" if field.max is None else f"≤ {field.max}"
    return " ".join(part for part in (low, high) if part)
