"""Worker packages made for a test, and real processes that load them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mosaic_cluster

ROOT = str(Path(mosaic_cluster.__file__).parent.parent)

CONFIG = """
    from __future__ import annotations
    from dataclasses import dataclass
    from typing import Any, Dict, Optional

    @dataclass
    class DemoConfig:
        \"\"\"Configuration of the demo.

        Attributes:
            run_id: identifies the run
            env_id: environment to train on
            learning_rate: step size
        \"\"\"

        run_id: str
        seed: Optional[int] = None
        env_id: str = "CartPole-v1"
        learning_rate: float = 1e-4

        def __post_init__(self) -> None:
            if not self.run_id:
                raise ValueError("run_id is required")
            if self.learning_rate <= 0:
                raise ValueError("learning_rate must be positive")

        def to_dict(self) -> Dict[str, Any]:
            return dict(self.__dict__)

        @classmethod
        def from_dict(cls, data: Dict[str, Any]) -> "DemoConfig":
            return cls(**{k: v for k, v in data.items() if k in cls.__dataclass_fields__})
"""

RUNTIME = """
    from mosaic_cluster.worker import TelemetryEmitter
    from .config import DemoConfig

    class DemoRuntime:
        def __init__(self, config: DemoConfig, *, dry_run: bool = False):
            self.config = config
            self.dry_run = dry_run
            self.emitter = TelemetryEmitter(run_id=config.run_id)

        def run(self):
            self.emitter.run_started({"env_id": self.config.env_id, "dry_run": self.dry_run})
            self.emitter.run_completed({"seed": self.config.seed})
            return {"status": "completed"}
"""

INIT = """
    from .config import DemoConfig
    from .runtime import DemoRuntime

    def get_worker_metadata():
        from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
        return (
            WorkerMetadata(name="Demo", version="1.2", description="", author="", homepage="",
                           upstream_library=None, upstream_version=None, license="MIT"),
            WorkerCapabilities(worker_type="demo", supported_paradigms=("sequential",),
                               env_families=("gymnasium",), action_spaces=("discrete",),
                               observation_spaces=("vector",), max_agents=1,
                               supports_checkpointing=True, requires_gpu=False),
        )
"""

DEMO = {"__init__.py": INIT, "config.py": CONFIG, "runtime.py": RUNTIME}


class Sandbox:
    """A folder on the path of the processes it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def package(self, name: str, files: Mapping[str, str]) -> None:
        """Write a package."""
        for path, text in files.items():
            target = self.folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text), encoding="utf-8")

    def write(self, name: str, content: Any) -> Path:
        """Write a JSON file."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def python(self, *arguments: str, stdin: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a Python process to its end."""
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), ROOT])}
        return subprocess.run(
            [sys.executable, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=env,
            cwd=self.folder,
            timeout=60,
            check=False,
            **options,
        )

    def code(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a piece of Python."""
        return self.python("-c", textwrap.dedent(text), *arguments)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """An empty folder for packages."""
    return Sandbox(tmp_path)


@pytest.fixture
def demo(sandbox: Sandbox) -> Sandbox:
    """A sandbox with the package ``demo_worker``, which has no ``cli``."""
    sandbox.package("demo_worker", DEMO)
    return sandbox


def _refuse(word: str) -> Any:
    raise AssertionError(f"{word} is not JSON")


@pytest.fixture(scope="session")
def strict() -> Callable[[str], Any]:
    """Parses strict JSON: NaN and the infinities are refused."""
    return lambda text: json.loads(text, parse_constant=_refuse)
