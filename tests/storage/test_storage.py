from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import pytest

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import AlreadyExists, NotFound, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path / "results")


def test_opening_creates_nothing(storage: Storage) -> None:
    assert storage.list() == []
    assert not storage.local_path.exists()


def test_put_get_replace(storage: Storage) -> None:
    storage.put("a/b.json", b"1")
    storage.put("a/b.json", b"22")
    assert storage.get("a/b.json") == b"22"
    assert storage.list() == ["a/b.json"]
    assert storage.list("a") == ["a/b.json"]
    assert storage.folders() == ["a"]


def test_create_only_once(storage: Storage) -> None:
    storage.create("n/1", b"first")
    with pytest.raises(AlreadyExists, match=r"cannot create n/1: it exists already"):
        storage.create("n/1", b"second")
    assert storage.get("n/1") == b"first"


def _race(location: str, number: int, queue: multiprocessing.Queue[int]) -> None:
    try:
        Storage.open(location).create("number/7", str(number).encode())
    except AlreadyExists:
        return
    queue.put(number)


def test_create_is_won_by_exactly_one_process(storage: Storage) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_race, args=(storage.location, n, queue)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    winner = queue.get(timeout=5)
    assert queue.empty()
    assert storage.get("number/7") == str(winner).encode()


def test_missing_objects(storage: Storage) -> None:
    with pytest.raises(NotFound):
        storage.get("nothing")
    storage.put("x", b"")
    with pytest.raises(NotFound):
        storage.get("nothing")
    storage.delete("nothing")


def test_json_is_strict(storage: Storage) -> None:
    storage.put_json("s.json", {"ü": [1, None]})
    assert storage.get_json("s.json") == {"ü": [1, None]}
    with pytest.raises(ValueError, match="Out of range"):
        storage.put_json("t.json", {"x": float("nan")})
    storage.put("broken.json", b"{")
    with pytest.raises(StorageError, match=r"broken\.json is not JSON"):
        storage.get_json("broken.json")


def test_names_keep_their_characters(storage: Storage) -> None:
    storage.put("with space/ü.json", b"1")
    assert storage.list() == ["with space/ü.json"]
    assert (storage.local_path / "with space" / "ü.json").read_bytes() == b"1"


def test_half_written_objects_are_never_listed(storage: Storage) -> None:
    storage.put("a.parquet", b"whole")
    # What a writer killed between staging and renaming leaves behind.
    (storage.local_path / "b.parquet#1").write_bytes(b"half")
    assert storage.list() == ["a.parquet"]
    storage.put("b.parquet", b"whole")
    assert storage.get("b.parquet") == b"whole"


def test_uris_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a URI; this version keeps"):
        Storage.open("s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file; give a folder"):
        Storage.open(tmp_path / "file")


def test_unwritable_place_says_why() -> None:
    with pytest.raises(StorageError, match="cannot make the folder"):
        Storage.open("/proc/nowhere/results").put("x", b"")


def test_survives_pickling_and_sub_storages(storage: Storage) -> None:
    below = pickle.loads(pickle.dumps(storage)).at("exp-1")
    below.put("x", b"1")
    assert storage.get("exp-1/x") == b"1"
