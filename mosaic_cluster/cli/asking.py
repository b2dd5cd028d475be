"""What ``stop``, ``pause`` and ``unpause`` share: leave a request, wait until it has been acted on."""

from __future__ import annotations

import sys

import typer

from mosaic_cluster.app.asking import ask_experiment
from mosaic_cluster.cli.output import note, print_json


def ask(verb: str, experiment: str, runs: list[str], storage: str | None, wait: float, as_json: bool) -> None:
    """Send a request and tell what became of it. Exit code 1 when it did not happen in time."""
    answer = ask_experiment(verb, experiment, runs, storage, wait)
    if as_json:
        print_json(answer.to_dict())
    else:
        for line in answer.lines:
            sys.stdout.write(line + "\n")
        if not answer.done:
            note(f"not done after {wait:.0f}s: the request stands; `mosaic status {answer.experiment_id}` tells")
    if not answer.done:
        raise typer.Exit(1)
