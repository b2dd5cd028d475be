"""Memory that is watched: host and GPU, what is declared and by whom, what follows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import processes_of, wait_for
from ulid import ULID

from mosaic_cluster.supervision import Limits, Order, Outcome, Supervised, start, tree
from mosaic_cluster.supervision.gpus import PATIENCE, GpuWatch
from mosaic_cluster.supervision.limiting import Seen, excesses, over_limit, with_figures
from mosaic_cluster.supervision.usage import Usage
from mosaic_cluster.supervision.verdict import judge
from mosaic_cluster.units import parse_bytes

RUN = str(ULID())  # each process of the test suite has its own: processes are found by it
GIB = 1 << 30
QUIET = Seen(ran=0, silent=0, step=None, log=0, memory=0)


class FakeNvml:
    """Two GPUs, and who holds what on each."""

    def __init__(self, *used: dict[int, int | None]) -> None:
        self.used = used
        self.error: Exception | None = None

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self.used[index]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in handle.items()]


def watching(nvml: FakeNvml, computes: Callable[[int], bool] = lambda pid: False) -> GpuWatch:
    return GpuWatch(lambda: nvml, computes)


def test_gpu_memory_is_that_of_our_processes_on_the_fullest_gpu() -> None:
    watch = watching(FakeNvml({1: 5, 2: 7, 99: 1000}, {1: 10, 98: 1000}))
    assert watch.look([1, 2, 3]) == 12
    assert watch.look([2]) == 7
    assert watch.look([3]) == 0
    assert watch.unseen is None


def test_processes_that_the_driver_knows_by_other_numbers() -> None:
    watch = watching(FakeNvml({4001: 5 * GIB}), computes=lambda pid: pid == 1)
    for _ in range(PATIENCE - 1):
        assert watch.look([1]) is None
        assert watch.unseen is None
    assert watch.look([1]) is None
    assert watch.unseen is not None
    assert "counts processes by other numbers" in watch.unseen
    assert watch.look([4001]) is None, "it may be anybody's"


def test_a_process_that_is_only_just_unknown() -> None:
    nvml = FakeNvml({99: 1})
    watch = watching(nvml, computes=lambda pid: True)
    for _ in range(3 * PATIENCE):
        assert watch.look([1]) is None
        nvml.used[0][1] = 42
        assert watch.look([1]) == 42
        del nvml.used[0][1]
        watch._strange = 0
    assert watch.unseen is None


@pytest.mark.parametrize("broken", ["silent", "error", "absent", "driver"])
def test_what_cannot_be_measured_says_so_and_kills_nobody(broken: str) -> None:
    nvml = FakeNvml({1: None} if broken == "silent" else {1: 5})
    if broken == "error":
        nvml.error = RuntimeError("GPU is lost")

    def load() -> FakeNvml:
        if broken == "absent":
            raise ImportError
        if broken == "driver":
            raise RuntimeError("NVML Shared Library Not Found")
        return nvml

    watch = GpuWatch(load, lambda pid: True)
    assert watch.look([1]) is None
    assert watch.unseen is not None
    assert watch.unseen.startswith("its GPU memory is not measured: ")
    assert over_limit(Limits(gpu_memory=1), replace(QUIET, gpu_memory=watch.look([1]))) is None


def test_more_gpu_memory_than_declared_is_named_with_figures() -> None:
    seen = replace(QUIET, gpu_memory=parse_bytes("22.3GiB"))
    verdict = over_limit(Limits(gpu_memory=20 * GIB), seen)
    assert verdict is not None
    assert (verdict.state, verdict.code, verdict.retryable) == ("FAILED", "out_of_memory", False)
    assert verdict.exhausted == "gpu_memory"
    assert verdict.message.startswith("used 22.3GiB of GPU memory, declared 20GiB (resources.gpu_memory)")
    assert over_limit(Limits(gpu_memory=20 * GIB), replace(QUIET, gpu_memory=20 * GIB)) is None


def test_a_warning_changes_nothing() -> None:
    limits = Limits(memory=2 * GIB, gpu_memory=GIB, on_excess="warn")
    seen = replace(QUIET, memory=3 * GIB, gpu_memory=2 * GIB)
    assert over_limit(limits, seen) is None
    assert excesses(limits, seen) == {
        "memory": "used 3GiB of memory, declared 2GiB (limits.on_excess: warn)",
        "gpu_memory": "used 2GiB of GPU memory, declared 1GiB (limits.on_excess: warn)",
    }
    assert excesses(replace(limits, on_excess="stop"), seen) == {}


def test_what_only_a_worker_declares_is_said() -> None:
    limits = Limits(expected_memory=2 * GIB, expected_gpu_memory=GIB)
    seen = replace(QUIET, memory=2 * GIB + 1, gpu_memory=2 * GIB)
    assert over_limit(limits, seen) is None
    found = excesses(limits, seen)
    assert "used 2,147,483,649 bytes of memory, declared 2,147,483,648 bytes (by its worker" in found["memory"]
    assert "used 2GiB of GPU memory" in found["gpu_memory"]
    assert excesses(limits, replace(QUIET, memory=GIB)) == {}


def test_the_first_figures_stand() -> None:
    usage = Usage(Limits())
    usage.notice({"memory": "first"})
    usage.notice({"memory": "second", "gpu_memory": "another"})
    assert sorted(usage.warnings) == ["another", "first"]


@pytest.mark.parametrize(
    ("words", "killed", "exhausted"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", False, "gpu_memory"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate", False, "gpu_memory"),
        ("MemoryError", False, "memory"),
        ("", True, "memory"),
        ("ValueError: nothing of the kind", False, None),
    ],
)
def test_what_ran_out(words: str, killed: bool, exhausted: str | None) -> None:
    code, number = (None, 9) if killed else (1, None)
    verdict = judge(code, number, [words], None, {}, killed)
    assert verdict.exhausted == exhausted
    told = with_figures(verdict, Limits(expected_gpu_memory=20 * GIB), {"gpu_memory": 19 * GIB, "memory": 3 * GIB})
    figures = {
        "gpu_memory": "; it was seen to use 19GiB of GPU memory, declared 20GiB",
        "memory": "; it was seen to use 3GiB of memory",
    }
    assert told.message == verdict.message + figures.get(exhausted or "", "")


FORKS = "import subprocess, sys, time; subprocess.Popen(['sleep', '100']); print('up', flush=True); time.sleep(100)"


@pytest.mark.parametrize("lists", [True, False], ids=["kernel lists children", "it does not"])
def test_the_family_is_found_either_way(lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lists:
        monkeypatch.setattr(tree, "_children", lambda pid: (_ for _ in ()).throw(FileNotFoundError()))
    top = subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE)
    try:
        assert top.stdout is not None
        assert top.stdout.readline() == b"up\n"
        found = tree.family(os.getpid())
        assert top.pid in found
        assert set(tree.descendants(top.pid)) == set(tree.family(top.pid))
        assert len(tree.family(top.pid)) == 1
    finally:
        for pid in [*tree.descendants(top.pid), top.pid]:
            os.kill(pid, 9)
        top.wait()
        assert top.stdout is not None
        top.stdout.close()


NVML = """
import os
from types import SimpleNamespace
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def pretends(pid):
    try:
        return b'PRETEND=1' in open(f'/proc/{{pid}}/environ', 'rb').read()
    except OSError:
        return False
