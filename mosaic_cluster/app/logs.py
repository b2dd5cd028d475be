"""What runs printed, as a person wants to read it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.app.asking import choose_runs
from mosaic_cluster.experiments.home import ExperimentHome
from mosaic_cluster.experiments.states import LOST, TERMINAL
from mosaic_cluster.experiments.status import read_status
from mosaic_cluster.logs import RELEASED, read_released
from mosaic_cluster.runtime.sending import SENT
from mosaic_cluster.telemetry import LogTail
from mosaic_cluster.units import format_bytes
from mosaic_cluster.worker.errors import NotFound

POLL_SECONDS = 0.3
STORED_POLL_SECONDS = 3.0
STREAMS = {"out": "stdout.log", "err": "stderr.log"}


class _Reader:
    """Complete lines of one growing file; a line of ours stands where a part of it was let go."""

    def __init__(self, path: Path) -> None:
        self._tail = LogTail(path)
        self._shown = 0

    def read(self, last: bool) -> Iterator[str]:
        """What is new; ``last``: an unterminated line counts too."""
        while lines := self._tail.read(final=last):
            if lines[0][0] > self._shown:
                yield self._gap(lines[0][0] - self._shown)
            for offset, line in lines:
                yield line.decode("utf-8", "replace")
                self._shown = offset + len(line) + 1

    def _gap(self, size: int) -> str:
        path = self._tail.path
        gap = read_released(path)
        gone = f"{gap.log_lines:,} lines" if gap is not None else "some lines"
        if path.name == STREAMS["out"]:
            gone += " that are no telemetry are gone; events are in the tables (`mosaic query`)"
        else:
            gone += " are gone"
        return f"[{format_bytes(size)} of {path.name} were let go here (telemetry.keep_log): {gone}]"


def log_lines(
    home: ExperimentHome, runs: Sequence[str], *, follow: bool, raw: bool, streams: Sequence[str]
) -> Iterator[str]:
    """Lines of the chosen runs' logs, attempt by attempt.

    Args:
        runs: run ids or their ends; none means all.
        follow: go on until every chosen run has ended.
        raw: telemetry lines as they were printed; otherwise they are shortened, and step lines left out.
        streams: of ``out`` and ``err``.
    """
    if not home.storage.is_local:
        yield from _stored_lines(home, runs, follow=follow, raw=raw, streams=streams)
        return
    readers: dict[Path, _Reader] = {}
    while True:
        status = read_status(home)
        chosen = choose_runs(status, runs)
        over = all(
            run["state"] in TERMINAL or run["state"] == LOST for run in status["runs"] if run["run_id"] in chosen
        )
        names = {run["run_id"]: f"{run['trial']} " for run in status["runs"] if run.get("trial")}
        for run_id in chosen:
            several = len(chosen) > 1
            yield from _new_lines(
                home, run_id, names.get(run_id, ""), readers, raw, streams, over or not follow, several
            )
        if over or not follow:
            return
        time.sleep(POLL_SECONDS)


def _new_lines(
    home: ExperimentHome,
    run_id: str,
    trial: str,
    readers: dict[Path, _Reader],
    raw: bool,
    streams: Sequence[str],
    last: bool,
    several: bool,
) -> Iterator[str]:
    attempts = home.run_dir(run_id) / "attempts"
    numbers = sorted(int(entry.name) for entry in attempts.glob("[0-9]*")) if attempts.is_dir() else []
    for number in numbers:
        tag = f"{trial}{run_id[-6:].lower()} " if several else ""
        prefix = f"{tag}#{number} " if several or len(numbers) > 1 else ""
        for stream in streams:
            path = attempts / str(number) / STREAMS[stream]
            reader = readers.setdefault(path, _Reader(path))
            for line in reader.read(last):
                shown = line if raw or stream == "err" else shorten(line)
                if shown is not None:
                    yield prefix + shown


def _stored_lines(
    home: ExperimentHome, runs: Sequence[str], *, follow: bool, raw: bool, streams: Sequence[str]
) -> Iterator[str]:
    """:func:`log_lines` of an experiment in an object store: an attempt's logs are there once it has ended."""
    shown: set[tuple[str, str]] = set()
    while True:
        status = read_status(home)
        chosen = choose_runs(status, runs)
        entries = [run for run in status["runs"] if run["run_id"] in chosen]
        over = all(run["state"] in TERMINAL or run["state"] == LOST for run in entries)
        for run in entries:
            tag = f"{run['trial']} " if run.get("trial") else ""
            for number in sorted(map(int, home.storage.folders(f"runs/{run['run_id']}/attempts"))):
                prefix = f"{tag}{run['run_id'][-6:].lower()} #{number} " if len(entries) > 1 else f"#{number} "
                for stream in streams:
                    folder = f"runs/{run['run_id']}/attempts/{number}"
                    if (folder, stream) in shown:
                        continue
                    if home.storage.exists(f"{folder}/{STREAMS[stream]}"):
                        shown.add((folder, stream))
                        yield from (prefix + line for line in _stored_log(home, folder, stream, raw))
                    elif over or not follow:
                        yield f"{prefix}[{_why_not_there(home, folder, stream)}]"
        if over or not follow:
            return
        time.sleep(STORED_POLL_SECONDS)


def _stored_log(home: ExperimentHome, folder: str, stream: str, raw: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mosaic-logs-") as there:
        path = Path(there) / STREAMS[stream]
        home.storage.download(f"{folder}/{path.name}", path)
        try:
            home.storage.download(f"{folder}/{RELEASED}", path.with_name(RELEASED))
        except NotFound:
            pass
        for line in _Reader(path).read(last=True):
            shown = line if raw or stream == "err" else shorten(line)
            if shown is not None:
                yield shown


def _why_not_there(home: ExperimentHome, folder: str, stream: str) -> str:
    name = STREAMS[stream]
    try:
        left = home.storage.get_json(f"{folder}/{SENT}")["left"].get(name)
        return f"{name} is not in storage: {left or 'it is gone with the disk of its node'}"
    except NotFound:
        pass
    try:
        node = home.storage.get_json(f"{folder}/attempt.json").get("node")
    except NotFound:
        node = None
    where = f"on node {node}" if node else "on its node"
    return f"{name} is {where}, and comes to storage when the attempt has ended; live values: `mosaic watch`"


def shorten(line: str) -> str | None:
    """A telemetry line in short form; other lines unchanged; ``None`` for what only machines read."""
    if not line.startswith("{"):
        return line
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict):
        return line
    if event.get("type") == "step":
        return None
    if event.get("type") == "episode":
        total = event.get("total_reward", event.get("reward"))
        return f"episode {event.get('episode')}: return {total}, {event.get('steps')} steps"
    if "event" not in event:
        return line
    stamp = ""
    if isinstance(event.get("timestamp"), (int, float)):
        stamp = time.strftime("%H:%M:%S ", time.localtime(event["timestamp"]))
    return f"{stamp}{event['event']} {_payload(event.get('payload'))}".rstrip()


def _payload(payload: Any) -> str:
    if not isinstance(payload, dict):
        return "" if payload is None else json.dumps(payload, ensure_ascii=False)
    parts = []
    for name, value in payload.items():
        if isinstance(value, float):
            parts.append(f"{name}={value:.5g}")
        elif isinstance(value, (dict, list)):
            text = json.dumps(value, ensure_ascii=False)
            parts.append(f"{name}={text if len(text) <= 120 else text[:117] + '...'}")
        else:
            parts.append(f"{name}={value}")
    return " ".join(parts)
