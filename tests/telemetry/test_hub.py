"""The hub commits, then acknowledges; a replay adds nothing; whoever loses a number stops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import (
    TABLES,
    Ack,
    Batch,
    HubCore,
    HubUnavailable,
    Pump,
    TelemetryReader,
    Watch,
    live_name,
    parse,
    read_live,
)
from mosaic_cluster.telemetry.files import data_files, read_footer
from mosaic_cluster.telemetry.hub import FIRST_FLUSH, HUB_MEMORY, LAST_ROLL
from mosaic_cluster.worker.errors import AlreadyExists, Fenced, StorageError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(step: int) -> bytes:
    return json.dumps({"event": "heartbeat", "payload": {"step": step, "x": step}, "timestamp": float(step)}).encode()


def episode(number: int) -> bytes:
    return json.dumps({"type": "episode", "episode": number, "total_reward": 1.0, "timestamp": 1.0}).encode()


def batch(lines: list[bytes], first: int = 0, run_id: str = "r", attempt: int = 1) -> Batch:
    numbered, offset = [], first
    for line in lines:
        numbered.append((offset, line))
        offset += len(line) + 1
    parsed = parse(numbered, run_id, attempt)
    return Batch(run_id, attempt, first, offset, parsed.tables, parsed.last_step, parsed.last_ts)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path / "telemetry")


def files(storage: Storage) -> list[str]:
    return [name for table in TABLES for name in data_files(storage, table)]


def steps(storage: Storage) -> list[int]:
    rows = TelemetryReader(storage.location).table("lifecycle", view=False).to_pylist()
    return [json.loads(row["payload"])["step"] for row in rows]


def test_commit_then_acknowledge(storage: Storage) -> None:
    hub = HubCore(storage)
    sent = batch([beat(1), episode(1)])
    ack = hub.append(sent)
    assert (ack.accepted, ack.committed) == (sent.last, 0)
    assert files(storage) == []
    hub.commit()
    assert hub.watermark("r", 1).committed == sent.last
    names = ("lifecycle", "episodes", "metrics")
    assert files(storage) == [f"{name}/0-00000000.parquet" for name in names]
    complete = [read_footer(storage, name)["complete"] for name in files(storage)]
    assert sorted(complete) == [False, False, True]


def test_only_what_follows_is_taken(storage: Storage) -> None:
    hub = HubCore(storage)
    first = batch([beat(1)])
    gap = batch([beat(3)], first=first.last + 10)
    assert hub.append(gap).accepted == 0
    assert hub.append(first).accepted == first.last
    assert hub.append(first).accepted == first.last
    hub.commit()
    assert steps(storage) == [1]


def test_foreign_columns_are_refused(storage: Storage) -> None:
    good = batch([beat(1)])
    bad = Batch("r", 1, 0, 10, {"lifecycle": good.tables["metrics"]})
    with pytest.raises(StorageError, match="same mosaic_cluster"):
        HubCore(storage).append(bad)


def test_rolls_sooner_when_young(storage: Storage) -> None:
    clock = Clock()
    hub = HubCore(storage, clock)
    sent = batch([beat(1)])
    hub.append(sent)
    clock.now = 1.9
    hub.tick()
    assert hub.watermark("r", 1).committed == 0
    clock.now = 2.1
    hub.tick()
    assert hub.watermark("r", 1).committed == sent.last
    clock.now = 100_000.0
    hub.commit()
    hub.append(batch([beat(2)], first=sent.last))
    clock.now += LAST_ROLL - 1
    hub.tick()
    assert hub.watermark("r", 1).committed == sent.last
    clock.now += 2
    hub.tick()
    assert steps(storage) == [1, 2]


def test_flushes_become_one_commit(storage: Storage) -> None:
    clock = Clock()
    hub = HubCore(storage, clock)
    for name in ("a", "b"):
        sent = batch([beat(1)], run_id=name)
        hub.append(sent)
        hub.flush(name, 1, sent.last)
    hub.tick()
    assert hub.stats()["commits"] == 0
    clock.now += FIRST_FLUSH + 0.01
    hub.tick()
    assert hub.stats()["commits"] == 1


def test_memory_is_bounded(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.now = 50_000.0
    hub = HubCore(storage, clock)

    def broken(self: Storage, name: str, data: bytes) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(Storage, "create", broken)
    big = json.dumps({"event": "heartbeat", "payload": {"x": "y" * 1_000_000}}).encode()
    offset = 0
    for _ in range(400):
        sent = batch([big], first=offset)
        if hub.append(sent).accepted == offset:
            break
        offset = sent.last
        hub.tick()
        clock.now += 0.01
    stats = hub.stats()
    assert stats["error"] == "disk full"
    assert HUB_MEMORY // 5 < stats["pending_bytes"] < HUB_MEMORY // 3
    monkeypatch.undo()
    clock.now += 10
    hub.tick()
    hub.commit()
    assert hub.watermark("r", 1).committed == offset
    assert TelemetryReader(storage.location).table("lifecycle").num_rows == offset // (len(big) + 1)


def test_a_second_hub_fences_the_first(storage: Storage) -> None:
    old = HubCore(storage)
    new = HubCore(storage)
    sent = batch([beat(1)])
    new.append(sent)
    new.commit()
    old.append(sent)
    with pytest.raises(Fenced, match="another hub"):
        old.commit()
    assert steps(storage) == [1]


def test_a_new_hub_knows_what_is_there(storage: Storage) -> None:
    first = HubCore(storage)
    sent = batch([beat(1), episode(1)])
    first.append(sent)
    first.commit()
    lost = batch([beat(2)], first=sent.last)
    first.append(lost)
    second = HubCore(storage)
    ack = second.watermark("r", 1)
    assert ack == Ack(sent.last, sent.last, 1, 1_000_000)
    second.append(lost)
    second.commit()
    assert steps(storage) == [1, 2]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_death_between_the_files_of_a_commit(storage: Storage, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Some tables have the rows and some have not: what is sent again is filtered table by table."""
    hub = HubCore(storage)
    lines = [beat(1), episode(1), beat(2), episode(2)]
    hub.append(batch(lines))
    create: Callable[..., None] = Storage.create
    count = 0

    def dies(self: Storage, name: str, data: bytes) -> None:
        nonlocal count
        if count == written:
            raise KeyboardInterrupt
        count += 1
        create(self, name, data)

    monkeypatch.setattr(Storage, "create", dies)
    with pytest.raises(KeyboardInterrupt):
        hub.commit()
    monkeypatch.undo()
    second = HubCore(storage)
    assert second.watermark("r", 1).committed == 0
    second.append(batch(lines))
    second.commit()
    reader = TelemetryReader(storage.location)
    assert steps(storage) == [1, 2]
    assert reader.table("episodes")["episode"].to_pylist() == [1, 2]
    assert reader.table("metrics").num_rows == 4


