"""The hook that keeps torch within its share, in real processes with a torch that notes what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mosaic_cluster.catalog.contract_folder import contract_folder

TORCH = """
from types import SimpleNamespace
from torch import cuda
"""
CUDA = """
from types import SimpleNamespace
queued, told = [], []
def _lazy_call(call):
    queued.append(call)
def init():
    for call in queued:
        call()
def device_count():
    return 2
def get_device_properties(index):
    return SimpleNamespace(total_memory=(80, 24)[index])
def set_per_process_memory_fraction(fraction, device):
    told.append((device, fraction))
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the pretended torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(TORCH)
    (tmp_path / "torch" / "cuda.py").write_text(CUDA)
    return tmp_path


def python(packages: Path, code: str, cap: str | None = "20") -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{contract_folder()}{os.pathsep}{packages}"}
    if cap is not None:
        env["MOSAIC_GPU_MEMORY_CAP"] = cap
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)


def test_torch_is_capped_when_it_first_uses_a_gpu(packages: Path) -> None:
    code = "import torch; print(torch.cuda.told); torch.cuda.init(); print(torch.cuda.told)"
    assert python(packages, code).stdout.splitlines() == ["[]", f"[(0, 0.25), (1, {20 / 24})]"]
    code = "import torch.cuda, inspect; torch.cuda.init(); print(len(torch.cuda.told), torch.__spec__.loader.path)"
    assert python(packages, code).stdout.split() == ["2", str(packages / "torch" / "__init__.py")]


def test_without_a_cap_nothing_is_touched(packages: Path) -> None:
    code = "import sys, torch; torch.cuda.init(); print(torch.cuda.told, [type(each) for each in sys.meta_path])"
    found = python(packages, code, cap=None).stdout
    assert found.startswith("[]")
    assert "TorchFinder" not in found


@pytest.mark.parametrize("lacking", ["_lazy_call", "set_per_process_memory_fraction"])
def test_a_torch_that_cannot_be_capped_goes_on_and_says_so(packages: Path, lacking: str) -> None:
    (packages / "torch" / "cuda.py").write_text(CUDA.replace(f"def {lacking}(", f"def another_{lacking}("))
    done = python(packages, "import torch; torch.cuda.init(); print('trained')")
    assert done.stdout == "trained\n"
    assert "torch is not kept within its share of the GPU: AttributeError" in done.stderr


def test_no_torch_is_no_torch(tmp_path: Path) -> None:
    code = "import importlib.util, sys; sys.path[:] = sys.path[:2]; print(importlib.util.find_spec('torch'))"
    assert python(tmp_path, code).stdout == "None\n"


def test_the_next_sitecustomize_still_runs(packages: Path) -> None:
    (packages / "sitecustomize.py").write_text("import builtins\nbuiltins.seen = 'theirs'\nVALUE = 7\n")
    code = "import sitecustomize, torch; torch.cuda.init(); print(seen, sitecustomize.VALUE, len(torch.cuda.told))"
    assert python(packages, code).stdout == "theirs 7 2\n"


def test_the_installed_torch_knows_what_the_hook_calls(tmp_path: Path) -> None:
    code = "import torch; print(len([each for each, _ in torch.cuda._queued_calls if 'cap' in each.__code__.co_names]))"
    assert python(tmp_path, code).stdout == "1\n"
