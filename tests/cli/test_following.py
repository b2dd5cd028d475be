"""What the end of `mosaic run` tells to do next."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from mosaic_cluster.app.driving import ExperimentResult
from mosaic_cluster.cli.following import finish

AGAIN = "mosaic resume e1 --spec SPEC --allow-changed --retry-failed"


@pytest.mark.parametrize(
    ("codes", "sweep", "told"),
    [
        (["exit_code"], False, "`mosaic resume e1 --retry-failed`"),
        (["bad_config"], False, f"correct config in SPEC, then `{AGAIN}`"),
        (["bad_config", "exit_code"], True, "correct config in SPEC, then `mosaic run SPEC`"),
        (["out_of_memory"], True, f"correct resources.memory or resources.gpu_memory in SPEC, then `{AGAIN}`"),
        (["max_duration"], False, f"correct limits.max_duration in SPEC, then `{AGAIN}`"),
    ],
)
def test_another_try_is_only_named_where_it_can_help(
    capsys: pytest.CaptureFixture[str], codes: list[str], sweep: bool, told: str
) -> None:
    runs = [
        {"run_id": f"r{number}", "state": "FAILED", "code": code, "reason": "x"} for number, code in enumerate(codes)
    ]
    status: dict[str, Any] = {"runs": [*runs, {"run_id": "r9", "state": "COMPLETED", "code": "completed"}]}
    if sweep:
        status["sweep"] = {"trials": [], "search": "grid", "scheduler": "none", "best": None, "metric": None}
    with pytest.raises(typer.Exit) as ended:
        finish(ExperimentResult("e1", "/x/e1", "FAILED", status, drove=False), as_json=False)
    assert ended.value.exit_code == 1
    assert f"to go on: {told}\n" in capsys.readouterr().out
