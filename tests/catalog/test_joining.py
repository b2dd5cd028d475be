"""Which workers say that they join the cluster: data, found without importing them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mosaic_cluster.catalog import joins_cluster
from mosaic_cluster.worker.errors import BrokenWorker


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that cannot be imported."""
    folder = tmp_path / "some_joining_worker"
    folder.mkdir()
    folder.joinpath("__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize(("text", "joins"), [("joins = true", True), ("joins = false", False), ("", False)])
def test_what_is_said(package: Path, text: str, joins: bool) -> None:
    package.joinpath("cluster.toml").write_text(text)
    assert joins_cluster(package.name) is joins
    assert package.name not in sys.modules


def test_nothing_said(package: Path) -> None:
    assert not joins_cluster(package.name)
    assert not joins_cluster("no_such_package_anywhere")


@pytest.mark.parametrize(
    ("text", "words"),
    [("joins = 1", "joins = 1"), ("join = true", "has join"), ("joins = ", "is not TOML")],
)
def test_what_cannot_be_meant_is_refused(package: Path, text: str, words: str) -> None:
    package.joinpath("cluster.toml").write_text(text)
    with pytest.raises(BrokenWorker, match=words):
        joins_cluster(package.name)


def test_what_is_no_text_is_refused(package: Path) -> None:
    package.joinpath("cluster.toml").write_bytes(b"joins = true  # \xff")
    with pytest.raises(BrokenWorker, match="cannot be read"):
        joins_cluster(package.name)
