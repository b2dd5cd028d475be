"""How fast telemetry is, from a worker's write to a committed and acknowledged row, beside others in the same run.

- *end to end*: real worker processes print as fast as they can, each with its supervisor and worker actor, to one hub
  actor on an embedded Ray. Measured from the first write until the last row is committed, acknowledged, and the
  result with the driver. Peers get the same events in as many processes: W&B offline (`run.log`), tensorboardX
  (`add_scalar`), a bare pyarrow loop (`pa.Table.from_pylist` of the dicts, `pq.write_table`), and that loop with
  `json.loads` of the lines before it. Ours and the peers take turns; ratios are of neighbours.
- *hub alone*: a hub in this process, fed with batches that were parsed before, to the disk.
- *runs at once*: how many simulated runs one hub actor keeps up with: the 95th percentile of an append's time is
  below 0.5 s, and the backlog does not grow.

``python tests/benchmarks/bench_telemetry.py [--json] [--repeats N] [--only PART] [--scale X]``
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reporting import arguments, report, spread
from telemetry_hub import RUNS, batches_of, climb, feed, only_metrics
from telemetry_ours import flow, start_ray
from telemetry_peers import PEERS, installed, peer_rate

EVENTS = 400_000
RATES = (1.0, 10.0, 100.0)
PARTS = ("flow", "cpu", "hub", "crowd")


@dataclass(frozen=True)
class Case:
    """One row: what is printed, how, by how many processes, and which peers get the same."""

    shape: str
    producer: str
    processes: int
    peers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.shape}, {self.producer}, {self.processes} proc."


CASES = (
    Case("small", "lines", 1, tuple(PEERS)),
    Case("small", "lines", 2, tuple(PEERS)),
    Case("small", "lines", 4, tuple(PEERS)),
    Case("small", "emitter", 2),
    Case("five", "lines", 2, tuple(PEERS)),
    Case("step", "lines", 2, ("pyarrow loop", "json.loads + pyarrow")),
)


def end_to_end(repeats: int, scale: float) -> list[dict[str, Any]]:
    """Every case, ours and its peers in turn."""
    found = []
    for case in CASES:
        ours: list[dict[str, float]] = []
        theirs: dict[str, list[float]] = {peer: [] for peer in case.peers if installed(peer)}
        for repeat in range(repeats):
            turns = ["ours", *theirs]
            for turn in turns[repeat % len(turns) :] + turns[: repeat % len(turns)]:
                with tempfile.TemporaryDirectory() as folder:
                    if turn == "ours":
                        ours.append(_ours(case, Path(folder), scale))
                    else:
                        theirs[turn].append(peer_rate(turn, case.shape, case.processes, Path(folder), scale))
        rates = [each["events_per_s"] for each in ours]
        peers = {
            peer: {**spread(values), "ratio": spread([mine / their for mine, their in zip(rates, values, strict=True)])}
            for peer, values in theirs.items()
        }
        found.append(
            {
                **asdict(case),
                "name": case.name,
                "events_per_s": spread(rates),
                "rows_per_s": spread([each["rows_per_s"] for each in ours]),
                "printing_share": statistics.median(each["printing_share"] for each in ours),
                "against": peers,
            }
        )
    return found


def _ours(case: Case, folder: Path, scale: float) -> dict[str, float]:
    seen = flow(folder, case.shape, case.producer, case.processes, int(EVENTS * scale))
    return {
        "events_per_s": seen.events / seen.seconds,
        "rows_per_s": seen.rows / seen.seconds,
        "printing_share": seen.printing / seen.seconds,
    }


def cpu_shares(scale: float) -> list[dict[str, Any]]:
    """Microseconds of CPU an event by kind of process, one worker process."""
    found = []
    for shape in ("small", "five", "step"):
        with tempfile.TemporaryDirectory() as folder:
            seen = flow(Path(folder), shape, "lines", 1, int(EVENTS * scale), watch_cpu=True)
        us = {kind: seconds / seen.events * 1e6 for kind, seconds in seen.cpu.items()}
        found.append({"shape": shape, "us_per_event": us})
    return found


def hub_alone(repeats: int) -> list[dict[str, Any]]:
    """Large and small batches, metrics alone and with their lifecycle rows."""
    large, small = batches_of(RUNS, 4_000, 4), batches_of(RUNS, 50, 60)
    found = []
    for name, batches in (
        ("metrics, 4,000 events a batch", only_metrics(large)),
        ("all tables, 4,000 events a batch", large),
        ("metrics, 50 events a batch", only_metrics(small)),
    ):
        fed = [feed(batches) for _ in range(repeats)]
        found.append(
            {
                "name": name,
                "rows": fed[0].rows,
                "batches": len(batches),
                "rows_per_cpu_s": spread([each.rows / each.cpu for each in fed]),
                "rows_per_s": spread([each.rows / each.wall for each in fed]),
            }
        )
    return found


def crowds(seconds: float) -> list[dict[str, Any]]:
    """For each rate, the levels tried; the last one may have been too much."""
    found = []
    for rate in RATES:
        levels = list(climb(rate, seconds))
        kept = [level for level in levels if level.keeps_up and level.simulated]
        found.append(
            {
                "rate": rate,
                "runs": kept[-1].runs if kept else 0,
                "limit": _limit(levels),
                "p95_ms": kept[-1].p95 * 1e3 if kept else None,
                "hub_cpu_per_100_runs": kept[-1].hub_cpu / kept[-1].runs * 100 if kept else None,
                "levels": [asdict(level) for level in levels],
            }
        )
    return found


def _limit(levels: list[Any]) -> str:
    last = levels[-1]
    if not last.simulated:
        return f"with {last.runs} the simulation itself fell behind"
    return "the most that was tried" if last.keeps_up else f"with {last.runs} acknowledgements fell behind"


def show(found: dict[str, Any]) -> None:
    missing = ", ".join(found["not_installed"])
    if missing:
        print(f"NOT MEASURED, because not installed: {missing}")
    for part, text in (("flow", _show_flow), ("cpu", _show_cpu), ("hub", _show_hub), ("crowd", _show_crowd)):
        if part in found:
            text(found[part])
            print()


def _show_flow(cases: list[dict[str, Any]]) -> None:
    print("end to end: printed -> committed and acknowledged, events a second in all processes together")
    print(f"{'':30}{'median':>10}{'min':>10}{'max':>10}{'rows/s':>11}")
    for case in cases:
        rates, rows = case["events_per_s"], case["rows_per_s"]["median"]
        print(f"{case['name']:30}{rates['median']:>10,.0f}{rates['min']:>10,.0f}{rates['max']:>10,.0f}{rows:>11,.0f}")
        for peer, values in case["against"].items():
            ratio = values["ratio"]
            print(
                f"  {peer:28}{values['median']:>10,.0f}{values['min']:>10,.0f}{values['max']:>10,.0f}"
                f"   ours / it: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            )


def _show_cpu(shapes: list[dict[str, Any]]) -> None:
    kinds = ("worker", "supervisor", "worker actor", "hub", "ray itself")
    print("CPU an event, us, by process, one worker process")
    print(f"{'':10}" + "".join(f"{kind:>14}" for kind in kinds))
    for each in shapes:
        values = each["us_per_event"]
        print(f"{each['shape']:10}" + "".join(f"{values.get(kind, 0.0):>14.2f}" for kind in kinds))


def _show_hub(rows: list[dict[str, Any]]) -> None:
    print(f"hub alone, {RUNS} runs, to the disk: rows a second")
    print(f"{'':34}{'of CPU':>12}{'min':>12}{'max':>12}{'of clock':>12}")
    for row in rows:
        core, wall = row["rows_per_cpu_s"], row["rows_per_s"]["median"]
        print(f"{row['name']:34}{core['median']:>12,.0f}{core['min']:>12,.0f}{core['max']:>12,.0f}{wall:>12,.0f}")


def _show_crowd(rows: list[dict[str, Any]]) -> None:
    print("runs at once at one hub actor")
    print(f"{'events/s of each':18}{'runs':>8}{'p95 of append':>16}{'hub CPU/100 runs':>18}")
    for row in rows:
        if row["runs"]:
            share, p95 = f"{row['hub_cpu_per_100_runs']:.1%}", f"{row['p95_ms']:.0f} ms"
        else:
            share = p95 = "-"
        print(f"{row['rate']:<18g}{row['runs']:>8}{p95:>16}{share:>18}   {row['limit']}")


def main() -> None:
    parser = arguments("How fast telemetry is.")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer events (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each level of runs (default: %(default)s)")
    args = parser.parse_args()
    parts = args.only or PARTS
    found: dict[str, Any] = {"benchmark": "telemetry", "repeats": args.repeats}
    found["not_installed"] = [peer for peer in PEERS if not installed(peer)]
    if "hub" in parts:
        found["hub"] = hub_alone(args.repeats)
    if {"flow", "cpu", "crowd"} & set(parts):
        ray = start_ray()
        try:
            if "flow" in parts:
                found["flow"] = end_to_end(args.repeats, args.scale)
            if "cpu" in parts:
                found["cpu"] = cpu_shares(args.scale)
            if "crowd" in parts:
                found["crowd"] = crowds(args.seconds)
        finally:
            ray.close()
    report(args, found, show)


if __name__ == "__main__":
    main()
