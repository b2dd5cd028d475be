"""On a real GPU: it is what the driver says, several runs share it within their shares, one beyond its own is stopped.

Run with ``pytest -m gpu tests/gpu``. Each test says what it lacks.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.placement import Placement
from mosaic_cluster.runtime.attempt import Attempt
from mosaic_cluster.runtime.backend import AttemptOrder, AttemptResult, WorkerLaunch
from mosaic_cluster.runtime.environment import gpu_memory_cap
from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.supervision import Limits
from mosaic_cluster.units import format_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

GIB = 1 << 30
RUNS = tuple(f"01ARZ3NDEKTSV4RRFFQ69G5F{number:02d}" for number in range(8))

PROBE = """
import json, torch
if not torch.cuda.is_available():
    raise SystemExit(f"torch {torch.__version__} finds no CUDA GPU (built for CUDA {torch.version.cuda})")
found = torch.cuda.get_device_properties(0)
print(json.dumps({"name": found.name, "memory": found.total_memory}))
"""


@pytest.fixture(scope="module")
def gpu() -> Mapping[str, Any]:
    """What torch, in a process of its own, says of the first GPU."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip((done.stderr.strip().splitlines() or ["torch cannot be imported"])[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def nvml() -> Any:
    """NVML, opened."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"NVML cannot be opened: {error}")
    return pynvml


def sees_processes(nvml: Any) -> bool:
    """Whether NVML knows processes by the numbers that they have here."""
    code = "import torch, sys; held = torch.ones(1 << 20, device='cuda'); print('up', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        listed = {each.pid for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        assert process.stdin is not None
        process.stdin.close()
        return process.pid in listed


def order(folder: Path, number: int, code: str, share: float, memory: int, **limits: Any) -> AttemptOrder:
    script = folder / f"worker{number}.py"
    script.write_text(code)
    return AttemptOrder(
        experiment_id="e",
        experiment_dir=str(folder),
        run_id=RUNS[number],
        attempt=1,
        worker=WorkerLaunch("w", "w", True, command=(sys.executable, str(script))),
        config={},
        seed=1,
        placement=Placement(RUNS[number], "id", "node", 1.0, gpus=share, gpu_memory=memory),
        limits=Limits(max_duration=240.0, **limits),
        grace=2.0,
    )


def run_all(folder: Path, orders: list[AttemptOrder]) -> list[AttemptResult]:
    """Run attempts at once, to their ends."""
    (folder / "experiment.json").write_text("{}")
    hub = HubService(Storage.open(folder / "telemetry"), on_fenced=lambda: None)
    results: dict[int, AttemptResult] = {}

    def run(number: int) -> None:
        results[number] = Attempt(orders[number], hub).run()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(orders))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        hub.close()
    return [results[number] for number in range(len(orders))]


def share_of(gpu: Mapping[str, Any], memory: int) -> float:
    """As placement does: in steps of 1/10,000, rounded up."""
    return -(-memory * 10_000 // int(gpu["memory"])) / 10_000


def test_nvml_and_torch_mean_the_same_gpu(gpu: Mapping[str, Any], nvml: Any) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetName(handle) == gpu["name"]
    total = nvml.nvmlDeviceGetMemoryInfo(handle).total
    assert 0.97 * total <= gpu["memory"] <= total


# Takes all that it may, waits until all four have, and then finds that one more piece is too much.
GREEDY = """
import glob, json, os, pathlib, time, torch
held, piece = [], 256 << 20
try:
    while True:
        held.append(torch.empty(piece, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError:
    pass
torch.cuda.synchronize()
folder = pathlib.Path(os.environ["MOSAIC_EXPERIMENT_DIR"])
(folder / ("full-" + os.environ["MOSAIC_RUN_ID"])).write_text(str(len(held) * piece))
end = time.monotonic() + 120
while len(glob.glob(str(folder / "full-*"))) < 4 and time.monotonic() < end:
    time.sleep(0.1)
time.sleep(3)
print(json.dumps({"event": "run_completed", "payload": {}}), flush=True)
"""


def test_four_runs_share_a_gpu_each_within_its_share(gpu: Mapping[str, Any], tmp_path: Path) -> None:
    memory = min(20 * GIB, int(gpu["memory"]) // 4 // GIB * GIB)
    if memory < 2 * GIB:
        pytest.skip(f"{gpu['name']} has {format_bytes(gpu['memory'])}: too little for four runs of 2GiB or more")
    share = share_of(gpu, memory)
    assert 4 * share <= 1
    orders = [order(tmp_path, number, GREEDY, share, memory, gpu_memory=memory) for number in range(4)]
    results = run_all(tmp_path, orders)
    assert [each.outcome.state for each in results] == ["COMPLETED"] * 4, [each.outcome.message for each in results]
    cap = gpu_memory_cap(orders[0])
    assert cap is not None
    for each in orders:
        took = int((tmp_path / f"full-{each.run_id}").read_text())
        assert cap - (1 << 30) <= took <= cap
    for each in results:
        peak = each.outcome.peak_gpu_memory
        # Where the driver knows processes by other numbers, it says so.
        assert peak is not None or "is not measured" in " ".join(each.outcome.warnings)
        if peak:
            assert cap - GIB <= peak <= memory


# Around torch's allocator: what no library's own limit could keep.
BEYOND = """
import ctypes, time, torch
torch.ones(1, device="cuda")
runtime = ctypes.CDLL(next(line.split()[-1] for line in open("/proc/self/maps") if "libcudart" in line))
for _ in range(3):
    where = ctypes.c_void_p()
    assert runtime.cudaMalloc(ctypes.byref(where), ctypes.c_size_t(1 << 30)) == 0
print('{"event":"heartbeat","payload":{"step":1}}', flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("on_excess", ["stop", "warn"])
def test_a_run_beyond_its_gpu_memory(gpu: Mapping[str, Any], nvml: Any, tmp_path: Path, on_excess: str) -> None:
    if not sees_processes(nvml):
        pytest.skip("NVML knows processes by other numbers than those here (a container with its own process ids)")
    code = BEYOND if on_excess == "stop" else BEYOND.replace("sleep(120)", "sleep(5)")
    memory = 2 * GIB
    given = order(tmp_path, 0, code, share_of(gpu, memory), memory, gpu_memory=memory, on_excess=on_excess)
    (result,) = run_all(tmp_path, [given])
    outcome = result.outcome
    assert outcome.peak_gpu_memory is not None
    assert outcome.peak_gpu_memory >= 3 * GIB
    if on_excess == "stop":
        assert (outcome.state, outcome.code, outcome.exhausted) == ("FAILED", "out_of_memory", "gpu_memory")
        assert outcome.message.startswith("used 3.")
        assert "of GPU memory, declared 2GiB" in outcome.message
    else:
        assert outcome.state == "COMPLETED", outcome.message
        assert "of GPU memory, declared 2GiB (limits.on_excess: warn)" in " ".join(outcome.warnings)


TOO_MUCH = """
import time, torch
held = torch.ones(1 << 28, device="cuda")
time.sleep(3)
torch.ones(1 << 30, device="cuda")
"""


def test_torch_out_of_memory_tells_the_figures(gpu: Mapping[str, Any], tmp_path: Path) -> None:
    memory = 2 * GIB
    given = order(tmp_path, 0, TOO_MUCH, share_of(gpu, memory), memory, gpu_memory=memory)
    (result,) = run_all(tmp_path, [given])
    outcome = result.outcome
    assert (outcome.state, outcome.code, outcome.exhausted) == ("FAILED", "out_of_memory", "gpu_memory")
    if outcome.peak_gpu_memory:
        assert outcome.peak_gpu_memory >= GIB
        assert outcome.message.endswith("of GPU memory, declared 2GiB")