def nvmlDeviceGetComputeRunningProcesses(gpu):
    figures = open({figures!r}).read().split()
    pids = [int(entry) for entry in os.listdir('/proc') if entry.isdigit() and pretends(entry)] if figures else []
    return [SimpleNamespace(pid=pid, usedGpuMemory=int(figures[0])) for pid in pids]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Supervised]]:
    """Starts code as a worker on a machine with a pretended GPU: the file `figures` says what each process holds."""
    (tmp_path / "fake").mkdir()
    figures = tmp_path / "figures"
    figures.write_text("")
    (tmp_path / "fake" / "pynvml.py").write_text(NVML.format(figures=str(figures)))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{tmp_path}/fake" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    real = sys.executable
    made: list[Supervised] = []

    def begin(code: str, **more: Any) -> Supervised:
        environment = {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": RUN, "MOSAIC_ATTEMPT": "1", "PRETEND": "1"}
        order = Order(
            RUN, 1, (real, "-u", "-c", code), str(tmp_path), environment, str(tmp_path / "attempt"), grace=2.0, **more
        )
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(python))
            made.append(start(order))
        return made[-1]

    yield begin
    for each in made:
        each.close()
    wait_for(lambda: not processes_of(RUN), 10, "every process to end")


def ended(supervised: Supervised) -> Outcome:
    outcome = supervised.wait(30)
    assert outcome is not None, "it goes on"
    return outcome


def test_a_worker_beyond_its_gpu_memory_is_stopped(run: Callable[..., Supervised], tmp_path: Path) -> None:
    supervised = run("import time; time.sleep(100)", gpu=True, limits=Limits(gpu_memory=20 * GIB))
    (tmp_path / "figures").write_text(str(19 * GIB))
    wait_for(lambda: supervised.status().peak_gpu_memory == 19 * GIB, 20)
    assert supervised.status().state == "RUNNING"
    (tmp_path / "figures").write_text(str(22 * GIB))
    outcome = ended(supervised)
    assert (outcome.state, outcome.code, outcome.exhausted) == ("FAILED", "out_of_memory", "gpu_memory")
    assert outcome.message.startswith("used 22GiB of GPU memory, declared 20GiB")
    assert outcome.peak_gpu_memory == 22 * GIB


def test_a_worker_that_is_only_warned(run: Callable[..., Supervised], tmp_path: Path) -> None:
    code = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"
    limits = Limits(memory=1 << 20, gpu_memory=GIB, on_excess="warn")
    supervised = run(code, gpu=True, limits=limits)
    (tmp_path / "figures").write_text(str(2 * GIB))
    wait_for(lambda: len(supervised.status().warnings) == 2, 20)
    assert supervised.status().state == "RUNNING"
    (tmp_path / "go").write_text("")
    outcome = ended(supervised)
    assert (outcome.state, outcome.exhausted) == ("COMPLETED", None)
    assert [each.partition(",")[0].split(" of ")[1] for each in sorted(outcome.warnings)] == ["GPU memory", "memory"]
    assert '"event":"warned"' in (tmp_path / "attempt" / "stdout.log").read_text()


def test_without_a_gpu_nobody_asks(run: Callable[..., Supervised], tmp_path: Path) -> None:
    (tmp_path / "fake" / "pynvml.py").write_text("raise RuntimeError('loaded')")
    outcome = ended(run("pass"))
    assert (outcome.state, outcome.peak_gpu_memory, outcome.warnings) == ("COMPLETED", None, [])
    assert '"warned"' not in (tmp_path / "attempt" / "stdout.log").read_text()
