"""The worker process of the training measurement: trains a small network, in turn without events, with, and lingering.

Each segment is the same number of steps of forward, backward and Adam on a policy of CartPole's size, one thread. In
a segment with events, as many heartbeats of five scalars as are due at the rate are emitted after each step. Between
segments it rests, so that the reading of one does not fall into the next.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from telemetry_events import SHAPES

from mosaic_cluster.worker import TelemetryEmitter

REST_SECONDS = 0.8


class Trainer:
    """One step is about a millisecond of work."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2)
        )
        self.adam = torch.optim.Adam(self.model.parameters(), fused=True)
        self.inputs, self.targets = torch.randn(256, 4), torch.randn(256, 2)

    def step(self) -> None:
        loss = torch.nn.functional.mse_loss(self.model(self.inputs), self.targets)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


def segment(trainer: Trainer, steps: int, emitter: TelemetryEmitter | None, rate: float) -> dict[str, float]:
    """Wall and CPU seconds of so many steps; how many events were emitted, and seconds of CPU that took."""
    emitted, inside = 0, 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        trainer.step()
        # The clock is looked at in both kinds of segment.
        due = int((time.perf_counter() - wall) * rate)
        if emitter is not None and due > emitted:
            begun = time.thread_time()
            while emitted < due:
                emitter.heartbeat(SHAPES["five"](emitted))
                emitted += 1
            inside += time.thread_time() - begun
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**found, "events": emitted, "inside": inside}


def floor(trainer: Trainer, emitter: TelemetryEmitter, calls: int = 1000) -> dict[str, float]:
    """Median seconds of one event right after a training step, when no cache is warm for it, by who writes it."""
    descriptor = os.open(Path(os.environ["MOSAIC_RUN_DIR"], "peer.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ready = b"x" * 220 + b"\n"
    writers: dict[str, Callable[[dict[str, Any]], object]] = {
        "write": lambda fields: os.write(descriptor, ready),
        "json": lambda fields: os.write(descriptor, json.dumps(fields).encode() + b"\n"),
        "emitter": emitter.heartbeat,
    }
    times: dict[str, list[float]] = {name: [] for name in writers}
    for number in range(calls):
        for name, write in writers.items():
            fields = SHAPES["five"](number)
            trainer.step()
            begun = time.perf_counter()
            write(fields)
            times[name].append(time.perf_counter() - begun)
    os.close(descriptor)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    config = json.loads(parser.parse_args().config.read_text())
    trainer, emitter = Trainer(), TelemetryEmitter(config["run_id"])
    lingering = TelemetryEmitter(config["run_id"], linger=config["linger"])
    emitters = {"off": None, "on": emitter, "linger": lingering}
    per_second = 300 / segment(trainer, 300, None, config["rate"])["wall"]
    steps = int(per_second * config["seconds"])
    for each in (emitter, lingering):
        segment(trainer, steps, each, config["rate"])
    pairs = []
    for number in range(config["pairs"]):
        found = {}
        kinds = list(emitters)
        for turn in range(len(kinds)):
            kind = kinds[(number + turn) % len(kinds)]
            lingering.flush()
            time.sleep(REST_SECONDS)
            found[kind] = segment(trainer, steps, emitters[kind], config["rate"])
        pairs.append(found)
    result = {"steps": steps, "pairs": pairs, "floor": floor(trainer, emitter)}
    Path(os.environ["MOSAIC_RUN_DIR"], "pairs.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
