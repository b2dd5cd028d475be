"""A report as one HTML file that needs no other: the picture is in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from html import escape

from mosaic_cluster.reports.curves import Report
from mosaic_cluster.reports.tables import Row, rows
from mosaic_cluster.units import format_duration

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 75rem;
       padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.7rem 0.3rem 0; border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
p.note { color: #555; }
"""
_RUN = ("run", "trial", "worker", "seed", "state", "reason", "attempts", "time", "steps", "last value")
_NUMBERS = frozenset({"seeds", "final", "steps", "time", "seed", "attempts", "last value"})


def html_page(report: Report, picture: bytes | None) -> str:
    """The page.

    Args:
        picture: a PNG; ``None``: there is nothing to draw yet.
    """
    heading = f"{report.experiment_id}: {report.metric}"
    state = f"{report.kind}, {report.state}" + (f": {report.reason}" if report.reason else "")
    image = "<p>No run has reported it yet: there is nothing to draw.</p>"
    if picture is not None:
        image = f'<img alt="{escape(heading)}" src="data:image/png;base64,{b64encode(picture).decode()}">'
    names = [each.name for each in fields(Row)]
    series = _table(names, (astuple(row) for row in rows(report)))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{escape(heading)}</h1>\n<p>{escape(state)}</p>\n{image}\n"
        f"<h2>Final values</h2>\n{series}\n"
        '<p class="note">final: the mean over seeds of each run\'s last value; in brackets the 95 % interval of that '
        "mean (Student's t, from three seeds on), in parentheses the values of two seeds. time: of the longest run. "
        "Values of different environments do not compare.</p>\n"
        f"<h2>Runs</h2>\n{_table(_RUN, _runs(report))}\n</body></html>\n"
    )


def _runs(report: Report) -> Iterable[tuple[str, ...]]:
    for series in report.series:
        for run in series.runs:
            yield (
                run.run_id,
                series.trial or "",
                series.worker,
                "" if run.seed is None else str(run.seed),
                run.state,
                run.reason,
                str(run.attempt),
                format_duration(round(run.elapsed)),
                "" if run.step is None else f"{run.step:,}",
                "" if run.final is None else f"{run.final:.6g}",
            )


def _table(names: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for row in body:
        cells = (
            f'<td class="number">{escape(text)}</td>' if name in _NUMBERS else f"<td>{escape(text)}</td>"
            for name, text in zip(names, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body_text = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body_text}\n</tbody></table></div>'


__all__ = ["html_page"]
