"""Each check fails for a worker that breaks what it is about, and passes for one that does not."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import FIXTURES, install, register

from mosaic_cluster.conformance import (
    CHECKS,
    ContractCase,
    Laboratory,
    Verdict,
    acting,
    case_of,
    check_worker,
    run_check,
)
from mosaic_cluster.games import make_game
from mosaic_cluster.worker.errors import ConfigError

BY_NAME = {check.name: check for check in CHECKS}
GOOD = {"steps": 20, "pause": 0.01}
LONG = {"steps": 100_000, "pause": 0.01}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed packages, on the path of this process and of those it starts."""
    folder = tmp_path_factory.mktemp("packages")
    install(folder, FIXTURES / "workers" / "faulty_worker", "faulty", "faulty_worker:get_worker_metadata")
    entry_points = folder / "faulty_worker-1.0.0.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "[mosaic.policies]\nfaulty = faulty_worker.policy:load_policy\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture
def checked(packages: Path, tmp_path: Path) -> Callable[..., Verdict]:
    """The verdict of one check on the faulty worker with a fault."""

    def ask(name: str, fault: str, strict: bool = False, **more: Any) -> Verdict:
        config, long_config = ({**each, "fault": fault} for each in (GOOD, LONG))
        case = ContractCase("faulty", config, long_config, strict=strict, seconds=60, grace=2, **more)
        return run_check(BY_NAME[name], Laboratory(case, tmp_path / "lab"))

    return ask


