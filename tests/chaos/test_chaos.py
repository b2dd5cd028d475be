"""The short chaos test; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import checker
from chaos.run import SHORT, run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_whoever_dies(tmp_path: Path) -> None:
    result = run(SHORT, seed=20261124, folder=tmp_path)
    print(checker.table(result.findings, result.kills))
    assert not result.findings.wrong, result.findings.notes
    assert not result.problems
