"""Stored results as a person wants to see them: curves, a picture, a page. Reads only; needs no Ray."""

from __future__ import annotations

from mosaic_cluster.reports.curves import Band, Report, RunCurve, Series, combined, gather
from mosaic_cluster.reports.intervals import interval
from mosaic_cluster.reports.page import html_page
from mosaic_cluster.reports.picture import draw
from mosaic_cluster.reports.tables import Row, rows

__all__ = [
    "Band",
    "Report",
    "Row",
    "RunCurve",
    "Series",
    "combined",
    "draw",
    "gather",
    "html_page",
    "interval",
    "rows",
]