@pytest.mark.parametrize(
    ("name", "fault", "status", "words"),
    [
        ("config-round-trip", "no round trip", "failed", "steps: 21 became 22"),
        ("config-round-trip", "forgets its run", "failed", "run_id that was given"),
        ("bad-value", "takes anything", "failed", "takes each of steps: 0"),
        ("bad-value", "refuses silently", "failed", "does not say why"),
        ("bad-value", "refuses on stdout", "failed", "says so on stdout"),
        ("bad-value", "trains all the same", "failed", "it trained"),
        ("bad-value", "ends well all the same", "failed", "but its process does not"),
        ("bad-value", "exit code 1", "warned", "ended with exit code 1"),
        ("bad-value", "names nothing", "warned", "does not say that steps is wrong"),
        ("unknown-field", "drops unknown", "warned", "the misspelt 'stepx' (for 'steps') is dropped"),
        ("unknown-field", "names nothing", "warned", "does not name the misspelt"),
        ("payload-form", "ignores payloads", "failed", "it did not look into it"),
        ("payload-form", "breaks on payloads", "failed", "it takes the config alone"),
        ("payload-form", "refuses its config", "not run", "does not end well with the config alone"),
        ("dry-run", "dry run writes", "failed", "it wrote left.txt"),
        ("dry-run", "dry run trains", "failed", "it reported heartbeat"),
        ("dry-run", "dry run fails", "failed", "no library"),
        ("summary-and-flags", "no summary", "warned", "the last line is no summary"),
        ("summary-and-flags", "another summary", "warned", "run_id is 'mine'"),
        ("summary-and-flags", "says nothing of grpc", "warned", "without a word"),
        ("run", "fails", "failed", "ended with exit code 1: "),
        ("stdout", "prints", "failed", "20 lines are no JSON objects: 'Epoch 1 of 10'"),
        ("lifecycle", "no start", "failed", "begins with"),
        ("lifecycle", "starts twice", "failed", "begins with"),
        ("lifecycle", "no end", "failed", "it ends with"),
        ("lifecycle", "talks after the end", "failed", "it ends with"),
        ("lifecycle", "another run_id", "failed", "there are lines of the run {'another'}"),
        ("heartbeat-rate", "floods", "failed", "heartbeats within a second"),
        ("heartbeat-payload", "no heartbeat", "failed", "there is no heartbeat"),
        ("heartbeat-payload", "no step", "failed", "without a step"),
        ("heartbeat-payload", "step goes back", "failed", "the step goes back"),
        ("heartbeat-payload", "no speed", "warned", "without steps_per_second"),
        ("manifest", "no manifest", "failed", "there is none"),
        ("manifest", "broken manifest", "failed", "analytics.json cannot be read"),
        ("manifest", "another's manifest", "failed", "its run_id is 'another'"),
        ("manifest", "another type", "warned", "its worker_type is 'other'"),
        ("checkpoint-files", "no checkpoints", "warned", "declares checkpoints, and announces none"),
        ("checkpoint-files", "announces what is not there", "failed", "is not there, or empty"),
        ("checkpoint-files", "empty checkpoint", "failed", "is not there, or empty"),
        ("checkpoint-files", "writes elsewhere", "failed", "lies outside the run's folder"),
        ("checkpoint-files", "a step too far", "failed", "is of step 1020"),
        ("checkpoint-files", "no path", "failed", "path or step is missing"),
        ("checkpoint-files", "leaves unfinished files", "failed", "unfinished files are left: 10.tmp, 20.tmp"),
        ("manifest-checkpoints", "lists none", "warned", "it lists none"),
        ("manifest-checkpoints", "lists what is gone", "failed", "it lists what is not there: gone.json"),
        ("manifest-checkpoints", "no best", "warned", "which is the best_checkpoint"),
        ("manifest-checkpoints", "best is gone", "failed", "its best_checkpoint, gone.json, is not there"),
        ("same-seed", "unseeded", "failed", "number 1 of what they report is"),
        ("sigterm", "ignores SIGTERM", "failed", "did not end within 2 s of SIGTERM"),
        ("sigterm", "dies of SIGTERM", "warned", "did not say run_cancelled"),
        ("sigterm", "ends well when stopped", "warned", "ended with exit code 0"),
        ("sigterm", "does not say that it was stopped", "warned", "did not say run_cancelled"),
        ("sigterm", "saves nothing when stopped", "warned", "saved nothing when it was stopped"),
        ("resume", "begins anew", "failed", "it began anew: its first heartbeat is of step 1"),
        ("resume", "cannot resume", "failed", "cannot load it"),
        ("resume", "another step", "failed", "it says that it loaded step"),
        ("resume", "counts anew", "failed", "with a heartbeat of step 1"),
        ("resume", "does not say that it resumed", "warned", "did not say checkpoint_loaded"),
        ("resume", "no checkpoints", "warned", "there is none to go on from"),
        ("policy", "policy cannot be loaded", "failed", "the checkpoint is damaged"),
        ("policy", "policy fails", "failed", "nothing to divide by"),
        ("policy", "policy plays nothing", "failed", "plays no games"),
        ("policy", "policy acts illegally", "failed", "it chose 2, which is no action of Discrete"),
        ("policy", "policy unseeded", "failed", "reset(5) twice"),
        ("policy", "policy batches badly", "failed", "act_batch of 3 gives the shape ()"),
        ("policy", "policy batches illegally", "failed", "no action of Discrete"),
        ("policy-refuses", "policy takes any game", "failed", "it takes the game 'no_such_game_v0'"),
        ("policy-refuses", "policy breaks at other games", "warned", "it fails, and does not refuse"),
    ],
)
def test_a_fault_is_caught(checked: Callable[..., Verdict], name: str, fault: str, status: str, words: str) -> None:
    verdict = checked(name, fault)
    assert verdict.status == status, verdict
    assert words in verdict.reason
    assert verdict.remedy or status == "not run"


def test_opponents_without_a_mask_play_the_same_again() -> None:
    class First:
        def act(self, observation: Any, action_mask: Any = None) -> Any:
            return 0

    env = make_game("rps_v2")
    turns = acting._aec(env)
    try:
        assert turns(First())[1] == turns(First())[1]  # type: ignore[arg-type]
    finally:
        env.close()


def test_what_only_should_be_fails_where_it_is_strict(checked: Callable[..., Verdict]) -> None:
    assert checked("unknown-field", "drops unknown", strict=True).status == "failed"


@pytest.mark.slow
def test_a_worker_without_faults_passes_all(packages: Path) -> None:
    seen: list[Verdict] = []
    verdicts = check_worker(ContractCase("faulty", GOOD, LONG, seconds=60), seen.append)
    assert [(each.check, each.reason) for each in verdicts if each.status != "passed"] == []
    assert [each.check for each in seen] == list(BY_NAME)


