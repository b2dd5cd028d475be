"""``mosaic workers install | doctor | environments``: what workers run in, on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_cluster.cli.output import JsonOption, note, print_json

if TYPE_CHECKING:
    from mosaic_cluster.catalog.environments import BuildProgress, Stored
    from mosaic_cluster.catalog.environments.doctor import Check

EnvironmentOption = Annotated[
    str | None,
    typer.Option("--environment", help="Only the environment of this name.", show_default=False),
]
PLAIN_SECONDS = 10.0


def register(group: typer.Typer) -> None:
    """Add the verbs to ``mosaic workers``."""
    group.command("install")(_install)
    group.command("doctor")(_doctor)
    group.command("environments")(_environments)


def _install(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Of all installed workers.")] = False,
    environment: EnvironmentOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build anew what is there.")] = False,
    debian_python: Annotated[
        bool,
        typer.Option(
            "--debian-python",
            help="Where the Python it needs is not found: unpack one from Debian's packages. Needs no root.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the environments that workers run in; what is there stays, what was interrupted goes on."""
    from mosaic_cluster.app import environments
    from mosaic_cluster.worker.errors import InvalidInput, Problem

    if bool(names) == every:
        raise InvalidInput([Problem("NAME", "name the workers whose environments are to be built, or give --all")])
    results = environments.broken() if every else []
    for one in results:
        note(f"{one.label} is broken: {one.words}")
    for entry, each in environments.chosen_environments(names or (), environment):
        with _Display() as display:
            done = environments.install(entry, each, rebuild=rebuild, debian_python=debian_python, report=display)
        results.append(done)
        if not as_json or done.state == "failed":
            note(_sentence(done.label, done.state, done.words))
    for name in names or ():
        if not any(result.worker == name for result in results):
            note(f"{name}: nothing to build; `mosaic workers show {name}` tells what it runs in")
    if as_json:
        print_json([result.to_dict() for result in results])
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


def _doctor(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a worker can run here: its interpreter, its environment, what is seen from inside."""
    from mosaic_cluster.app.environments import examinations

    documents: list[dict[str, Any]] = []
    for title, checks in examinations(name, environment):
        if not as_json:
            typer.echo(title)
        found = []
        for check in checks:
            found.append(check)
            if not as_json:
                _show(check)
        documents.append({"environment": title, "checks": [check.to_dict() for check in found]})
    if as_json:
        print_json(documents)
    wrong = sum(not check["fine"] for document in documents for check in document["checks"])
    if wrong:
        note(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
        raise typer.Exit(1)
    if not as_json:
        typer.echo("all is well")


def _environments(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove all but those that installed workers use now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the environments in this machine's cache, with their sizes."""
    from mosaic_cluster.app import environments

    found = environments.list_environments()
    gone = environments.prune(found) if prune else []
    left = [entry for entry in found if entry not in gone]
    if as_json:
        print_json(
            {"environments": [entry.to_dict() for entry in left], "removed": [entry.to_dict() for entry in gone]}
        )
        return
    _table(left)
    if gone:
        from mosaic_cluster.units import format_bytes

        note(f"removed {len(gone)}: {format_bytes(sum(entry.size for entry in gone))}")
    for entry in left if prune else ():
        if entry.state == environments.UNUSED and environments.built_elsewhere(entry):
            note(
                f"{entry.name} is left: {entry.record.get('host')} has built it, and may use it; prune there, or "
                f"remove {entry.folder}"
            )


def _sentence(label: str, state: str, words: str) -> str:
    if state == "failed":
        return words
    return {"built": f"{label} is built: {words}", "there": f"{label} is there: {words}", "used": f"{label}: {words}"}[
        state
    ]


class _Display:
    """Shows how far a build is: one line that changes on a terminal, else a line at each step and every ten seconds."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Any = None
        self._shown: tuple[Any, ...] = ()
        self._at = 0.0

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, progress: BuildProgress) -> None:
        """Show it."""
        from rich.markup import escape

        step = (progress.step, progress.name, progress.builder is None)
        if self._status is not None:
            width = max(20, self._console.width - 4)
            line = progress.line[:width]
            self._status.update(f"{escape(progress.sentence())}\n  [dim]{escape(line)}[/dim]")
            return
        now = time.monotonic()
        if step != self._shown or now - self._at >= PLAIN_SECONDS:
            self._shown, self._at = step, now
            text = progress.sentence() + (f": {progress.line}" if progress.line else "")
            self._console.print(f"{time.strftime('%H:%M:%S')}  {text}", markup=False)


def _show(check: Check) -> None:
    first, *more = check.words.splitlines() or [""]
    typer.echo(f"  {'ok   ' if check.fine else 'WRONG'}  {check.what:<14}  {first}")
    for line in more:
        typer.echo(f"{'':25}{line}")


def _table(entries: list[Stored]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mosaic_cluster.units import format_bytes

    if not entries:
        note("there are none: `mosaic workers install NAME` builds those of a worker")
        return
    table = Table("environment", "state", "Python", "built", pad_edge=False)
    table.add_column("size", justify="right")
    for entry in entries:
        record = entry.record
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["built_at"])) if record else ""
        version = record["interpreter"]["version"] if record else ""
        table.add_row(Text(entry.name), entry.state, version, when, format_bytes(entry.size))
    Console().print(table)
    note(f"{format_bytes(sum(entry.size for entry in entries))} in all; --prune removes those that nothing here uses")
