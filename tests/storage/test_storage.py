"""What every storage does alike: on this disk, on another file system, and in a bucket.

``shared`` stands for NFS as far as one machine can: a tmpfs, that is another file system than the one of temporary
files, reached by two paths. What NFS alone does, a link whose answer is lost, has a test of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError

PLACES = ["disk", "shared", "s3"]


@pytest.fixture
def location(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the storage of this kind is."""
    if kind == "disk":
        yield str(tmp_path / "results")
    elif kind == "s3":
        yield request.getfixturevalue("s3_server").uri
    else:
        mounted = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="mosaic-test-"))
        assert mounted.stat().st_dev != tmp_path.stat().st_dev
        (tmp_path / "mount").symlink_to(mounted)
        yield str(tmp_path / "mount" / "results")
        shutil.rmtree(mounted)


@pytest.fixture(params=PLACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage(location: str) -> Storage:
    return Storage.open(location)


def test_opening_creates_nothing(storage: Storage, kind: str) -> None:
    assert storage.list() == storage.folders() == storage.list("a") == storage.folders("a") == []
    assert storage.is_local == (kind != "s3")
    if storage.is_local:
        assert not storage.local_path.exists()


def test_put_get_replace(storage: Storage) -> None:
    storage.put("a/b.json", b"1")
    storage.put("a/b.json", b"22")
    assert storage.get("a/b.json") == b"22"
    assert storage.size("a/b.json") == 2
    assert storage.exists("a/b.json")
    assert not storage.exists("a")
    assert storage.list() == ["a/b.json"]
    assert storage.list("a") == ["a/b.json"]
    assert storage.folders() == ["a"]
    storage.delete("a/b.json")
    storage.delete("a/b.json")
    assert not storage.exists("a/b.json")


def test_lists_are_sorted_deep_and_start_where_one_is(storage: Storage) -> None:
    names = ["a/1", "a/10", "a/2", "a/x/y/z", "ab/1", "b"]
    for name in reversed(names):
        storage.put(name, b"")
    assert storage.list() == names
    assert storage.list("a") == names[:4]
    assert storage.list("a", after="a/10") == ["a/2", "a/x/y/z"]
    assert storage.list(after="b") == []
    assert storage.folders() == ["a", "ab"]
    assert storage.folders("a/x") == ["y"]


def test_create_only_once(storage: Storage) -> None:
    storage.create("n/1", b"first")
    with pytest.raises(AlreadyExists, match=r"cannot create n/1: it exists already"):
        storage.create("n/1", b"second")
    with pytest.raises(AlreadyExists):
        storage.create("n/1", b"first")  # equal bytes do not make it the same writer's
    assert storage.get("n/1") == b"first"
    assert storage.list() == ["n/1"]


RACE = """
import sys
from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import AlreadyExists, NotFound
storage, me = Storage.open(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
won = []
for number in range(12):
    try:
        storage.create(f"number/{number}", (me * 200_000).encode())
        won.append(number)
    except AlreadyExists:
        seen = storage.get(f"number/{number}")
        assert len(seen) == 200_000 and len(set(seen)) == 1, "half an object"
print(won)
"""


def test_each_number_is_won_by_exactly_one_process(storage: Storage) -> None:
    command = [sys.executable, "-c", RACE, storage.location]
    racers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "abcdef"
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [racer.returncode for racer in racers] == [0] * 6
    assert sorted(number for each in won for number in each) == list(range(12))
    for name, each in zip("abcdef", won, strict=True):
        for number in each:
            assert storage.get(f"number/{number}") == (name * 200_000).encode()


WRITER = """
import sys, pathlib
from mosaic_cluster.storage import Storage
storage, folder = Storage.open(sys.argv[1]), pathlib.Path(sys.argv[2])
for turn in range(1, 10_000):
    (folder / "source").write_bytes(bytes([turn % 256]) * 24_000_000)
    print(turn, flush=True)
    storage.upload("big", folder / "source")
"""


def test_a_writer_that_is_killed_leaves_the_old_or_the_new(storage: Storage, tmp_path: Path) -> None:
    storage.put("big", bytes(24_000_000))
    for pause in (0.0, 0.05, 0.2, 0.6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, storage.location, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None and writer.stdout.readline() == "1\n"
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        storage.download("big", tmp_path / "copy")
        found = (tmp_path / "copy").read_bytes()
        assert len(found) == 24_000_000
        assert len(set(found)) == 1
        assert storage.list() == ["big"]


def test_files_up_and_down(storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    for size in (0, 1, 20_000_000):
        source.write_bytes(os.urandom(size))
        storage.upload("x/file", source)
        storage.download("x/file", target)
        assert target.read_bytes() == source.read_bytes()
        assert storage.size("x/file") == size
    assert os.listdir(target.parent) == ["target"]
    assert storage.list() == ["x/file"]
    with pytest.raises(NotFound):
        storage.download("x/none", target)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(StorageError, match=r"cannot write y from .*none"):
        storage.upload("y", tmp_path / "none")


def test_large_objects_are_put_whole(storage: Storage) -> None:
    data = os.urandom(20_000_000)
    storage.put("big", data)
    assert storage.get("big") == data


def test_times(storage: Storage) -> None:
    storage.put("x", b"1")
    assert abs(storage.modified("x") - time.time()) < 60


def test_reading_parts(storage: Storage, tmp_path: Path) -> None:
    table = pa.table({"n": range(300_000), "text": [str(n * 7919) for n in range(300_000)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=50_000)
    storage.upload("t.parquet", tmp_path / "t.parquet")
    with storage.open_input("t.parquet") as source:
        assert source.size() == (tmp_path / "t.parquet").stat().st_size
        assert pq.read_metadata(source).num_row_groups == 6
    with storage.open_input("t.parquet") as source:
        assert pq.read_table(source).equals(table)
    with storage.open_input("t.parquet") as source:
        whole = (tmp_path / "t.parquet").read_bytes()
        source.seek(1000)
        assert source.read(10) == whole[1000:1010]
        assert source.tell() == 1010
        assert source.read() == whole[1010:]
        assert source.read() == b""
    storage.put("empty", b"")
    with storage.open_input("empty") as source:
        assert source.read() == b""


def test_missing_objects(storage: Storage) -> None:
    for _ in range(2):
        for ask in (storage.get, storage.size, storage.modified, storage.open_input, storage.get_json):
            with pytest.raises(NotFound):
                ask("nothing")
        storage.delete("nothing")
        assert not storage.exists("nothing")
        storage.put("x", b"")


def test_json_is_strict(storage: Storage) -> None:
    storage.put_json("s.json", {"ü": [1, None]})
    assert storage.get_json("s.json") == {"ü": [1, None]}
    with pytest.raises(ValueError, match="Out of range"):
        storage.put_json("t.json", {"x": float("nan")})
    storage.put("broken.json", b"{")
    with pytest.raises(StorageError, match=r"/broken\.json is not JSON"):
        storage.get_json("broken.json")


def test_names_keep_their_characters(storage: Storage) -> None:
    names = ["with space/ü.json", "a+b=c&d.json", "100%25.json"]
    for name in names:
        storage.create(name, name.encode())
        storage.put(name, name.encode())
    assert storage.list() == sorted(names)
    for name in names:
        assert storage.get(name) == name.encode()
        assert storage.size(name) == len(name.encode())


@pytest.mark.parametrize("name", ["", "/etc/x", "a/../b", "../x", "a//b", "./a"])
def test_names_that_lead_elsewhere(storage: Storage, name: str) -> None:
    with pytest.raises(StorageError, match="is no name of an object"):
        storage.create(name, b"")
    with pytest.raises(StorageError):
        storage.put(name, b"")


def test_survives_pickling_and_sub_storages(storage: Storage) -> None:
    below = pickle.loads(pickle.dumps(storage)).at("exp-1")
    below.put("x", b"1")
    assert storage.get("exp-1/x") == b"1"
    assert below == storage.at("exp-1") == Storage.open(f"{storage.location}/exp-1")
    assert below != storage
    assert len({below, storage.at("exp-1"), storage}) == 2
    assert Storage.open(below) is below


@pytest.mark.parametrize("kind", ["disk", "shared"])
class TestFolders:
    """What only paths have."""

    def test_half_written_objects_are_never_listed(self, storage: Storage) -> None:
        storage.put("a.parquet", b"whole")
        # What a writer killed between staging and renaming leaves behind.
        (storage.local_path / "b.parquet#1").write_bytes(b"half")
        assert storage.list() == ["a.parquet"]
        storage.put("b.parquet", b"whole")
        assert storage.get("b.parquet") == b"whole"

    def test_a_link_whose_answer_was_lost(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        link = os.link

        def twice(source: Path, target: Path) -> None:
            link(source, target)
            link(source, target)  # as an NFS client does that heard nothing

        monkeypatch.setattr(os, "link", twice)
        storage.create("n/1", b"mine")
        with pytest.raises(AlreadyExists):
            storage.create("n/1", b"mine")
        assert storage.get("n/1") == b"mine"
        assert os.listdir(storage.local_path / "n") == ["1"]

    def test_a_file_is_no_storage(self, storage: Storage) -> None:
        storage.put("file", b"")
        with pytest.raises(StorageError, match="is a file; give a folder"):
            Storage.open(storage.local_path / "file")


def test_unwritable_place_says_why() -> None:
    with pytest.raises(StorageError, match="cannot make the folder"):
        Storage.open("/proc/nowhere/results").put("x", b"")
    with pytest.raises(StorageError, match="cannot create x"):
        Storage.open("/proc/nowhere/results").create("x", b"")
