"""The checker of the chaos test finds what it is there to find."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chaos import checker
from chaos.killer import deck
from chaos.run import printed
from conftest import Lab
from support import environment, spec, wait_for

EVENTS = 2000


@pytest.fixture(scope="module")
def printed_run(tmp_path_factory: pytest.TempPathFactory, workers: Path, own_cache: Path) -> Path:
    """A folder as a chaos run leaves it: one run, whose first attempt was killed, and nothing wrong."""
    folder = tmp_path_factory.mktemp("chaos")
    truth = folder / "truth"
    truth.mkdir()
    lab = Lab(folder, environment(workers, MOSAIC_CACHE=str(own_cache)), None, "inline")
    config = {"truth": str(truth), "rate": 4000, "threads": 2, "checkpoint_every": 0.2}
    with lab.start(**spec(config, worker="chaos")) as process:
        wait_for(lambda: printed(truth) >= EVENTS, 60, "the first attempt's events")
        os.kill(lab.experiment.launch()["worker_pid"], signal.SIGKILL)
        wait_for(lambda: any(truth.glob("*.2.t0")), 60, "the second attempt")
        first = sum(path.stat().st_size > 0 for path in truth.glob("*.1.t*"))
        wait_for(lambda: printed(truth) >= 2 * EVENTS, 60, "the second attempt's events")
        (truth / "stop").touch()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert first == 2
    return folder


@pytest.fixture
def folder(printed_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "copy"
    shutil.copytree(printed_run, copy)
    return copy


def telemetry(folder: Path) -> Path:
    (found,) = (folder / "results").glob("*/telemetry")
    return found


def verdict(folder: Path) -> checker.Findings:
    return checker.check(folder / "truth", telemetry(folder))


def spoil(folder: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite the file of a table that has most rows."""
    files = (telemetry(folder) / table).glob("*.parquet")
    path = max(files, key=lambda each: pq.read_metadata(each).num_rows)
    before = pq.read_table(path, partitioning=None)
    assert before.num_rows > 20
    pq.write_table(change(before), path)


def without(rows: pa.Table, place: int) -> pa.Table:
    return pa.concat_tables([rows.slice(0, place), rows.slice(place + 1)])


def twice(rows: pa.Table, place: int) -> pa.Table:
    return pa.concat_tables([rows.slice(0, place + 1), rows.slice(place)])


def swapped(rows: pa.Table, place: int, columns: list[str] | None = None) -> pa.Table:
    """Two neighbours change places: whole rows, or what they hold in ``columns``."""
    order = list(range(rows.num_rows))
    order[place], order[place + 1] = order[place + 1], order[place]
    for name in columns or rows.column_names:
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), rows[name].take(order))
    return rows


def replaced(rows: pa.Table, place: int, column: str, value: object) -> pa.Table:
    values = rows[column].to_pylist()
    assert values[place] != value
    values[place] = value
    field = rows.schema.field(column)
    return rows.set_column(rows.schema.get_field_index(column), field, pa.array(values, pa.string()).cast(field.type)
                           if pa.types.is_dictionary(field.type) else pa.array(values, field.type))  # fmt: skip


def test_all_is_well(folder: Path) -> None:
    found = verdict(folder)
    assert found.wrong == 0, found.notes
    assert (found.workers, found.attempts) == (1, 2)
    assert found.events >= found.recorded >= 2 * EVENTS
    assert checker.main(str(folder)) == 0


@pytest.mark.parametrize("table", ["lifecycle", "steps", "episodes", "metrics"])
def test_a_lost_row(folder: Path, table: str) -> None:
    spoil(folder, table, lambda rows: without(rows, 12))
    found = verdict(folder)
    assert found.lost == 1
    assert found.wrong == 1 + found.unknown, found.notes  # a lost event's metrics are nobody's
    assert checker.main(str(folder)) == 1


@pytest.mark.parametrize("table", ["lifecycle", "steps", "episodes", "metrics"])
def test_a_row_that_is_there_twice(folder: Path, table: str) -> None:
    spoil(folder, table, lambda rows: twice(rows, 12))
    found = verdict(folder)
    assert (found.duplicated, found.wrong) == (1, 1), found.notes


@pytest.mark.parametrize("table", ["lifecycle", "steps", "episodes"])
def test_rows_out_of_order(folder: Path, table: str) -> None:
    spoil(folder, table, lambda rows: swapped(rows, 12))
    found = verdict(folder)
    assert (found.reordered, found.wrong) == (1, 1), found.notes


