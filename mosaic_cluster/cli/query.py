"""``mosaic query``: SQL over an experiment's telemetry."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mosaic_cluster.cli.output import ExperimentArgument, StorageOption, note
from mosaic_cluster.worker.errors import InvalidInput, Problem

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet")
ROWS = 100


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("query")
    def query(
        experiment: ExperimentArgument,
        sql: Annotated[str, typer.Argument(metavar="SQL", help="DuckDB's SQL.", show_default=False)],
        storage: StorageOption = None,
        form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A file instead of stdout.", show_default=False)
        ] = None,
    ) -> None:
        """Ask an experiment with SQL, also while it runs.

        Views: runs, trials, lifecycle, steps, episodes, metrics. What a later attempt did again is left out;
        metrics_all and the like have every row.
        """
        from mosaic_cluster.app.querying import query_experiment
        from mosaic_cluster.experiments.home import find_experiment
        from mosaic_cluster.storage import Storage, default_location

        if form not in FORMATS:
            raise InvalidInput([Problem("--format", f"there is no {form!r}; give one of: {', '.join(FORMATS)}")])
        if form == "parquet" and output is None:
            raise InvalidInput([Problem("--output", "missing; Parquet goes into a file: give its path")])
        home = find_experiment(Storage.open(storage or default_location()), experiment)
        answer = query_experiment(home, sql)
        if form == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(answer, output)
        elif output is not None:
            output.write_text(_text(answer, "csv" if form == "table" else form), encoding="utf-8")
        elif form == "table":
            _show(answer)
        else:
            sys.stdout.write(_text(answer, form))


def _text(answer: pa.Table, form: str) -> str:
    if form == "json":
        return json.dumps(answer.to_pylist(), indent=2, default=str, ensure_ascii=False) + "\n"
    import pyarrow as pa
    import pyarrow.csv as pc

    sink = pa.BufferOutputStream()
    pc.write_csv(answer, sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written.decode()


def _show(answer: pa.Table) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*map(str, answer.column_names), pad_edge=False)
    for row in answer.slice(0, ROWS).to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    Console().print(table)
    if answer.num_rows > ROWS:
        note(f"the first {ROWS} of {answer.num_rows:,} rows; --format csv gives all, --output FILE keeps them")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
