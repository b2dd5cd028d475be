"""An experiment's folder with telemetry in it, a bridge's process without a driver, and what trackers have."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Batch, HubCore, TelemetryReader, parse
from mosaic_cluster.telemetry.bridges.process import serve

Curve = list[tuple[int, float]]


class Written:
    """An experiment whose runs print what a test says, committed by a real hub.

    Args:
        folder: becomes the experiment's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage.open(folder)
        self.storage.put_json("experiment.json", {"experiment_id": folder.name, "name": "exp"})
        self.hub = HubCore(self.storage.at("telemetry"))
        self.log: list[str] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._steps: dict[tuple[str, int], int | None] = {}

    @property
    def reader(self) -> TelemetryReader:
        """Of the tables."""
        return TelemetryReader(self.folder / "telemetry")

    def config(self, run_id: str, **values: Any) -> None:
        """What the worker was given."""
        self.storage.put_json(f"runs/{run_id}/config.json", values)

    def status(self, **states: str) -> None:
        """How the runs stand."""
        runs = [{"run_id": run_id, "state": state, "seed": 1} for run_id, state in states.items()]
        self.storage.put_json("status.json", {"runs": runs})

    def lines(self, run_id: str, *lines: Mapping[str, Any], attempt: int = 1) -> int:
        """Print lines, and commit them; returns the offset of the last."""
        start = offset = end = self._ends.get((run_id, attempt), 0)
        found = []
        for line in lines:
            text = json.dumps({"timestamp": 1000.0 + end / 1e4, **line}).encode()
            offset = end
            found.append((offset, text))
            end += len(text) + 1
        self._ends[run_id, attempt] = end
        parsed = parse(found, run_id, attempt, last_step=self._steps.get((run_id, attempt)))
        self._steps[run_id, attempt] = parsed.last_step
        self.hub.append(Batch(run_id, attempt, start, end, parsed.tables))
        self.hub.commit()
        return offset

    def train(self, run_id: str, first: int, last: int, *, attempt: int = 1, scale: float = 0.5) -> int:
        """Heartbeats of these steps; returns the offset of the last."""
        beats = [
            {"event": "heartbeat", "payload": {"step": step, "loss": step * scale}}
            for step in range(first, last + 1)
        ]
        return self.lines(run_id, *beats, attempt=attempt)

    def begins(self, run_id: str, attempt: int, from_offset: int | None = None) -> None:
        """An attempt begins; from what the one before had at an offset."""
        resumed = {"resumed_from_attempt": attempt - 1, "resumed_from_offset": from_offset}
        payload = {"attempt": attempt, **({} if from_offset is None else resumed)}
        self.lines(run_id, {"event": "attempt_started", "payload": payload, "source": "supervisor"}, attempt=attempt)

    def bridge(self, name: str, **options: Any) -> int:
        """Write what is there to a tracker, in this process; returns how many files that were."""
        return serve(self.folder, name, {"points_per_second": 1e6, **options}, lambda _: True, self.log.append)

    def curve(self, run_id: str, name: str, *, view: bool = True) -> Curve:
        """A metric, from Parquet."""
        return pairs(self.reader, run_id, name, view=view)


def pairs(reader: TelemetryReader, run_id: str, name: str, *, view: bool = True) -> Curve:
    """A metric as steps and values, from Parquet."""
    rows = reader.metric(name, run_id, view=view)
    return list(zip(rows["step"].to_pylist(), rows["value"].to_pylist(), strict=True))


def tensorboard_curves(folder: Path) -> dict[str, Curve]:
    """What TensorBoard itself shows of a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    return {tag: [(each.step, each.value) for each in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of an offline run's file: LevelDB's log format behind W&B's seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def wandb_runs(folder: Path) -> dict[str, list[Any]]:
    """Records of all offline runs in a folder, by run, in the order written."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("run-*.wandb")):
        found.setdefault(path.stem.removeprefix("run-"), []).extend(wandb_records(path))
    return found


def wandb_rows(records: list[Any]) -> list[dict[str, Any]]:
    """History rows."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
