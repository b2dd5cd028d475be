"""What the pages say is so: their specs load, their worker runs, their tables name every key."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from conftest import Lab
from support import ROOT, assert_tables_equal_logs, environment, mosaic, register

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.launching import prepare
from mosaic_cluster.inventory import read_cluster
from mosaic_cluster.specs import Limits, Resources, RunSpec, SweepSpec, read_document
from mosaic_cluster.specs.resources import Growth, PerAgent, Population
from mosaic_cluster.specs.space import KINDS
from mosaic_cluster.specs.sweep import SCHEDULERS, SEARCHES, STATISTICS, Metric, Scheduler, Search, SweepLimits
from mosaic_cluster.specs.telemetry import Telemetry

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_pages_show_the_examples() -> None:
    examples = [
        read_document(ROOT / "docs" / "examples" / f"{name}.yaml") for name in ("cartpole", "cartpole-sweep")
    ]
    shown = [read_document(text) for text in blocks(ROOT / "README.md", "yaml")]
    assert shown == examples
    assert read_document(blocks(ROOT / "docs" / "sweeps.md", "yaml")[0]) == examples[1]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_specs_on_pages_load(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        document = read_document(path)
        if "nodes" in document:
            assert read_cluster(path).nodes
        else:
            assert prepare(document, Catalog()).plans


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_code_on_pages_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(textwrap.dedent(text), str(page), "exec")


def test_the_page_of_the_spec_names_every_key() -> None:
    text = (ROOT / "docs" / "spec.md").read_text()
    hidden = {"label", "worker_module", "run_id"}  # what trainer configs are turned into
    names = {*RunSpec.model_fields, *Resources.model_fields, *Limits.model_fields, *Telemetry.model_fields} - hidden
    assert {name for name in names if f"`{name}`" not in text} == set()
    within = {*PerAgent.model_fields, *Population.model_fields, *Growth.model_fields}
    assert {name for name in within if name not in text} == set()


def test_the_page_of_sweeps_names_every_key() -> None:
    text = (ROOT / "docs" / "sweeps.md").read_text()
    models = (SweepSpec, Metric, Search, Scheduler, SweepLimits)
    names = {name for model in models for name in model.model_fields} - {*Limits.model_fields}
    assert {name for name in [*names, *SEARCHES, *SCHEDULERS, *STATISTICS, *KINDS] if f"`{name}" not in text
            and f"{{{name}" not in text} - {"label", "kind"} == set()  # fmt: skip


def test_the_least_worker_runs(tmp_path: Path, own_cache: Path) -> None:
    packages = tmp_path / "packages"
    text = blocks(ROOT / "docs" / "workers.md", "python")[0]
    for part in re.split(r"^# (?=my_worker/)", text, flags=re.MULTILINE)[1:]:
        name, _, code = part.partition("\n")
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    register(packages, "my_worker", {"my_worker": "my_worker:get_worker_metadata"})
    lab = Lab(tmp_path, environment(packages, MOSAIC_CACHE=str(own_cache)), None, "inline")
    done = lab.run({"steps": 30}, worker="my_worker", resources={"cpus": 1})
    assert done.returncode == 0, done.stdout + done.stderr
    assert_tables_equal_logs(lab.experiment)
    assert lab.experiment.outcome()["last_step"] == 30


def test_every_verb_is_on_a_page(tmp_path: Path) -> None:
    help_text = mosaic("--help", env=environment(), cwd=tmp_path).stdout
    verbs = re.findall(r"^│ (\w+) ", help_text.split("Commands")[1], re.MULTILINE)
    assert len(verbs) >= 10
    text = "".join(page.read_text() for page in PAGES)
    assert [verb for verb in verbs if not re.search(rf"\b{verb}\b", text)] == []


def test_the_promises_name_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 20
    for path, test in named:
        assert f"def {test}" in (ROOT / path).read_text(), (path, test)
    promises = re.findall(r"^(\d)\. \*\*", text, re.MULTILINE)
    assert re.findall(r"^\| (\d) \| `tests/", text, re.MULTILINE) == promises == list("123456789")
