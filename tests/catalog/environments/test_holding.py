"""Who builds, where several want to: whatever dies, stalls or sleeps through it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mosaic_cluster.catalog.environments.holding import BEAT_SECONDS, SILENT_SECONDS, Hold, Lost, Waiting, holder_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(folder: Path, clock: Clock | None = None) -> Hold:
    got = Waiting(folder, clock or Clock()).attempt()
    assert isinstance(got, Hold), got
    return got


def test_one_at_a_time(tmp_path: Path) -> None:
    first = taken(tmp_path)
    waiting = Waiting(tmp_path, Clock())
    who = waiting.attempt()
    assert isinstance(who, str)
    assert who == holder_of(tmp_path)
    assert socket.gethostname() in who
    first.release()
    assert holder_of(tmp_path) is None
    assert isinstance(waiting.attempt(), Hold)
    assert len(list(tmp_path.iterdir())) == 1


def test_many_at_once_get_one(tmp_path: Path) -> None:
    for _ in range(20):
        start, got = threading.Barrier(8), []

        def one(start: threading.Barrier = start, got: list[Hold] = got) -> None:
            waiting = Waiting(tmp_path, Clock())
            start.wait()
            found = waiting.attempt()
            if isinstance(found, Hold):
                got.append(found)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mosaic_cluster.catalog.environments.holding import Waiting\n"
        "print(type(Waiting(Path(sys.argv[1])).attempt()).__name__)"
    )
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True) == "Hold\n"
    assert holder_of(tmp_path) is None
    assert isinstance(Waiting(tmp_path, Clock()).attempt(), Hold)


def elsewhere(folder: Path, beats: int) -> None:
    """What a holder on another node writes."""
    text = json.dumps({"pid": 1, "started": 0.0, "host": "another", "beats": beats})
    (folder / "holder.7").write_text(text)


def test_another_node_is_believed_while_it_beats(tmp_path: Path) -> None:
    clock = Clock()
    waiting = Waiting(tmp_path, clock)
    for beats in range(5):
        elsewhere(tmp_path, beats)
        assert waiting.attempt() == "process 1 on another"
        clock.now += SILENT_SECONDS - 1
    clock.now += 2
    assert isinstance(waiting.attempt(), Hold)
    assert [path.name for path in tmp_path.iterdir()] == ["holder.8"]


def test_who_was_thought_dead_learns_it(tmp_path: Path) -> None:
    clock = Clock()
    hold = taken(tmp_path, clock)
    clock.now += BEAT_SECONDS
    hold.check()
    assert json.loads((tmp_path / "holder.1").read_text())["beats"] == 1
    (tmp_path / "holder.2").write_text(json.dumps({"pid": 1, "host": "another", "beats": 0}))
    clock.now += BEAT_SECONDS
    with pytest.raises(Lost):
        hold.check()
    hold.release()
    assert Waiting(tmp_path, Clock()).attempt() == "process 1 on another"
