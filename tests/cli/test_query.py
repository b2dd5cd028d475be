"""SQL over an experiment, from a real one."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import Lab
from support import environment, wait_for, write_spec

from mosaic_cluster.telemetry import TelemetryReader


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, workers: Path, own_cache: Path) -> Lab:
    """A sweep whose runs each failed once and went on from a checkpoint."""
    lab = Lab(tmp_path_factory.mktemp("lab"), environment(workers, MOSAIC_CACHE=str(own_cache)), None, "inline")
    spec = {
        "kind": "sweep", "name": "asked", "worker": "scripted", "config": {"steps": 20, "pause": 0, "fail_attempts": 1,
                   "checkpoint_every": 7},
        "space": {"episode_every": {"choice": [1, 2]}}, "search": "grid", "metric": {"name": "value"},
    }  # fmt: skip
    ran = lab.mosaic("run", write_spec(lab.folder, spec), *lab.where)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return lab


def ask(lab: Lab, sql: str, *more: str) -> str:
    answer = lab.mosaic("query", "latest", sql, *more)
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr
    return answer.stdout


def test_views_hold_what_counts(done: Lab) -> None:
    sql = "select run_id, step, value from metrics where name = 'value' order by all"
    rows = json.loads(ask(done, sql, "--format", "json"))
    reader = TelemetryReader(done.experiment.path / "telemetry")
    expected = []
    for run_id in sorted(done.run_ids()):
        curve = reader.metric("value", run_id).to_pylist()
        assert [row["step"] for row in curve] == list(range(1, 21))
        expected += [{"run_id": run_id, "step": row["step"], "value": row["value"]} for row in curve]
    assert rows == expected
    (every,) = json.loads(ask(done, "select count(*) as n from metrics_all where name='value'", "--format", "json"))
    assert every["n"] == reader.table("metrics", view=False)["name"].to_pylist().count("value") > len(rows)


def test_runs_and_trials_are_there_to_join(done: Lab) -> None:
    text = ask(
        done,
        "select t.trial, t.score, r.state, r.attempt, r.params->>'episode_every' as every "
        "from trials t join runs r using (trial) order by 1",
        "--format", "csv",
    )  # fmt: skip
    assert text == (
        '"trial","score","state","attempt","every"\n"t0001",30,"COMPLETED",2,"1"\n"t0002",30,"COMPLETED",2,"2"\n'
    )


def test_files_and_tables(done: Lab, tmp_path: Path) -> None:
    target = tmp_path / "answer.parquet"
    ask(done, "select * from episodes", "--format", "parquet", "-o", str(target))
    table = pq.read_table(target)
    assert table.num_rows == 30
    assert str(table.schema.field("ts").type) == "timestamp[us, tz=UTC]"
    shown = ask(done, "select * from range(150) t(n)")
    assert "99" in shown
    assert "149" not in shown
    assert ask(done, "select 1 where false").strip() != ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["selec 1"], "SQL: Parser Error"),
        (["select * from metric"], "there are the views runs, trials, lifecycle, steps, episodes, metrics, lifecycle"),
        (["select 1", "--format", "xml"], "--format: there is no 'xml'; give one of: table, csv, json, parquet"),
        (["select 1", "--format", "parquet"], "--output: missing; Parquet goes into a file: give its path"),
    ],
)  # fmt: skip
def test_what_is_refused(arguments: list[str], expected: str, done: Lab) -> None:
    answer = done.mosaic("query", "latest", *arguments)
    assert answer.returncode == 2
    assert expected in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_experiment_without_a_row_has_empty_tables(tmp_path: Path) -> None:
    from mosaic_cluster.telemetry.sql import query

    assert query(tmp_path, "select * from metrics").num_rows == 0
    assert query(tmp_path, "select count(*) as n from steps_all").to_pylist() == [{"n": 0}]


def test_a_glob_never_shows_half_of_a_row_or_two(inline: Lab) -> None:
    """DuckDB reads the plain files again and again while they are being written."""
    with inline.start({"steps": 250, "pause": 0.02}) as process:
        wait_for(lambda: inline.experiment_started() and list(inline.experiment.path.glob("telemetry/metrics/*")), 60)
        files = inline.experiment.path / "telemetry" / "*" / "*.parquet"
        sql = (
            f"select count(*), count(distinct (split_part(filename, '/', -2), attempt, \"offset\", name)), "
            f"count(run_id) from read_parquet('{files}', union_by_name=true, filename=true)"
        )
        seen = []
        while process.poll() is None:
            seen.append(duckdb.sql(sql).fetchall()[0])
    assert process.returncode == 0
    assert all(rows == distinct == whole for rows, distinct, whole in seen)
    counts = [rows for rows, _, _ in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