def test_lines_without_rows_leave_no_file(storage: Storage) -> None:
    hub = HubCore(storage)
    chatter = batch([b"loading", b"done"])
    hub.append(chatter)
    hub.commit()
    assert files(storage) == []
    assert hub.watermark("r", 1).committed == chatter.last
    hub.append(batch([beat(1)], first=chatter.last))
    hub.commit()
    assert HubCore(storage).watermark("r", 1).committed > chatter.last


def test_any_tool_can_read_the_files(storage: Storage) -> None:
    hub = HubCore(storage)
    hub.append(batch([beat(1), beat(2)]))
    hub.commit()
    table = pq.ParquetDataset(storage.location + "/metrics").read()
    assert table["value"].to_pylist() == [1.0, 2.0]


def test_a_day_leaves_hundreds_of_files(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that print all day, in virtual time."""
    clock = Clock()
    hub = HubCore(storage, clock)
    written = []
    monkeypatch.setattr(Storage, "create", lambda self, name, data: written.append(name))
    monkeypatch.setattr(Storage, "exists", lambda self, name: False)
    offsets = dict.fromkeys((f"r{number}" for number in range(2)), 0)
    waited = []
    while clock.now < 86_400:
        for run in offsets:
            sent = batch([beat(1), episode(1)], first=offsets[run], run_id=run)
            offsets[run] = hub.append(sent).accepted
        clock.now += 20
        hub.tick()
        waited.append(hub.stats()["oldest"])
    assert 300 < len(written) < 1000
    assert max(waited) <= LAST_ROLL


def test_small_batches_take_little_memory(storage: Storage) -> None:
    """A thousand runs with a line a second each: what waits is merged, and still sorted when it is written."""
    hub = HubCore(storage, Clock())
    offsets = [0] * 1000
    for _ in range(2):
        for number in range(1000):
            sent = batch([beat(number)], first=offsets[number], run_id=f"r{number:04d}")
            offsets[number] = hub.append(sent).accepted
    assert hub.stats()["pending_bytes"] < 3_000_000
    hub.commit()
    rows = TelemetryReader(storage.location)._rows("metrics", None)
    keys = list(zip(rows["run_id"].to_pylist(), rows["offset"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys) == 2000
    assert rows["value"].to_pylist() == [float(run[1:]) for run, _ in keys]


def test_shards_keep_to_themselves(storage: Storage) -> None:
    hubs = [HubCore(storage, shard=shard) for shard in range(2)]
    for shard, hub in enumerate(hubs):
        hub.append(batch([beat(shard)], run_id=f"r{shard}"))
        hub.commit()
    assert files(storage)[:2] == ["lifecycle/0-00000000.parquet", "lifecycle/1-00000000.parquet"]
    again = [HubCore(storage, shard=shard) for shard in range(2)]
    for shard, hub in enumerate(again):
        assert hub.watermark(f"r{shard}", 1).committed > 0
        assert hub.watermark(f"r{1 - shard}", 1).committed == 0
    assert sorted(steps(storage)) == [0, 1]


def test_an_answer_that_was_lost_is_no_other_hub(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there, but the storage said it failed: the next try knows it for its own."""
    hub = HubCore(storage)
    sent = batch([beat(1), episode(1)])
    hub.append(sent)
    create = Storage.create

    def loses_the_answer(self: Storage, name: str, data: bytes) -> None:
        create(self, name, data)
        raise StorageError("connection reset")

    monkeypatch.setattr(Storage, "create", loses_the_answer)
    hub.commit()
    assert hub.stats()["error"] == "connection reset"
    monkeypatch.undo()
    hub.commit()
    assert hub.stats()["error"] is None
    assert hub.watermark("r", 1).committed == sent.last
    assert steps(storage) == [1]
    assert TelemetryReader(storage.location).table("episodes").num_rows == 1


def test_latest_values_are_published(storage: Storage) -> None:
    hub = HubCore(storage)
    hub.live.take("r", 1, 5, 1_000_000, {"loss": (5, 0.5), "odd": (5, math.nan)}, 3)
    hub.live.take("r", 2, 7, 2_000_000, {"loss": (7, 0.25)}, 1)
    hub.live.take("r", 1, 6, 1_500_000, {"loss": (6, 9.0)}, 1)  # a tail brought in late
    storage.put(live_name(0), hub.live.document(10.0))
    found = read_live(storage)["r"]
    assert (found.attempt, found.step, found.events, found.metrics["loss"]) == (2, 7, 1, (7, 0.25))
    assert math.isnan(found.metrics["odd"][1])
    assert not hub.live.changed
    assert read_live(Storage.open(storage.path("nowhere"))) == {}


def test_foreign_and_newer_files(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.create("metrics/0-00000000.parquet", b"not parquet")
    with pytest.raises(StorageError, match="not a readable Parquet file"):
        HubCore(storage)
    storage.delete("metrics/0-00000000.parquet")
    hub = HubCore(storage)
    hub.append(batch([beat(1)]))
    monkeypatch.setattr("mosaic_cluster.telemetry.commits.SCHEMA_VERSION", 9)
    hub.commit()
    monkeypatch.undo()
    with pytest.raises(StorageError, match="schema version 9"):
        TelemetryReader(storage.location).table("metrics")


class LocalHub:
    """A hub in this process that may be away."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.core: HubCore | None = HubCore(storage)

    def _there(self) -> HubCore:
        if self.core is None:
            raise HubUnavailable("away")
        return self.core

    def append(self, batch: Batch) -> Ack:
        return self._there().append(batch)

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        self._there().commit()

    def watermark(self, run_id: str, attempt: int) -> Ack:
        return self._there().watermark(run_id, attempt)


def test_pump_to_the_end(tmp_path: Path, storage: Storage) -> None:
    log = tmp_path / "stdout.log"
    log.write_bytes(b"\n".join([beat(1), b"chatter", beat(2), b"half"]))
    pump = Pump(log, "r", 1, LocalHub(storage))
    progress = pump.step()
    assert (progress.last_step, progress.metrics["x"], progress.unread) == (2, (2, 2.0), 4)
    assert pump.drain(10) == log.stat().st_size
    assert steps(storage) == [1, 2]
    assert Pump(log, "r", 1, LocalHub(storage)).drain(10) == log.stat().st_size
    assert steps(storage) == [1, 2]


class DeafHub(LocalHub):
    """Takes a batch, and its answer is lost."""

    deaf = True

    def append(self, batch: Batch) -> Ack:
        ack = super().append(batch)
        if self.deaf:
            self.deaf = False
            raise HubUnavailable("no answer")
        return ack


def test_what_was_taken_without_an_answer_is_seen_all_the_same(tmp_path: Path, storage: Storage) -> None:
    log = tmp_path / "stdout.log"
    log.write_bytes(b"".join(beat(step) + b"\n" for step in range(1, 6)))
    watch = Watch("x", (2, 4))
    pump = Pump(log, "r", 1, DeafHub(storage), watch=watch)
    with pytest.raises(HubUnavailable):
        pump.step(final=True)
    assert pump.drain(10) == log.stat().st_size
    assert watch.seen().rungs == {2: (2, 2.0), 4: (4, 4.0)}
    assert watch.seen().last == (5, 5.0)
    assert steps(storage) == [1, 2, 3, 4, 5]


class HubDies(RuleBasedStateMachine):
    """However often the hub dies, and whenever the pump runs: in the end each line is there once."""

    @initialize(folder=st.uuids())
    def begin(self, folder: Any) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix=f"hub-{folder}")
        self.log = Path(self.folder.name, "stdout.log")
        self.storage = Storage.open(Path(self.folder.name, "telemetry"))
        self.hub = LocalHub(self.storage)
        self.clock = Clock()
        self.pump = Pump(self.log, "r", 1, self.hub, self.clock)
        self.printed = 0

    @rule(count=st.integers(1, 5))
    def prints(self, count: int) -> None:
        with self.log.open("ab") as stream:
            for _ in range(count):
                self.printed += 1
                stream.write(beat(self.printed) + b"\n" + episode(self.printed) + b"\n")

    @rule()
    def pumps(self) -> None:
        self.clock.now += 1
        try:
            self.pump.step()
        except HubUnavailable:
            assert self.hub.core is None

    @rule()
    def commits(self) -> None:
        if self.hub.core is not None:
            self.hub.core.commit()

    @rule()
    def hub_dies(self) -> None:
        self.hub.core = None

    @rule(files=st.integers(0, 2))
    def hub_dies_in_a_commit(self, files: int) -> None:
        if self.hub.core is None:
            return
        create, count = Storage.create, 0

        def dies(storage: Storage, name: str, data: bytes) -> None:
            nonlocal count
            if count == files:
                raise KeyboardInterrupt
            count += 1
            create(storage, name, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Storage, "create", dies)
            try:
                self.hub.core.commit()
            except KeyboardInterrupt:
                self.hub.core = None

    @rule()
    def hub_comes_back(self) -> None:
        self.hub.core = HubCore(self.storage)

    @rule()
    def pump_is_another(self) -> None:
        self.pump = Pump(self.log, "r", 1, self.hub, self.clock)

    @invariant()
    def no_line_twice(self) -> None:
        found = steps(self.storage)
        assert found == list(range(1, len(found) + 1))

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        self.hub.core = HubCore(self.storage)
        self.pump.drain(10)
        assert steps(self.storage) == list(range(1, self.printed + 1))
        rows = TelemetryReader(self.storage.location).table("episodes")
        assert rows["episode"].to_pylist() == list(range(1, self.printed + 1))
        self.folder.cleanup()


HubDies.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
test_whenever_the_hub_dies = HubDies.TestCase


def test_already_exists_is_what_fences() -> None:
    assert issubclass(AlreadyExists, StorageError)
    assert issubclass(Fenced, StorageError)
