"""What one telemetry line costs, beside the least a worker could do by hand.

The peer is ``os.write(fd, json.dumps(payload).encode() + b"\\n")`` with the same payload of five scalars and a file
of its own: no envelope, no timestamp, no lock, no care for odd values. Both run in turn, in one process.

``python tests/benchmarks/bench_emitter.py [--json] [--calls N] [--repeats N]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAYLOAD = {
    "step": 1_234_567,
    "steps_per_second": 1234.5,
    "episodic_return": 212.35,
    "loss": 0.0123456,
    "exploring": False,
}


def seconds_per_call(call: Callable[[], object], calls: int) -> float:
    """Mean over a loop."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def measure(folder: Path, calls: int, repeats: int) -> dict[str, Any]:
    """Runs in a process whose stdout is a file: the emitter writes to the real stdout."""
    from mosaic_cluster.worker import TelemetryEmitter

    emitter = TelemetryEmitter("01JAAAAAAAAAAAAAAAAAAAAAAA")
    descriptor = os.open(folder / "peer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def peer() -> None:
        os.write(descriptor, json.dumps(PAYLOAD).encode() + b"\n")

    def ours() -> None:
        emitter.heartbeat(PAYLOAD)

    seconds_per_call(peer, calls // 10)
    seconds_per_call(ours, calls // 10)
    pairs = []
    for repeat in range(repeats):
        order = (peer, ours) if repeat % 2 == 0 else (ours, peer)
        times = {call: seconds_per_call(call, calls) for call in order}
        pairs.append((times[peer], times[ours]))
    os.close(descriptor)
    ratios = [mine / theirs for theirs, mine in pairs]
    return {
        "benchmark": "emitter",
        "peer": "os.write(fd, json.dumps(payload).encode() + b'\\n')",
        "calls": calls,
        "repeats": repeats,
        "peer_us": statistics.median(theirs for theirs, _ in pairs) * 1e6,
        "emitter_us": statistics.median(mine for _, mine in pairs) * 1e6,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What one telemetry line costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--calls", type=int, default=20_000, help="calls per measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=11, help="pairs of measurements (default: %(default)s)")
    parser.add_argument("--save", type=Path, help="also write the JSON object into this folder")
    parser.add_argument("--measure-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_in:
        found = measure(args.measure_in, args.calls, args.repeats)
        (args.measure_in / "result.json").write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--measure-in", name]
        command += ["--calls", str(args.calls), "--repeats", str(args.repeats)]
        with open(folder / "stdout.log", "ab") as log:
            subprocess.run(command, check=True, stdout=log)
        found = json.loads((folder / "result.json").read_text())
    if args.save is not None:
        (args.save / "emitter.json").write_text(json.dumps(found))
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['repeats']} pairs of {found['calls']:,} calls each, to a file")
    print(f"{'':24}{'median':>10}{'min':>8}{'max':>8}")
    print(f"{'peer, us per line':24}{found['peer_us']:>10.2f}")
    print(f"{'emitter, us per line':24}{found['emitter_us']:>10.2f}")
    print(f"{'emitter / peer':24}{found['ratio']:>10.2f}{found['ratio_min']:>8.2f}{found['ratio_max']:>8.2f}")


if __name__ == "__main__":
    main()
