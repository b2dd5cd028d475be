"""Ray that is slow to start is tried again, with nothing of the failed start left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from support import wait_for

from mosaic_cluster.runtime.starting import TRIES, start_ray
from mosaic_cluster.worker.errors import BackendError

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


SLEEP = "import time; time.sleep(60)"
PROGRAM = "_private/log_monitor.py"


class SlowRay:
    """Stands in for ``ray.init``, which gives up after half a minute and leaves its processes."""

    def __init__(self, fails: int, error: Exception) -> None:
        self.fails, self.error = fails, error
        self.left: list[subprocess.Popen[bytes]] = []
        self.calls: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], Any] | None = None

    def init(self, **options: Any) -> None:
        self.calls.append(options)
        if len(self.calls) <= self.fails:
            self.left.append(subprocess.Popen([sys.executable, "-c", SLEEP, str(Path(ray.__file__).parent / PROGRAM)]))
            if self.meanwhile is not None:
                self.meanwhile()
            raise self.error


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(fails: int, error: Exception | None = None) -> SlowRay:
        made = SlowRay(fails, error or Exception(SLOW))
        monkeypatch.setattr(ray, "init", made.init)
        return made

    return make


def test_it_is_tried_again_and_nothing_is_left(slow: Any) -> None:
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stand_in = slow(2)
    try:
        start_ray({"address": "local"})
        assert stand_in.calls == [{"address": "local"}] * 3
        assert not any(psutil.pid_exists(process.pid) for process in stand_in.left)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


def test_children_that_others_start_meanwhile_live_on(slow: Any) -> None:
    stand_in = slow(1)
    others: list[subprocess.Popen[bytes]] = []
    children: list[psutil.Process] = []

    def meanwhile() -> None:
        others.append(subprocess.Popen(["sleep", "60"]))
        ours = str(Path(ray.__file__).parent / PROGRAM)
        stand_in.left.append(subprocess.Popen(["sh", "-c", "sleep 60; exit", ours]))
        wait_for(lambda: psutil.Process(stand_in.left[-1].pid).children(), 10)
        children.extend(psutil.Process(stand_in.left[-1].pid).children())

    stand_in.meanwhile = meanwhile
    try:
        start_ray({})
        assert others[0].poll() is None
        assert not any(psutil.pid_exists(process.pid) for process in stand_in.left)
        assert children
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children)
    finally:
        for process in others:
            process.kill()
            process.wait()


def test_it_says_why_it_gives_up(slow: Any) -> None:
    stand_in = slow(TRIES)
    with pytest.raises(BackendError, match=r"not there within 30 s. The machine is busy \(load \d+ on \d+ CPUs\)"):
        start_ray({})
    assert len(stand_in.left) == TRIES
    assert not any(psutil.pid_exists(process.pid) for process in stand_in.left)


def test_another_error_is_nothing_to_try_again(slow: Any) -> None:
    stand_in = slow(1, ConnectionError("no cluster there"))
    with pytest.raises(ConnectionError, match="no cluster there"):
        start_ray({})
    assert len(stand_in.calls) == 1
    stand_in.left[0].kill()
    stand_in.left[0].wait()