def test_rows_at_each_others_offsets(folder: Path) -> None:
    spoil(folder, "steps", lambda rows: swapped(rows, same_thread(rows), ["offset"]))
    found = verdict(folder)
    # In the file the offsets fall; and in the order of the offsets the numbers do, once or oftener: events of other
    # tables may stand between the two.
    assert found.reordered >= 2
    assert found.wrong == found.reordered, found.notes


def same_thread(rows: pa.Table) -> int:
    """Where two neighbours are of one thread."""
    threads = ["t0" if '"t0"' in text else "t1" for text in rows["payload"].to_pylist()]
    return next(place for place in range(10, len(threads)) if threads[place] == threads[place + 1])


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("steps", "reward", 2.0), ("steps", "episode", None), ("episodes", "metadata", '{"global_step":1,"wins":1}'),
     ("metrics", "value", 1e9), ("metrics", "step", -1)],
)  # fmt: skip
def test_a_changed_value(folder: Path, table: str, column: str, value: object) -> None:
    spoil(folder, table, lambda rows: replaced(rows, 12, column, value))
    assert verdict(folder).changed >= 1


def test_rows_under_another_run_or_attempt(folder: Path) -> None:
    spoil(folder, "episodes", lambda rows: replaced(rows, 12, "run_id", "0" * 26))
    found = verdict(folder)
    # Here the event is missing and its three metrics are nobody's; there it is the other way round.
    assert (found.lost, found.changed, found.unknown) == (4, 1, 4), found.notes


def test_an_attempt_that_is_not_there_at_all(folder: Path) -> None:
    for table in checker.TABLES:
        for path in (telemetry(folder) / table).glob("*.parquet"):
            rows = pq.read_table(path, partitioning=None)
            pq.write_table(rows.filter(pa.compute.not_equal(rows["attempt"], 1)), path)
    found = verdict(folder)
    recorded = sum(struct.unpack("=q", path.read_bytes()[:8])[0] for path in (folder / "truth").glob("*.1.t*"))
    assert found.lost == found.wrong == recorded + 1  # and attempt_started


def test_events_that_nobody_printed(folder: Path) -> None:
    record = next((folder / "truth").glob("*.2.t1"))
    written, begun = struct.unpack("=qq", record.read_bytes())
    assert written == begun
    record.write_bytes(struct.pack("=qq", written - 3, begun - 3))
    assert verdict(folder).unknown == 3
    record.unlink()
    assert verdict(folder).unknown == written
    (folder / "truth" / f"{record.name}.second").touch()
    assert verdict(folder).unknown == written + 1


def test_the_write_that_was_under_way_may_be_there_or_not(folder: Path) -> None:
    record = next((folder / "truth").glob("*.2.t1"))
    written, begun = struct.unpack("=qq", record.read_bytes())
    record.write_bytes(struct.pack("=qq", written - 3, begun))
    assert verdict(folder).wrong == 0
    record.write_bytes(struct.pack("=qq", written, begun + 3))
    assert verdict(folder).wrong == 0
    record.write_bytes(struct.pack("=qq", written + 1, begun + 3))
    assert verdict(folder).lost == 1


def test_only_the_last_line_may_be_cut(folder: Path) -> None:
    def cut(rows: pa.Table, place: int) -> pa.Table:
        """A row before that at ``place``."""
        new = rows.slice(place - 1, 1)
        new = replaced(replaced(new, 0, "event", "unparsed"), 0, "payload", '{"event":"heartb')
        offset = pa.array([rows["offset"][place].as_py() - 1])
        new = new.set_column(rows.schema.get_field_index("offset"), rows.schema.field("offset"), offset)
        return pa.concat_tables([rows.slice(0, place), new, rows.slice(place)]).unify_dictionaries()

    before = verdict(folder).torn
    file = file_with(folder, "run_failed")
    good = pq.read_table(file, partitioning=None)
    pq.write_table(cut(good, good["event"].to_pylist().index("run_failed")), file)
    found = verdict(folder)
    assert (found.wrong, found.torn) == (0, before + 1), found.notes
    pq.write_table(cut(good, good["event"].to_pylist().index("run_failed") - 3), file)
    assert verdict(folder).unknown == 1


def file_with(folder: Path, event: str) -> Path:
    """The lifecycle file that holds an event."""
    files = (telemetry(folder) / "lifecycle").glob("*.parquet")
    return next(path for path in files if event in pq.read_table(path, partitioning=None)["event"].to_pylist())


@pytest.mark.parametrize("seed", range(20))
def test_a_deck_holds_what_was_asked(seed: int) -> None:
    kills = {"hub": 4, "actor": 3, "worker": 5}
    groups = deck(random.Random(seed), kills)
    assert Counter(kind for group in groups for kind in group) == kills
    assert all(group.count("hub") <= 1 for group in groups)
    assert groups == deck(random.Random(seed), kills)
