"""Checkpoints in an object store, and the rest of a work folder: whole, or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from s3_server import S3

from mosaic_cluster.runtime.checkpoints import Checkpoint
from mosaic_cluster.runtime.saved import Saved, Uploads, fetch, saved_checkpoints
from mosaic_cluster.runtime.sending import Sender
from mosaic_cluster.storage import Storage
from mosaic_cluster.storage.local import LocalStorage
from mosaic_cluster.worker.errors import StorageError


class Breaking(LocalStorage):
    """Takes so many uploads, then none."""

    left = 1_000_000

    def _upload(self, name: str, path: Path) -> None:
        if self.left == 0:
            raise StorageError("the network is gone")
        self.left -= 1
        super()._upload(name, path)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "node" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    return folder


def weights(run_dir: Path, name: str, text: str) -> Path:
    """A checkpoint that is a folder of two files."""
    path = run_dir / "checkpoints" / name
    path.mkdir(exist_ok=True)
    for part in ("actor", "critic"):
        (path / part).write_text(text)
    return path


def fetched(storage: Storage, saved: Saved, folder: Path) -> list[str]:
    path = fetch(storage, saved, folder)
    return [(path / part).read_text() for part in ("actor", "critic")]


def test_one_that_is_written_over_stays_whole_until_the_next_is(tmp_path: Path, run_dir: Path) -> None:
    storage = Breaking(tmp_path / "storage")
    uploads = Uploads(storage, run_dir, 1)
    assert uploads.put(weights(run_dir, "latest", "one"), 10, 100)
    storage.left = 1
    with pytest.raises(StorageError):
        uploads.put(weights(run_dir, "latest", "two"), 20, 200)
    (first,) = saved_checkpoints(storage, 1)
    assert (first.step, first.offset) == (10, 100)
    assert fetched(storage, first, tmp_path / "b") == ["one", "one"]
    # Another attempt of another node, which dies in the middle, too.
    storage.left = 1
    with pytest.raises(StorageError):
        Uploads(storage, run_dir, 2).put(run_dir / "checkpoints" / "latest", 30, 50)
    assert fetched(storage, first, tmp_path / "b") == ["one", "one"]
    storage.left = 100
    assert uploads.put(run_dir / "checkpoints" / "latest", 20, 200)
    (second,) = saved_checkpoints(storage, 1)
    assert fetched(storage, second, tmp_path / "b") == ["two", "two"]
    assert not [name for name in storage.list() if name in first.names()], "what was replaced takes no room"


def test_an_older_word_of_the_same_path_changes_nothing(tmp_path: Path, run_dir: Path) -> None:
    storage = LocalStorage(tmp_path / "storage")
    uploads = Uploads(storage, run_dir, 1)
    path = weights(run_dir, "latest", "two")
    assert uploads.put(path, 20, 200)
    assert not uploads.put(path, 10, 100)
    assert not uploads.put(run_dir / "checkpoints" / ".." / "checkpoints" / "latest", 10, 150)
    (saved,) = saved_checkpoints(storage, 1)
    assert (saved.step, saved.offset, saved.path) == (20, 200, "checkpoints/latest")


def test_one_that_its_worker_removed_goes_from_storage(tmp_path: Path, run_dir: Path) -> None:
    storage = LocalStorage(tmp_path / "storage")
    uploads = Uploads(storage, run_dir, 1)
    for step in (1, 2, 3):
        (run_dir / "checkpoints" / f"{step}.pt").write_text(str(step))
        (run_dir / "checkpoints" / f"{step - 2}.pt").unlink(missing_ok=True)
        assert uploads.put(run_dir / "checkpoints" / f"{step}.pt", step, step)
    assert [each.step for each in saved_checkpoints(storage, 1)] == [2, 3]
    assert storage.list("checkpoints") == ["checkpoints/2.pt", "checkpoints/3.pt"]
    assert not uploads.put(run_dir / "checkpoints" / "1.pt", 4, 4), "it is gone already"


def test_one_outside_of_the_runs_folder(tmp_path: Path, run_dir: Path) -> None:
    storage = LocalStorage(tmp_path / "storage")
    (tmp_path / "model.zip").write_text("weights")
    assert Uploads(storage, run_dir, 3).put(tmp_path / "model.zip", 7, 70)
    (saved,) = saved_checkpoints(storage, 3)
    assert fetch(storage, saved, tmp_path / "b") == tmp_path / "b" / "checkpoints/elsewhere/3-70/model.zip"


def test_what_is_not_whole_is_refused(tmp_path: Path, run_dir: Path) -> None:
    storage = LocalStorage(tmp_path / "storage")
    Uploads(storage, run_dir, 1).put(weights(run_dir, "latest", "one"), 10, 100)
    storage.put("checkpoints/latest/critic", b"something longer")
    (saved,) = saved_checkpoints(storage, 1)
    with pytest.raises(StorageError, match="is not whole: critic has not 3 bytes"):
        fetch(storage, saved, run_dir)
    assert (run_dir / "checkpoints" / "latest" / "actor").read_text() == "one", "what was there is as it was"


def test_what_cannot_be_sent_is_named(s3_server: S3, run_dir: Path) -> None:
    (run_dir / "attempts" / "1").mkdir(parents=True)
    (run_dir / "attempts" / "1" / "outcome.json").write_text("{}")
    (run_dir / "config.json").write_text(json.dumps({"a": 1}))
    path = run_dir / "checkpoints" / "1.pt"
    path.write_text("weights")
    storage = Storage.open(s3_server.uri, retry_seconds=1)
    sender = Sender(storage, run_dir, 1)
    s3_server.fail(100, 403)
    sender.start()
    sender.announce(Checkpoint(str(path), 1, 1, 10))
    assert sender.finish(0, 0, 30) == ("1.pt", "attempts/1/outcome.json", "config.json")
    s3_server.restore()
    again = Sender(storage, run_dir, 1)
    again.announce(Checkpoint(str(path), 1, 1, 10))
    again.start()
    assert again.finish(0, 0, 30) == ()
    assert storage.list() == [
        "attempts/1/checkpoints.json", "attempts/1/outcome.json", "attempts/1/sent.json", "checkpoints/1.pt",
        "config.json",
    ]  # fmt: skip


def test_a_checkpoint_that_cannot_be_read_holds_nothing_else_up(tmp_path: Path, run_dir: Path) -> None:
    """It is named in the end; the others, and the records, are in storage."""

    class Picky(LocalStorage):
        def _upload(self, name: str, path: Path) -> None:
            if "broken" in name:
                raise StorageError("this one cannot be read")
            super()._upload(name, path)

    (run_dir / "attempts" / "1").mkdir(parents=True)
    (run_dir / "attempts" / "1" / "outcome.json").write_text("{}")
    storage = Picky(tmp_path / "storage")
    sender = Sender(storage, run_dir, 1)
    for step, name in ((1, "good.pt"), (2, "broken.pt")):
        (run_dir / "checkpoints" / name).write_text(name)
        sender.announce(Checkpoint(str(run_dir / "checkpoints" / name), step, 1, step * 10))
    sender.start()
    assert sender.finish(0, 0, 30) == ("broken.pt",)
    assert [each.path for each in saved_checkpoints(storage, 1)] == ["checkpoints/good.pt"]
    assert storage.exists("attempts/1/outcome.json")
