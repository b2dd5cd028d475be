"""Endpoints for tests of this worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from barlog_worker.scripted import RandomPlayer, ScriptedEndpoint

# barlog_corridors, for tests and for the programs they start; behind others: this is not the only `conftest`.
sys.path.append(str(Path(__file__).parent))

from barlog_corridors import listens


@pytest.fixture
def listener() -> Iterator[ScriptedEndpoint]:
    """An endpoint that plays corridors perfectly."""
    with ScriptedEndpoint(listens) as endpoint:
        yield endpoint


@pytest.fixture
def chance() -> Iterator[ScriptedEndpoint]:
    """An endpoint that plays at random."""
    with ScriptedEndpoint(RandomPlayer(1)) as endpoint:
        yield endpoint
