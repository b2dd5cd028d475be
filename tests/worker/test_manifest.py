"""The analytics manifest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosaic_cluster.worker import (
    ArtifactsMetadata,
    CheckpointMetadata,
    ConfigError,
    TensorBoardMetadata,
    WandBMetadata,
    WorkerAnalyticsManifest,
)


def full() -> WorkerAnalyticsManifest:
    return WorkerAnalyticsManifest(
        run_id="r1",
        worker_type="w",
        artifacts=ArtifactsMetadata(
            tensorboard=TensorBoardMetadata(log_dir="tb", port=6006),
            wandb=WandBMetadata(project="p", entity="e", run_id="x", run_name="n", url="https://w"),
            checkpoints=CheckpointMetadata("ckpt", "pytorch", ["a.pt"], "a.pt", "a.pt"),
            logs_dir="logs",
            videos_dir="videos",
        ),
        metadata={"env_id": "CartPole-v1", "nested": {"seed": 1}},
    )


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    manifest = full()
    path = manifest.save(tmp_path / "deep" / "down" / "analytics.json")
    text = path.read_text()
    assert text.startswith('{\n  "run_id": "r1"')
    assert WorkerAnalyticsManifest.load(path) == manifest
    assert WorkerAnalyticsManifest.load(str(path)).to_dict() == json.loads(text)
    assert os.listdir(path.parent) == ["analytics.json"]


def test_empty_artifacts_are_left_out() -> None:
    manifest = WorkerAnalyticsManifest(
        run_id="r", worker_type="w", artifacts=ArtifactsMetadata(checkpoints=CheckpointMetadata("c", "pytorch"))
    )
    assert manifest.to_dict() == {
        "run_id": "r",
        "worker_type": "w",
        "artifacts": {"checkpoints": {"directory": "c", "format": "pytorch", "files": []}},
        "metadata": {},
    }
    assert WorkerAnalyticsManifest("r", "w").to_dict()["artifacts"] == {}


def test_plain_text_is_normalised() -> None:
    given: Any = {"tensorboard": "tb", "wandb": "my-project", "checkpoints": Path("c"), "logs_dir": Path("l")}
    artifacts = ArtifactsMetadata(**given)
    assert artifacts.tensorboard == TensorBoardMetadata(log_dir="tb")
    assert artifacts.wandb == WandBMetadata(project="my-project")
    assert artifacts.checkpoints == CheckpointMetadata(directory="c")
    assert artifacts.logs_dir == "l"
    link: Any = "https://wandb.ai/e/p/runs/x"
    assert ArtifactsMetadata(wandb=link).wandb == WandBMetadata(url=link)
    artifacts.tensorboard = "other"  # type: ignore[assignment]
    assert artifacts.to_dict()["tensorboard"] == {"log_dir": "other", "enabled": True}
    assert ArtifactsMetadata(tensorboard="", wandb=None).to_dict() == {}  # type: ignore[arg-type]


def test_nothing_unknown_is_lost() -> None:
    data = {
        **full().to_dict(),
        "schema": 2,
        "extra": {"even": "this"},
        "artifacts": {**full().artifacts.to_dict(), "onnx": ["m.onnx"], "wandb": {"project": "p", "group": "g"}},
    }
    manifest = WorkerAnalyticsManifest.from_dict(data)
    assert manifest.extra == {"schema": 2, "extra": {"even": "this"}}
    assert manifest.artifacts.extra == {"onnx": ["m.onnx"]}
    assert manifest.artifacts.wandb is not None
    assert manifest.artifacts.wandb.extra == {"group": "g"}
    again = manifest.to_dict()
    assert again.pop("artifacts")["wandb"].pop("enabled")
    del data["artifacts"]
    assert again == data
    assert WorkerAnalyticsManifest.from_dict(manifest.to_dict()) == manifest


def test_odd_values_stay_valid_json(tmp_path: Path) -> None:
    manifest = WorkerAnalyticsManifest("r", "w", metadata={"loss": np.float32("nan"), 1: {2}, "p": Path("x")})
    saved = json.loads(manifest.save(tmp_path / "a.json").read_text())
    assert saved["metadata"] == {"loss": "NaN", "1": [2], "p": "x"}


def test_nulls_are_defaults() -> None:
    manifest = WorkerAnalyticsManifest.from_dict({"run_id": "r", "artifacts": None, "metadata": None})
    assert manifest == WorkerAnalyticsManifest("r", "")
    assert WorkerAnalyticsManifest("r", "w", artifacts=None, metadata=None).artifacts == ArtifactsMetadata()  # type: ignore[arg-type]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full().save(tmp_path / "a.json")
    before = path.read_text()

    def refuse(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        WorkerAnalyticsManifest("other", "w").save(path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '"x"', "{", "{}", '{"run_id": "r", "artifacts": 5}', '{"run_id": "r", "metadata": [1]}',
     '{"run_id": "r", "artifacts": {"checkpoints": 5}}', '{"run_id": "r", "artifacts": {"checkpoints": {}}}', "\xff"],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="a.json"):
        WorkerAnalyticsManifest.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WorkerAnalyticsManifest.load(tmp_path / "none.json")
