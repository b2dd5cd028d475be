"""Config files, and the command line that names them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.worker import (
    ConfigError,
    WorkerCLI,
    WorkerConfig,
    WorkerRuntime,
    build_config,
    extract_worker_config,
    load_worker_config_from_file,
)


@dataclass
class Config:
    run_id: str
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        return build_config(cls, data)


class Runtime:
    def run(self) -> dict[str, Any]:
        return {}


def test_protocols_are_structural() -> None:
    assert isinstance(Config("r"), WorkerConfig)
    assert not isinstance(Runtime(), WorkerConfig)
    assert isinstance(Runtime(), WorkerRuntime)
    assert not isinstance(Config("r"), WorkerRuntime)


@pytest.mark.parametrize(
    ("payload", "config"),
    [
        ({"run_id": "r"}, {"run_id": "r"}),
        ({"run_id": "r", "metadata": None}, {"run_id": "r", "metadata": None}),
        ({"run_id": "r", "metadata": {"note": 1}}, {"run_id": "r", "metadata": {"note": 1}}),
        ({"run_id": "r", "metadata": {"worker": None}}, {"run_id": "r", "metadata": {"worker": None}}),
        ({"metadata": {"worker": {"config": {"run_id": "r"}}}, "run_name": "x"}, {"run_id": "r"}),
        ({"metadata": {"worker": {"config": {}}}}, {}),
    ],
)
def test_extract(payload: Any, config: Any) -> None:
    assert extract_worker_config(payload) == config


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"metadata": {"worker": {"module": "m"}}}, "metadata.worker.config"),
        ({"metadata": {"worker": {"config": None}}}, "metadata.worker.config"),
        ({"metadata": {"worker": {"config": [1]}}}, "metadata.worker.config"),
        ({"metadata": {"worker": "w"}}, "metadata.worker"),
        ([1], ""),
        (None, ""),
        ("text", ""),
    ],
)
def test_extract_refuses(payload: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        extract_worker_config(payload)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_load_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("\ufeff" + json.dumps({"metadata": {"worker": {"config": {"run_id": "r", "seed": 3}}}}))
    assert load_worker_config_from_file(path) == {"run_id": "r", "seed": 3}
    assert load_worker_config_from_file(str(path), Config) == Config("r", 3)
    assert WorkerCLI.load_and_validate_config(path, Config) == Config("r", 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "line 1, column 1"),
        (b"[1]", "must be a JSON object, not a list"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON that can be read"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_worker_config_from_file(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no config file"):
        load_worker_config_from_file(tmp_path / "none.json")


def test_a_class_without_from_dict(tmp_path: Path) -> None:
    for load in (load_worker_config_from_file, WorkerCLI.load_and_validate_config):
        with pytest.raises(TypeError, match="Runtime needs a class method from_dict"):
            load(tmp_path / "any.json", Runtime)


class Picky:
    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Picky:
        return cls(data["run_id"])

    def __init__(self, run_id: str) -> None:
        assert run_id != "bad", "run_id must be good"


@pytest.mark.parametrize(("data", "words"), [({}, "'run_id' is missing"), ({"run_id": "bad"}, "must be good")])
def test_cli_makes_every_refusal_a_value_error(tmp_path: Path, data: Any, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=words):
        WorkerCLI.load_and_validate_config(path, Picky)


def test_base_parser() -> None:
    parser = WorkerCLI.create_base_parser("my-worker", "It trains.")
    parser.add_argument("--algo")
    args = parser.parse_args(
        ["--config", "c.json", "-v", "--dry-run", "--worker-id", "w", "--grpc", "--grpc-target", "h:1", "--algo", "ppo"]
    )
    assert vars(args) == {
        "config": Path("c.json"),
        "verbose": True,
        "dry_run": True,
        "worker_id": "w",
        "grpc": True,
        "grpc_target": "h:1",
        "algo": "ppo",
    }
    plain = parser.parse_args(["--config", "c.json"])
    assert not (plain.verbose or plain.dry_run or plain.grpc)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([])
    assert caught.value.code == 2


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield root
    root.handlers = handlers
    root.setLevel(level)


def test_logging_goes_to_stderr(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    root_logger.handlers = [logging.StreamHandler(sys.stdout)]  # pytest adds its own, too
    WorkerCLI.setup_logging(verbose=False)
    logging.getLogger("x").debug("hidden")
    logging.getLogger("x").info("shown")
    WorkerCLI.setup_logging(verbose=True)
    logging.getLogger("x").debug("shown too")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("shown") == 2
    assert "hidden" not in captured.err