def test_without_its_library_only_some_are_run_and_the_others_say_so(packages: Path) -> None:
    case = ContractCase("faulty", {**GOOD, "fault": "dry run fails"}, library=False)
    verdicts = {each.check: each for each in check_worker(case)}
    passed = {name for name, each in verdicts.items() if each.status == "passed"}
    assert passed == {
        "discovery", "metadata", "capabilities", "light-discovery", "config-fields", "config-round-trip", "bad-value",
        "unknown-field", "payload-form",
    }  # fmt: skip
    assert {each.status for name, each in verdicts.items() if name not in passed} == {"not run"}
    assert "needs the library" in verdicts["dry-run"].reason
    assert verdicts["run"].reason == "the worker's library is not there"


BAD_PACKAGES = {
    "missing": ("discovery", "failed", "import a_library_that_is_not_there\n"),
    "nameless": ("metadata", "failed", "description=''"),
    "versions": ("metadata", "warned", "version='9'"),
    "anonymous": ("metadata", "warned", "author=''"),
    "unplanned": ("capabilities", "failed", "cpu_cores=0"),
    "playless": ("capabilities", "failed", "env_families=()"),
    "gpu": ("capabilities", "warned", "requires_gpu=True"),
    "heavy": ("light-discovery", "warned", "import numpy\n"),
    "helpless": ("config-fields", "warned", "class"),
    "unseeded": ("config-fields", "failed", "class-without-seed"),
    "configless": ("config-fields", "warned", "none"),
}


@pytest.mark.parametrize("name", BAD_PACKAGES)
def test_a_bad_declaration_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, status, change = BAD_PACKAGES[name]
    about = {"name": "'X'", "version": "'1.0.0'", "description": "'D'", "author": "'A'", "license": "'MIT'"}
    needs = {
        "worker_type": "'x'", "supported_paradigms": "('a',)", "env_families": "('a',)", "action_spaces": "('a',)",
        "observation_spaces": "('a',)", "max_agents": "1", "cpu_cores": "1", "estimated_memory_mb": "9",
    }  # fmt: skip
    key, _, value = change.partition("=")
    for known in (about, needs):
        if key in known:
            known[key] = value
    if key == "requires_gpu":
        needs[key] = value
    seed = "" if change == "class-without-seed" else "    seed: int = None\n"
    config = f"""
from dataclasses import asdict, dataclass
@dataclass
class Config:
    run_id: str
{seed}    lr: float = 0.1
    @classmethod
    def from_dict(cls, data): return cls(**data)
    def to_dict(self): return asdict(self)
"""
    text = (change if change.startswith("import") else "") + textwrap.dedent("""
        def get_worker_metadata():
            from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
            return WorkerMetadata(homepage="", {}), WorkerCapabilities({})
    """).format(*(", ".join(f"{a}={b}" for a, b in each.items()) for each in (about, needs)))
    if change.startswith("class"):
        text += config
    package = f"bad_{name}"
    (tmp_path / f"{package}.py").write_text(text)
    register(tmp_path, package, {package: f"{package}:get_worker_metadata"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    verdict = run_check(BY_NAME[check], Laboratory(ContractCase(package, strict=False), tmp_path / "lab"))
    assert verdict.status == status, verdict


def test_a_check_that_breaks_is_a_failure(packages: Path, tmp_path: Path) -> None:
    from mosaic_cluster.conformance import Check

    verdict = run_check(
        Check("x", "about", lambda lab: 1 / 0, False),
        Laboratory(ContractCase("faulty"), tmp_path),  # type: ignore
    )
    assert verdict.status == "failed"
    assert "ZeroDivisionError" in verdict.reason


def test_a_case_from_a_file(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text("config: {steps: 5}\ndeterministic: false\n")
    assert case_of("faulty", "faulty_worker", path, strict=False) == ContractCase(
        "faulty", {"steps": 5}, deterministic=False, strict=False
    )
    path.write_text("steps: 5\n")
    assert case_of("faulty", "faulty_worker", path).config == {"steps": 5}
    assert case_of("faulty", "faulty_worker") == ContractCase("faulty")
    beside = packages / "faulty_worker" / "conformance.json"
    beside.write_text('{"config": {"steps": 9}, "policy_game": "CartPole-v1"}')
    try:
        assert case_of("faulty", "faulty_worker") == ContractCase("faulty", {"steps": 9}, policy_game="CartPole-v1")
    finally:
        beside.unlink()
    for text, words in (("config: {}\nlibary: true\n", "libary"), ("config: 5\n", "config: must not be 5")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            case_of("faulty", "faulty_worker", path)
