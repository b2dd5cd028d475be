"""Stored results as a person wants to see them: curves, a picture, a page. Reads only; needs no Ray.

The names are loaded when they are first asked for: a sweep wants intervals, and no DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_cluster.worker.lazy import lazy_names

if TYPE_CHECKING:
    from mosaic_cluster.reports.curves import Band, Report, RunCurve, Series, combined, gather
    from mosaic_cluster.reports.intervals import interval
    from mosaic_cluster.reports.page import html_page
    from mosaic_cluster.reports.picture import draw
    from mosaic_cluster.reports.tables import Row, rows

_HOMES = {
    **dict.fromkeys(("Band", "Report", "RunCurve", "Series", "combined", "gather"), "curves"),
    "interval": "intervals",
    "html_page": "page",
    "draw": "picture",
    **dict.fromkeys(("Row", "rows"), "tables"),
}

__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})

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
