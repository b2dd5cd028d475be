"""What the verbs share: JSON on stdout, tables for people, errors on stderr, common options."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from mosaic_cluster.worker.errors import InvalidInput, MosaicError

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Folder that holds the experiments (default: $MOSAIC_STORAGE, else ./mosaic-results).",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Its id, the beginning or end of it, the path of its folder, or 'latest'.",
        show_default=False,
    ),
]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """A line for people on stderr."""
    sys.stderr.write(text + "\n")


def report_error(error: MosaicError) -> None:
    """Show an error of ours on stderr: all problems, one a line."""
    if isinstance(error, InvalidInput):
        count = len(error.problems)
        heading = error.heading or ("1 problem" if count == 1 else f"{count} problems")
        note(f"error: {heading}")
        for problem in error.problems:
            note(f"  {problem}")
        return
    note(f"error: {error}")


def state_style(state: str) -> str:
    """Rich style of a state."""
    return {
        "COMPLETED": "green",
        "RUNNING": "cyan",
        "STARTING": "cyan",
        "PENDING": "yellow",
        "PAUSED": "yellow",
        "STOPPED": "magenta",
        "FAILED": "bold red",
        "CANCELLED": "magenta",
        "LOST": "bold red",
    }.get(state, "")
