"""How long a person waits for the command itself, beside an interpreter that does nothing.

``python tests/benchmarks/bench_start.py [--json] [--repeats N]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import mosaic_cluster": ["-c", "import mosaic_cluster"],
    "mosaic --help": ["-m", "mosaic_cluster.cli", "--help"],
    "mosaic ls": ["-m", "mosaic_cluster.cli", "ls", "--storage", "/nowhere"],
}


def seconds(arguments: list[str]) -> float:
    """Of one start, to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a person waits for the command itself.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--repeats", type=int, default=11, help="starts of each (default: %(default)s)")
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.repeats):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    medians = {name: statistics.median(found) for name, found in times.items()}
    if args.json:
        print(json.dumps({"benchmark": "start", "repeats": args.repeats, "seconds": medians}))
        return
    print(f"{args.repeats} starts of each, in turn")
    print(f"{'':24}{'median ms':>10}{'min':>8}{'max':>8}")
    for name, found in times.items():
        print(f"{name:24}{medians[name] * 1e3:>10.0f}{min(found) * 1e3:>8.0f}{max(found) * 1e3:>8.0f}")


if __name__ == "__main__":
    main()
