"""What people get wrong at the command line: the exact message, exit code 2, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cleanrl_worker import CleanRLConfig

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.cli import main

GOOD = "kind: run\nname: x\nworker: cleanrl\nconfig: {env_id: CartPole-v1, total_steps: 1024}\n"
SIZES = "give bytes, or a number with a unit (KiB, MiB, GiB, TiB; kB, MB, GB, TB), e.g. 10GiB or 8000MB"
DURATIONS = "give seconds, or numbers with the units w, d, h, m, s, ms, e.g. 30m, 1h30m or 2d"
NAME = (
    "name: missing; give a name for the experiment: 1 to 120 letters, digits, '.', '_' and '-'; "
    "for example name: cartpole"
)
WORKER = "worker: missing; give the worker's registered name, as `mosaic workers` lists it; for example worker: cleanrl"

INSTALLED = ", ".join(Catalog().names())
ALGORITHMS = ", ".join(map(repr, CleanRLConfig.__dataclass_fields__["algo"].metadata["choices"]))

# The whole file, and everything that is said about it.
FILES: dict[str, tuple[str, list[str]]] = {
    "empty": ("", ["is empty; begin with kind: run"]),
    "only comments": ("# nothing\n", ["holds nothing but comments; begin with kind: run"]),
    "nothing but a kind": ("kind: run\n", [NAME, WORKER]),
    "unknown worker": (
        GOOD.replace("cleanrl", "clenrl"),
        [f"worker: there is no worker 'clenrl'; did you mean 'cleanrl'? installed: {INSTALLED}"],
    ),
}

# What is added to a good spec, and everything that is said about it.
ADDED: list[tuple[str, list[str]]] = [
    ("confg: {}", ["confg: unknown key; did you mean config?"]),
    ("seed: -1", ["seed: -1 is out of range; give a whole number from 0 to 4294967295, e.g. 1"]),
    ("seed: one", ["seed: 'one' is not a whole number; give a whole number from 0 to 4294967295, e.g. 1"]),
    ("limits: {max_duration: 30x}", [f"limits.max_duration: '30x' has the unknown unit 'x': {DURATIONS}"]),
    ("limits: {max_log: big}", [f"limits.max_log: 'big' is not a size: {SIZES}"]),
    ("resources: {memory: 10 parsecs}", [f"resources.memory: '10 parsecs' has the unknown unit 'parsecs': {SIZES}"]),
    (
        "resources: {gpus: 0, gpu_memory: 1GiB}",
        [
            "resources.gpu_memory: is set, but resources.gpus is 0; leave gpus out to get a share of one GPU, "
            "or remove this"
        ],
    ),
    ("resources: {cpus: 0}", ["resources.cpus: 0 is out of range; give a number above 0, e.g. 2"]),
    (
        "storage: gs://bucket/x",
        ["storage: 'gs://bucket/x' has the scheme 'gs', only s3 is known; give a path, or s3://bucket/prefix"],
    ),
]

# Settings of the worker, and everything that it says about them.
SETTINGS: list[tuple[str, list[str]]] = [
    ("{learning_rat: 0.1}", ["config.learning_rat: there is no such setting; did you mean 'learning_rate'?"]),
    ("{total_steps: -1}", ["config.total_steps: must be at least 1 environment steps, but is -1"]),
    ("{algo: dqm}", [f"config.algo: must be one of {ALGORITHMS}, not 'dqm'"]),
    ("{gamma: 1.5}", ["config.gamma: must be at least 0 and at most 1, but is 1.5"]),
    ("{learning_rate: 0}", ["config.learning_rate: must be greater than 0 and at most 1, but is 0.0"]),
    ("{num_envs: many}", ["config.num_envs: must be a whole number, not 'many'"]),
    ("{run_id: abc}", ["config.run_id: is not given here: each run gets its own"]),
    ("{seed: 3}", ["config.seed: is not given here: write it as `seed:` beside `config:`"]),
    (
        "{gama: 1, clip_coef: x}",
        [
            "config.gama: there is no such setting; did you mean 'gamma'?",
            "config.clip_coef: must be a number, not 'x'",
        ],
    ),
]

# Arguments, and everything that is said about them. SPEC is a good spec file, STORE the storage.
ARGUMENTS: list[tuple[str, list[str]]] = [
    ("run SPEC --backend spark", ["error: 1 problem", "  --backend: there is no 'spark'; give one of: ray, inline"]),
    (
        "run SPEC --backend inline --address 127.0.0.1:1",
        ["error: 1 problem", "  --address: is about Ray; the inline backend runs on this machine only: leave it out"],
    ),
    ("run SPEC --storage FILE", ["error: SPEC", "  storage: storage 'FILE' is a file; give a folder"]),
    (
        "workers show nobody",
        [f"error: there is no worker 'nobody'; installed: {INSTALLED}"],
    ),
    ("schema swep", ["error: 1 problem", "  kind: 'swep' is no kind of spec; give one of: run, sweep"]),
]


def ask(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    monkeypatch.setattr(sys, "argv", ["mosaic", *argv])
    with pytest.raises(SystemExit) as left:
        main()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert isinstance(left.value.code, int)
    return left.value.code, captured.err.splitlines()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOSAIC_STORAGE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def check(text: str, expected: list[str], place: Path, *fixtures: object) -> None:
    path = place / "spec.yaml"
    path.write_text(text)
    code, lines = ask(["run", "spec.yaml", "--backend", "inline"], *fixtures)  # type: ignore[arg-type]
    assert lines == ["error: spec.yaml", *[f"  {line}" for line in expected]]
    assert code == 2
    assert [entry.name for entry in place.iterdir()] == ["spec.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(*FILES[name], place, monkeypatch, capsys)


@pytest.mark.parametrize(("added", "expected"), ADDED, ids=[added for added, _ in ADDED])
def test_a_spec(
    added: str, expected: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(GOOD + added + "\n", expected, place, monkeypatch, capsys)


@pytest.mark.parametrize(("config", "expected"), SETTINGS, ids=[config for config, _ in SETTINGS])
def test_a_config(
    config: str, expected: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"kind: run\nname: x\nworker: cleanrl\nconfig: {config}\n"
    check(text, expected, place, monkeypatch, capsys)


@pytest.mark.parametrize(("text", "expected"), ARGUMENTS, ids=[text for text, _ in ARGUMENTS])
def test_arguments(
    text: str, expected: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, file = place / "good.yaml", place / "file"
    spec.write_text(GOOD)
    file.write_text("")
    argv = text.replace("SPEC", spec.name).replace("FILE", str(file)).split()
    code, lines = ask(argv, monkeypatch, capsys)
    assert lines == [line.replace("SPEC", spec.name).replace("FILE", str(file)) for line in expected]
    assert code == 2
    assert not (place / "store").exists()


def test_all_problems_at_once(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "kind: run\nname: x y\nworker: clenrl\nseeds: 1\nlimits: {max_duration: 0.5y, grace: -1}\n"
    (place / "spec.yaml").write_text(text)
    code, lines = ask(["run", "spec.yaml"], monkeypatch, capsys)
    assert code == 2
    paths = sorted(line.split(":")[0].strip() for line in lines[1:])
    assert paths == ["limits.grace", "limits.max_duration", "name", "seeds", "worker"]


def test_more_than_any_node_has(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "spec.yaml").write_text(GOOD + "resources: {cpus: 5000}\n")
    code, lines = ask(["run", "spec.yaml", "--backend", "inline"], monkeypatch, capsys)
    assert code == 2
    assert lines[1].startswith("  resources: cpus 5000: the largest node has ")
    assert not (place / "store").exists()


def test_an_address_where_nobody_listens(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "spec.yaml").write_text(GOOD)
    code, lines = ask(["run", "spec.yaml", "--address", "127.0.0.1:1"], monkeypatch, capsys)
    assert code == 1
    assert lines[0] == "joining the Ray cluster at 127.0.0.1:1 ..."
    assert lines[1].startswith("error: cannot reach the Ray cluster at '127.0.0.1:1': ")
    assert not (place / "store").exists()
