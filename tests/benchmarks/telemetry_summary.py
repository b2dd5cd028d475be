"""What was measured of telemetry beside what is aimed at, from the JSON objects that the benchmarks kept.

``python tests/benchmarks/telemetry_summary.py FOLDER``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = ("emitter", "query", "telemetry", "training")
AGAINST = {"wandb offline": 15.0, "tensorboardX": 25.0, "pyarrow loop": 0.4}
"""Our events a second are to be at least so many times a peer's."""

Row = tuple[str, str, str, bool | None]
"""What, what is aimed at, what was measured, and whether that is it."""


def summary(folder: Path) -> str:
    """The table; a part that was not measured is said to be so."""
    lines = [f"{'telemetry':58}{'aim':>16}{'measured':>16}"]
    for name in SOURCES:
        path = folder / f"{name}.json"
        if not path.is_file():
            lines.append(f"{name}: not measured")
            continue
        for what, aim, measured, holds in ROWS[name](json.loads(path.read_text())):
            mark = {True: "yes", False: "NO", None: ""}[holds]
            lines.append(f"{what:58}{aim:>16}{measured:>16}  {mark}")
    return "\n".join(lines)


def _emitter(found: dict[str, Any]) -> Iterator[Row]:
    ratio = found["ratio"]
    yield "an emitter's call / json.dumps + os.write", "<= 1.5 x", f"{ratio:.2f} x", ratio <= 1.5


def _query(found: dict[str, Any]) -> Iterator[Row]:
    for row in found["questions"]:
        seconds = row["mosaic"]["median"]
        what = f"{row['name']}, {found['runs']:,} runs, {found['rows'] / 1e6:.1f} M rows"
        yield what, "< 1 s", f"{seconds:.2f} s", seconds < 1.0
        cold = row["mosaic_cold"]["median"]
        yield f"  cold; {row['ratio']['median']:.2f} x plain DuckDB when warm", "", f"{cold:.2f} s", None


def _telemetry(found: dict[str, Any]) -> Iterator[Row]:
    for peer in found["not_installed"]:
        yield f"{peer} is not installed", "", "not measured", None
    for case in found.get("flow", ()):
        rate = case["events_per_s"]["median"]
        aim, holds = (">= 100,000/s", rate >= 100_000) if case["shape"] == "small" else ("", None)
        yield f"end to end, {case['name']}", aim, f"{rate:,.0f}/s", holds
        for peer, values in case["against"].items():
            ratio, least = values["ratio"]["median"], AGAINST.get(peer)
            aim, holds = ("", None) if least is None else (f">= {least:g} x", ratio >= least)
            yield f"  / {peer}", aim, f"{ratio:.2f} x", holds
    for row in found.get("hub", ()):
        rate = row["rows_per_cpu_s"]["median"]
        yield f"hub alone, {row['name']}", ">= 1,000,000/s", f"{rate:,.0f}/s", rate >= 1e6
    for row in found.get("crowd", ()):
        yield f"runs at once at {row['rate']:g} events/s each ({row['limit']})", "", f"{row['runs']}", None


def _training(found: dict[str, Any]) -> Iterator[Row]:
    wall = found["wall"]
    interval = f"95 %: {wall['low']:.2%} to {wall['high']:.2%}"
    yield f"training slowed at 1,000 events/s ({interval})", "< 1 %", f"{wall['median']:.2%}", wall["median"] < 0.01
    yield "  inside the emitter", "", f"{found['inside']:.2%}", None
    late = found["linger"]
    name = f"  with linger {late['seconds']:g} s ({late['wall']['low']:.2%} to {late['wall']['high']:.2%})"
    yield name, "< 1 %", f"{late['wall']['median']:.2%}", late["wall"]["median"] < 0.01
    yield "    inside the emitter", "", f"{late['inside']:.2%}", None
    write = found["floor_us"]["write"] * found["rate"] / 1e6
    yield "  one os.write of a ready line in its place", "", f"{write:.2%}", None


ROWS = {"emitter": _emitter, "query": _query, "telemetry": _telemetry, "training": _training}

if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
