"""A report of an experiment: read, drawn and written."""

from __future__ import annotations

from pathlib import Path

from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.reports import Report, draw, gather, html_page
from mosaic_cluster.storage import Storage

FOLDER = "report"
USUAL = "episodic_return"
PICTURE, PAGE = "report.png", "report.html"


def read_report(home: ExperimentHome, metric: str | None, axis: str) -> Report:
    """The curves of an experiment, finished or running.

    Args:
        metric: what is drawn; ``None``: what a sweep is judged by, else ``episodic_return``.
        axis: ``steps`` or ``seconds``.

    Raises:
        InvalidInput: no run has reported that metric.
    """
    status = read_status(home)
    wanted = metric or str((status.get("sweep") or {}).get("metric") or USUAL)
    return gather(home.storage.at("telemetry"), status, wanted, axis)


def write_report(home: ExperimentHome, report: Report, out: Path | None) -> list[str]:
    """Draw the picture, and write it and the page.

    Args:
        out: a folder; ``None``: the folder ``report`` of the experiment, in its storage.

    Returns:
        where they are.

    Raises:
        InvalidInput: matplotlib is not installed.
    """
    picture = draw(report) if report.facets else None
    place = home.storage.at(FOLDER) if out is None else Storage.open(out)
    written = []
    if picture is not None:
        place.put(PICTURE, picture)
        written.append(f"{place.location}/{PICTURE}")
    place.put(PAGE, html_page(report, picture).encode())
    return [*written, f"{place.location}/{PAGE}"]
