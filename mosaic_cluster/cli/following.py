"""What ``run`` and ``resume`` share: a live view while it lasts, a summary and an exit code at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from mosaic_cluster.app.sweep_progress import summary_lines
from mosaic_cluster.cli.live import LiveView
from mosaic_cluster.cli.output import print_json

if TYPE_CHECKING:
    from mosaic_cluster.app.driving import ExperimentResult


@contextmanager
def following(as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A view of status documents; on stderr when stdout is for JSON."""
    with LiveView(Console(stderr=as_json)) as view:
        yield view


def finish(result: ExperimentResult, as_json: bool) -> None:
    """Tell how it ended, and exit with the code that says so."""
    if as_json:
        print_json({**result.status, "path": result.location, "exit_code": result.exit_code})
    else:
        console = Console()
        took = ""
        if result.drove:
            seconds = float(result.status["updated_at"]) - float(result.status["driven_since"])
            took = f" in {seconds:.0f}s"
        console.print(f"{result.state}{took}: {result.location}", highlight=False, soft_wrap=True)
        if "sweep" in result.status:
            lines = summary_lines(result.status)
        else:
            lines = [
                f"  run {run['run_id']} {run['state']}: {run['reason']}"
                for run in result.status["runs"]
                if run["state"] != "COMPLETED"
            ]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if result.state != "COMPLETED":
            hint = f"  see `mosaic logs {result.experiment_id}`\n  to go on: {_to_go_on(result)}"
            console.print(hint, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(result.exit_code)


# Another try would end like the first: what to change in the spec, by how a run ended.
_CHANGES = {
    "bad_config": "config",
    "max_duration": "limits.max_duration",
    "max_log": "limits.max_log",
    "out_of_memory": "resources.memory or resources.gpu_memory",
}


def _to_go_on(result: ExperimentResult) -> str:
    again = f"mosaic resume {result.experiment_id}"
    if result.state != "FAILED":
        return f"`{again}`"
    codes = {run["code"] for run in result.status["runs"] if run["state"] == "FAILED"}
    wrong = [what for code, what in _CHANGES.items() if code in codes]
    if not wrong:
        return f"`{again} --retry-failed`"
    edit = f"correct {' and '.join(wrong)} in SPEC, then "
    if "bad_config" in codes and "sweep" in result.status:  # whose configurations follow from their numbers
        return f"{edit}`mosaic run SPEC`"
    return f"{edit}`{again} --spec SPEC --allow-changed --retry-failed`"
