"""``environment.toml``: what is read, what is refused, and which environment a config gets."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from support import FIXTURES, install

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.catalog.environments import Environment, Step, choose, read_environments
from mosaic_cluster.worker.errors import BrokenWorker, InvalidInput

WHOLE = """
    [[environment]]
    name = "scripts"
    when = { algo = ["cleanrl.*", "other"], backend.name = "x", fast = true }
    python = ["3.10", "3.9"]
    system = ["cmake"]
    smoke = ["python", "-c", "import xuance"]
    [environment.variables]
    SDL_VIDEODRIVER = "dummy"
    [[environment.steps]]
    pip = ["torch==2.13.0", "numpy==1.26.4"]
    options = ["--no-build-isolation"]
    name = "torch"
    [[environment.steps]]
    pip = ["xuance==1.4.4"]
    no_deps = true
    [[environment.steps]]
    run = ["python", "-m", "some.patch", "-y"]
    may_fail = true

    [[environment]]
    interpreter = "/usr/bin/python3"
"""


def read(folder: Path, text: str) -> tuple[Environment, ...]:
    path = folder / "environment.toml"
    path.write_text(textwrap.dedent(text))
    return read_environments(path)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    first, second = read(tmp_path, WHOLE)
    assert first == Environment(
        name="scripts",
        when={"algo": ("cleanrl.*", "other"), "backend.name": ("x",), "fast": ("true",)},
        python=("3.10", "3.9"),
        system=("cmake",),
        smoke=("python", "-c", "import xuance"),
        variables={"SDL_VIDEODRIVER": "dummy"},
        steps=(
            Step(pip=("torch==2.13.0", "numpy==1.26.4"), options=("--no-build-isolation",), name="torch"),
            Step(pip=("xuance==1.4.4",), no_deps=True),
            Step(run=("python", "-m", "some.patch", "-y"), may_fail=True),
        ),
    )
    assert (second.name, second.interpreter, second.is_built) == ("default", "/usr/bin/python3", False)


def test_which_one_a_config_gets() -> None:
    scripts = Environment("scripts", when={"algo": ("cleanrl.*",)})
    nested = Environment("nested", when={"marllib.backend": ("bench*",)})
    flag = Environment("flag", when={"old": ("true",), "count": ("3",)})
    known = (scripts, nested, flag)
    assert choose(known, {"algo": "cleanrl.ppo"}) is scripts
    assert choose(known, {"algo": "ppo"}) is None
    assert choose(known, {"algo": "ppo"}, {"algo": "cleanrl.ppo"}) is None
    assert choose(known, {}, {"algo": "cleanrl.ppo"}) is scripts
    assert choose(known, {"marllib": {"backend": "benchmarl"}}) is nested
    assert choose(known, {"marllib": "benchmarl"}) is None
    assert choose(known, {"old": True, "count": 3}) is flag
    assert choose(known, {"old": True}) is None
    assert choose((*known, Environment()), {}) == Environment()


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = """
        extra = 1
        [[environment]]
        nam = "x"
        python = ["3.7", 3.11]
        interpreter = "/x"
        variables = { A = 1, PYTHONPATH = "x" }
        [[environment.steps]]
        pip = "numpy"
        [[environment.steps]]
        [[environment.steps]]
        run = ["a"]
        no_deps = "yes"
        pips = []
        [[environment.steps]]
        pip = ["--no-deps", "a"]
        [[environment]]
        name = "b/c"
        when = { algo = [] }
    """
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, text)
    told = {problem.path: problem.message for problem in caught.value.problems}
    assert set(told) == {
        "extra", "environment[0].nam", "environment[0].python", "environment[0].steps",
        "environment[0].variables.A", "environment[0].variables.PYTHONPATH", "environment[0].steps[0].pip",
        "environment[0].steps[1]", "environment[0].steps[2].no_deps", "environment[0].steps[2].pips",
        "environment[0].steps[3].pip[0]", "environment[0].when", "environment[1].name", "environment[1].when.algo",
    }  # fmt: skip
    assert "did you mean 'name'?" in told["environment[0].nam"]
    assert str(tmp_path / "environment.toml") in str(caught.value)
    for broken in ("x = [", "", "[environment]\npython = '3.9'"):
        with pytest.raises(InvalidInput):
            read(tmp_path, broken)


@pytest.fixture
def housed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    worker = FIXTURES / "workers" / "housed_worker"
    packages = install(tmp_path / "packages", worker, "housed", "housed_worker:get_worker_metadata")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(str(packages))
    return packages


def test_a_worker_tells_its_environments(housed: Path) -> None:
    entry = Catalog().get("housed")
    assert [each.name for each in entry.environments] == ["old"]
    found = entry.environment_for({})  # its default
    assert found is not None
    assert found.python == ("3.8",)
    assert entry.environment_for({"house": "new"}) is None
    assert entry.to_dict()["environments"][0]["when"] == {"house": ["old*"]}


def test_a_broken_declaration_breaks_the_worker_and_no_other(housed: Path) -> None:
    path = housed / "housed_worker" / "environment.toml"
    path.write_text(path.read_text().replace("house =", "huose ="))
    with pytest.raises(BrokenWorker, match=r"environment\[0\]\.when\.huose: .*did you mean 'house'"):
        Catalog().get("housed")
    path.write_text("[[environment]]\nsteps = 3\n")
    with pytest.raises(BrokenWorker, match=r"environment\[0\]\.steps: each step is a table"):
        Catalog().get("housed")
