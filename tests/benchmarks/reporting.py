"""What the benchmarks share: a result is printed as a table or as JSON, and kept for the summary at the end."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--save", type=Path, help="also write the JSON object into this folder")
    return parser


def report(args: argparse.Namespace, found: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """Print, and keep if asked to; with the machine's load, which says how much the figures are worth."""
    found |= {"cpus": os.cpu_count(), "load": os.getloadavg()}
    if args.save is not None:
        (args.save / f"{found['benchmark']}.json").write_text(json.dumps(found))
    if args.json:
        print(json.dumps(found))
    else:
        show(found)
        print(f"{found['cpus']} CPUs; load average of the last 1, 5 and 15 minutes: {found['load']}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
