"""What others do with the same events: one process of a peer, started as often as ours.

``python telemetry_peers.py PEER SHAPE EVENTS FOLDER`` gets ready, waits for ``FOLDER/../start``, and prints when it
began and when all lay on the disk. Its events are built before, as ours are rendered before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from telemetry_events import SHAPES, event, line, start_all, wait_for_start

CHUNK = 10_000
RUN_ID = "01JAAAAAAAAAAAAAAAAAAAAAAA"


def wandb_offline(shape: str, events: int, folder: Path) -> Callable[[], None]:
    """`run.log` for each event, offline; the end is when `finish` returns."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    import wandb

    settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
    run = wandb.init(mode="offline", project="bench", dir=str(folder), settings=settings)
    items = _scalars(shape, events)

    def work() -> None:
        for step, item in enumerate(items):
            run.log(item, step=step)
        run.finish()

    return work


def tensorboardx(shape: str, events: int, folder: Path) -> Callable[[], None]:
    """`add_scalar` for each number of each event."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))
    items = _scalars(shape, events)

    def work() -> None:
        for step, item in enumerate(items):
            for name, value in item.items():
                writer.add_scalar(name, value, step)
        writer.close()

    return work


def pyarrow(shape: str, events: int, folder: Path) -> Callable[[], None]:
    """A table of each 10,000 dicts, and a file of it: no log, no process between, no schema of ours."""
    items = [event(shape, number, RUN_ID) for number in range(events)]
    _arrow_file(items[:10], folder / "warm.parquet")

    def work() -> None:
        for number, at in enumerate(range(0, events, CHUNK)):
            _arrow_file(items[at : at + CHUNK], folder / f"{number}.parquet")

    return work


def pyarrow_json(shape: str, events: int, folder: Path) -> Callable[[], None]:
    """The same from the lines of a log: `json.loads` of each first."""
    items = [line(shape, number, RUN_ID) for number in range(events)]
    _arrow_file([json.loads(each) for each in items[:10]], folder / "warm.parquet")

    def work() -> None:
        for number, at in enumerate(range(0, events, CHUNK)):
            _arrow_file([json.loads(each) for each in items[at : at + CHUNK]], folder / f"{number}.parquet")

    return work


def _scalars(shape: str, events: int) -> list[dict[str, float]]:
    numbers = [SHAPES[shape](number) for number in range(events)]
    return [{name: float(value) for name, value in item.items() if name != "step"} for item in numbers]


def _arrow_file(items: list[dict[str, Any]], target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(items), target, compression="zstd")


PEERS: dict[str, tuple[Callable[[str, int, Path], Callable[[], None]], str, int]] = {
    "wandb offline": (wandb_offline, "wandb", 4_000),
    "tensorboardX": (tensorboardx, "tensorboardX", 24_000),
    "pyarrow loop": (pyarrow, "pyarrow", 600_000),
    "json.loads + pyarrow": (pyarrow_json, "pyarrow", 300_000),
}
"""What makes it ready, the module it needs, and how many events it gets in all."""


def installed(peer: str) -> bool:
    """Whether this peer can be measured here."""
    return importlib.util.find_spec(PEERS[peer][1]) is not None


def peer_rate(peer: str, shape: str, processes: int, folder: Path, scale: float) -> float:
    """Events a second of so many processes of a peer, from the first event to the last one's file."""
    each = max(100, int(PEERS[peer][2] * scale / processes))
    folders = [folder / str(number) for number in range(processes)]
    running = []
    for target in folders:
        target.mkdir(parents=True)
        command = [sys.executable, __file__, peer, shape, str(each), str(target)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    try:
        start_all(folders)
        spans = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return processes * each / (max(span["ended"] for span in spans) - min(span["began"] for span in spans))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("events", type=int)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    work = PEERS[args.peer][0](args.shape, args.events, args.folder)
    wait_for_start(args.folder)
    began = time.time()
    work()
    print(json.dumps({"began": began, "ended": time.time()}))


if __name__ == "__main__":
    main()
