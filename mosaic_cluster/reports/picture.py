"""All curves of a report in one picture: a small one for each environment, since only within one values compare."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mosaic_cluster.reports.curves import STEPS, Report, Series, combined
from mosaic_cluster.worker.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
WIDTH, HEIGHT, DPI = 6.0, 3.9, 120
NAMED = 12
"""More curves than these in one picture are coloured by their worker, and not named one by one."""

STYLES = ("-", "--", ":", "-.")


def draw(report: Report) -> bytes:
    """The picture, as a PNG. Of each seed a thin line; the mean over them where all have a value, and a band.

    Raises:
        InvalidInput: matplotlib is not installed, or there is nothing to draw.
    """
    facets = report.facets
    if not facets:
        raise InvalidInput([Problem(report.metric, "no run has reported it yet: there is nothing to draw")])
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        told = f"draws the picture, and is not installed ({error}): pip install 'mosaic-cluster[report]'"
        raise InvalidInput([Problem("matplotlib", told)]) from error
    columns = min(COLUMNS, len(facets)) if len(facets) != 4 else 2
    lines = math.ceil(len(facets) / columns)
    width = WIDTH * columns if columns > 1 else WIDTH * 1.4
    figure = Figure(figsize=(width, HEIGHT * lines if lines * columns > 1 else HEIGHT * 1.25), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(lines, columns, squeeze=False).flatten()
    colours = _colours(report)
    kinds: set[str] = set()
    for place, (environment, series) in zip(places, facets.items(), strict=False):
        kinds |= _facet(place, environment, series, report, colours)
    for place in places[len(facets) :]:
        place.set_visible(False)
    title = f"{report.experiment_id}   {report.metric}"
    if report.state != "COMPLETED":
        title += f"   ({report.state})"
    figure.suptitle(title, fontsize=11)
    if caption := _caption(kinds):
        figure.supxlabel(caption, fontsize=8, color="#555555")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, metadata={"Software": "mosaic report"})
    return written.getvalue()


def _facet(
    axes: Axes, environment: str, series: Sequence[Series], report: Report, colours: dict[str, tuple[Any, str]]
) -> set[str]:
    """Draw one environment's curves; which kinds of bands there are."""
    from matplotlib.ticker import EngFormatter

    many = len(series) > NAMED
    kinds, named = set(), set()
    for each in series:
        colour, style = colours[each.worker if many else each.label]
        name = each.worker if many else each.label
        label = None if name in named else name
        named.add(name)
        band = combined(each.told)
        alone = len(each.told) == 1
        for run in each.told:
            marker = "o" if len(run.x) == 1 else ""
            axes.plot(
                run.x, run.y, style, color=colour, linewidth=1.8 if alone else 0.6, alpha=1.0 if alone else 0.45,
                marker=marker, markersize=4, label=label if alone or band is None else None,
            )  # fmt: skip
            label = None if band is None else label
        if band is not None and not alone:
            kinds.add(band.kind)
            axes.plot(band.x, band.mean, style, color=colour, linewidth=2.0, label=label)
            axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_title(environment, fontsize=10)
    axes.set_ylabel(report.metric)
    axes.set_xlabel("environment steps" if report.axis == STEPS else "seconds since the run's first event")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7.5, frameon=False, loc="best")
    return kinds


def _colours(report: Report) -> dict[str, tuple[Any, str]]:
    """Colour and line style of each series, and of each worker; the same in every facet."""
    from matplotlib import colormaps

    palette = colormaps["tab10"].colors  # type: ignore[attr-defined]

    def dealt(names: Sequence[str]) -> dict[str, tuple[Any, str]]:
        count = len(palette)
        return {name: (palette[at % count], STYLES[at // count % len(STYLES)]) for at, name in enumerate(names)}

    workers = list(dict.fromkeys(each.worker for each in report.series))
    return {**dealt(workers), **dealt([each.label for each in report.series])}


def _caption(kinds: set[str]) -> str:
    told = []
    if kinds:
        told.append("thin: one seed; thick: mean over seeds, where all have a value")
    if "interval" in kinds:
        told.append("band: 95 % interval of the mean (Student's t)")
    if "range" in kinds:
        told.append("band of two seeds: from one to the other")
    return "; ".join(told)


__all__ = ["draw"]
