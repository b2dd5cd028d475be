"""Policies of the random worker and of a program, in real games."""

from __future__ import annotations

import os
import select
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Interrupted, interrupting, register

from mosaic_cluster.games import (
    InteractivePolicy,
    interactive,
    load_policy,
    make_game,
    make_parallel_game,
    play,
    policy_entries,
)
from mosaic_cluster.worker import (
    ArtifactsMetadata,
    CheckpointMetadata,
    ConfigError,
    Policy,
    PolicyError,
    WorkerAnalyticsManifest,
)
from mosaic_cluster.worker.errors import BrokenWorker, DuplicateWorker, WorkerNotFound


def baseline(game: str, **options: Any) -> Policy:
    return load_policy("random", "", game=game, options=options)


class Columns:
    """A policy of connect four that plays given columns, over and over."""

    games = ("connect_four_v3",)

    def __init__(self, *columns: int) -> None:
        self.columns = columns
        self.turn = 0
        self.seeds: list[int | None] = []

    def reset(self, seed: int | None = None) -> None:
        self.turn = 0
        self.seeds.append(seed)

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        assert observation.shape == (6, 7, 2)
        assert len(action_mask) == 7
        self.turn += 1
        return self.columns[(self.turn - 1) % len(self.columns)]

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        raise AssertionError("games are played one observation at a time")


def test_games_by_name() -> None:
    for name in ("connect_four_v3", "tictactoe_v3", "rps_v2", "simple_spread_v3"):
        game = make_game(name)
        assert hasattr(game, "agent_iter")
        game.close()
    assert make_game("CartPole-v1").action_space.n == 2
    assert len(make_parallel_game("simple_spread_v3", max_cycles=5).possible_agents) == 3


@pytest.mark.parametrize(
    ("make", "name", "options", "words"),
    [
        (make_game, "conect_four_v3", {}, "there is no game 'conect_four_v3'; did you mean 'connect_four_v3'?"),
        (make_game, "CartPole-v9", {}, "did you mean 'CartPole-v1'?"),
        (make_game, "tictactoe_v3", {"bord": 3}, "tictactoe_v3 cannot be made"),
        (make_parallel_game, "tictactoe_v3", {}, "is played in turns only"),
        (make_parallel_game, "simple_sprad_v3", {}, "did you mean 'simple_spread_v3'?"),
        (make_game, "leduc_holdem_v4", {}, "needs what is not installed"),
    ],
)
def test_games_that_cannot_be_made(make: Callable[..., Any], name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")) as caught:
        make(name, **options)
    assert caught.value.problems[0].path == "game"


def test_a_match_has_the_outcome_that_the_moves_have() -> None:
    """Four in one column win for whoever begins; the other one fills another column."""
    left, right = Columns(0), Columns(6)
    match = play([left, right], "connect_four_v3", 4, seed=10)
    assert [episode.winner for episode in match.episodes] == [0, 1, 0, 1]
    assert [episode.seats for episode in match.episodes] == [("player_0", "player_1"), ("player_1", "player_0")] * 2
    assert [episode.rewards for episode in match.episodes] == [(1.0, -1.0), (-1.0, 1.0)] * 2
    assert {episode.moves for episode in match.episodes} == {7}
    assert (match.wins(0), match.wins(1), match.draws, match.mean_reward(0)) == (2, 2, 0, 0.0)
    assert left.seeds == [20, 22, 24, 26]
    assert right.seeds == [21, 23, 25, 27]


def test_the_same_seed_gives_the_same_match() -> None:
    def once(seed: int) -> Any:
        return play([baseline("tictactoe_v3"), baseline("tictactoe_v3")], "tictactoe_v3", 6, seed)

    assert once(3) == once(3)
    assert once(3) != once(4)


def test_a_draw_is_one() -> None:
    rock = [baseline("rps_v2", policy="scripted", script=[0]) for _ in range(2)]
    match = play(rock, "rps_v2", 2)
    assert match.to_dict() == {
        "game": "rps_v2", "episodes": 2, "wins": [0, 0], "draws": 2, "mean_rewards": [0.0, 0.0],
    }  # fmt: skip


def test_paper_beats_rock_in_either_seat() -> None:
    rock, paper = (baseline("rps_v2", policy="scripted", script=[move]) for move in (0, 1))
    match = play([rock, paper], "rps_v2", 2)
    assert (match.wins(0), match.wins(1)) == (0, 2)


def test_an_illegal_move_is_an_error_not_a_loss() -> None:
    with pytest.raises(PolicyError, match=r"player_\d chose 0, which is illegal here; legal are \[1, 2, 3, 4, 5, 6\]"):
        play([Columns(0), Columns(0)], "connect_four_v3", 1)
    with pytest.raises(PolicyError, match="chose 7, which is no action of Discrete"):
        play([Columns(7), Columns(0)], "connect_four_v3", 1)


def test_all_that_is_wrong_with_a_match_is_said_at_once() -> None:
    one = Columns(0)
    with pytest.raises(ConfigError) as caught:
        play([one, one], "tictactoe_v3", 0, seed=-1)
    assert [problem.path for problem in caught.value.problems] == [
        "policies", "policies[0]", "policies[1]", "episodes", "seed",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="is no game that two play in turns"):
        play([baseline("simple_spread_v3"), baseline("simple_spread_v3")], "simple_spread_v3", 1)


def test_policies_in_a_process_of_their_own_act_alike() -> None:
    here = baseline("connect_four_v3")
    with load_policy("random", "", game="connect_four_v3", own_process=True) as there:  # type: ignore[attr-defined]
        assert there.games == here.games
        masks = np.ones((5, 7), np.int8)
        masks[:, 2:] = 0
        for policy in (here, there):
            policy.reset(4)
        boards = np.zeros((5, 6, 7, 2), np.int8)
        one, other = (policy.act_batch(boards, masks) for policy in (here, there))
        assert one.tolist() == other.tolist()
        assert set(one.tolist()) <= {0, 1}
        assert play([here, there], "connect_four_v3", 2, 1).to_dict()["episodes"] == 2


def test_who_has_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for distribution, line in (
        ("twice-one", "twice = one:load"),
        ("twice-two", "twice = two:load"),
        ("lost", "lost = no_such_package.policy:load"),
        ("odd", "odd = toy_policies"),
        ("toy", "toy = toy_policies:load"),
        ("no_library", "no_library = toy_policies_of_nothing:load"),
    ):
        register(tmp_path, distribution, {})
        info = tmp_path / f"{distribution}-1.0.0.dist-info" / "entry_points.txt"
        info.write_text(f"[mosaic.policies]\n{line}\n")
    (tmp_path / "toy_policies.py").write_text("def load(checkpoint, **options):\n    return checkpoint\n")
    (tmp_path / "toy_policies_of_nothing.py").write_text("import a_library_that_is_not_there\n")
    found = {entry.name: entry for entry in policy_entries()}
    assert found["random"].error is None
    assert found["toy"].error is None
    assert "registered by twice-one 1.0.0 (one:load) and twice-two" in str(found["twice"].error)
    assert "there is no package 'no_such_package'" in str(found["lost"].error)
    assert "names no function" in str(found["odd"].error)
    with pytest.raises(WorkerNotFound, match="registers policies as 'randm'; did you mean 'random'"):
        load_policy("randm", "")
    with pytest.raises(DuplicateWorker):
        load_policy("twice", "")
    with pytest.raises(BrokenWorker, match="no_such_package"):
        load_policy("lost", "")
    with pytest.raises(BrokenWorker, match="a_library_that_is_not_there"):
        load_policy("no_library", "")
    with pytest.raises(ConfigError, match="has no reset, act, act_batch"):
        load_policy("toy", "")
    with pytest.raises(ConfigError, match="there is no /nowhere"):
        load_policy("random", "/nowhere")


def test_the_best_checkpoint_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder will do for a checkpoint."""
    monkeypatch.syspath_prepend(str(tmp_path))
    register(tmp_path, "telling", {})
    info = tmp_path / "telling-1.0.0.dist-info" / "entry_points.txt"
    info.write_text("[mosaic.policies]\ntelling = telling:load\n")
    (tmp_path / "telling.py").write_text("def load(checkpoint, **options):\n    raise LookupError(checkpoint)\n")
    run = tmp_path / "runs" / "01J"
    (run / "checkpoints").mkdir(parents=True)
    files = ["checkpoints/1.pt", "checkpoints/2.pt"]
    saved = CheckpointMetadata("checkpoints", files=files, best_checkpoint=files[0], final_checkpoint=files[1])
    manifest = WorkerAnalyticsManifest("01J", "telling", artifacts=ArtifactsMetadata(checkpoints=saved))
    manifest.save(run / "analytics.json")
    with pytest.raises(ConfigError, match=r"there is no .*runs/01J/checkpoints/1.pt, which .* calls the best"):
        load_policy("telling", run)
    (run / files[0]).touch()
    with pytest.raises(PolicyError, match=f"LookupError: {run}/checkpoints/1.pt"):
        load_policy("telling", run)
    with pytest.raises(PolicyError, match=f"LookupError: {run}/checkpoints$"):
        load_policy("telling", run / "checkpoints")
    WorkerAnalyticsManifest("01J", "telling").save(run / "analytics.json")
    with pytest.raises(ConfigError, match=r"the run in .* has no checkpoint"):
        load_policy("telling", run)


RANDOM = [sys.executable, "-m", "random_worker.cli", "--interactive"]


def test_a_program_that_speaks_the_interactive_protocol_is_a_policy() -> None:
    with InteractivePolicy(RANDOM, "tictactoe_v3", agent="player_2") as policy:
        assert isinstance(policy, Policy)
        policy.ping()
        policy.reset(5)
        mask = np.array([0, 0, 1, 0, 1, 0, 0, 0, 0], np.int8)
        first = [policy.act(np.zeros((3, 3, 2)), mask) for _ in range(10)]
        policy.reset(5)
        assert [policy.act(np.zeros((3, 3, 2)), mask) for _ in range(10)] == first
        assert set(first) == {2, 4}
        assert policy.act_batch(np.zeros((3, 3, 3, 2)), np.stack([mask] * 3)).shape == (3,)
        match = play([policy, baseline("tictactoe_v3")], "tictactoe_v3", 2, 1)
        assert len(match.episodes) == 2
        with pytest.raises(PolicyError, match="allows no action"):
            policy.act(np.zeros((3, 3, 2)), np.zeros(9))
        policy.ping()
    with pytest.raises(PolicyError, match="closed"):
        policy.act(0)


def test_a_game_it_does_not_know_is_refused() -> None:
    with pytest.raises(PolicyError, match="init_agent: game: 'no_game_v0' cannot be made|init_agent: env_id"):
        InteractivePolicy(RANDOM, "no_game_v0")


PROGRAM = """
    import json, sys, time
    print("hello, I am chatty")
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"init_agent": {"type": "agent_ready"}, "reset": {"type": "ready"}}.get(asked["cmd"])
        if asked["cmd"] == "select_action":
            wanted = asked["observation"]
            if wanted == "die":
                sys.stderr.write("my last words\\n")
                sys.exit(4)
            if wanted == "sleep":
                time.sleep(100)
            while wanted == "chat":
                print("still thinking", flush=True)
                time.sleep(0.05)
            print("[1, 2]")
            answer = {"type": "action_selected", "action": wanted} if wanted != "none" else {"type": "action_selected"}
        print(json.dumps(answer or {"type": "stopped"}), flush=True)
"""


DEAF = [
    sys.executable,
    "-c",
    "import json, time; print(json.dumps({'type': 'agent_ready'}), flush=True); time.sleep(100)",
]


def program(folder: Path) -> list[str]:
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    return [sys.executable, str(folder / "program.py")]


def test_how_programs_fail(tmp_path: Path) -> None:
    command = program(tmp_path)
    with InteractivePolicy(command, "toy_v1") as policy:
        assert policy.games == ("toy_v1",)
        assert policy.act(np.float32([1, 2])).tolist() == [1, 2]
        with pytest.raises(PolicyError, match="selected no action"):
            policy.act("none")
        with pytest.raises(PolicyError, match="ended with exit code 4\nmy last words"):
            policy.act("die")
    with (
        InteractivePolicy(command, "toy_v1", timeout=0.3) as policy,
        pytest.raises(PolicyError, match=r"no answer to 'select_action' within 0.3 s"),
    ):
        policy.act("sleep")
    with pytest.raises(PolicyError, match="cannot start /no/such/program"):
        InteractivePolicy(["/no/such/program"], "toy_v1")
    with pytest.raises(PolicyError, match="ended with exit code 1"):
        InteractivePolicy(["/bin/false"], "toy_v1")


def test_a_command_has_one_deadline_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "CLOSE_SECONDS", 0.1)
    for command, asked in ((program(tmp_path), "chat"), (DEAF, "x" * 1_000_000)):
        with InteractivePolicy(command, "toy_v1", timeout=0.4) as policy:
            begun = time.monotonic()
            with pytest.raises(PolicyError, match=r"no answer to 'select_action' within 0.4 s; the policy is closed"):
                policy.act(asked)
            assert time.monotonic() - begun < 3
            assert policy._process.poll() == -signal.SIGKILL


def test_closing_does_not_wait_for_a_program_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "CLOSE_SECONDS", 0.1)
    policy = InteractivePolicy(DEAF, "toy_v1")
    pipe = policy._stdin.fileno()
    while select.select([], [pipe], [], 0)[1]:
        os.write(pipe, b"x" * 4096)
    policy.close()
    assert policy._process.poll() == -signal.SIGKILL


def test_an_interrupted_command_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "CLOSE_SECONDS", 0.1)
    with interrupting() as timer, InteractivePolicy(program(tmp_path), "toy_v1", timeout=20) as policy:
        timer.start()
        with pytest.raises(Interrupted):
            policy.act("sleep")
        with pytest.raises(PolicyError, match="the policy is closed"):
            policy.act(1)


def test_a_worker_with_an_environment_of_its_own_has_its_policies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """Which of its environments follows from the config of the run in whose folder the checkpoint lies."""
    package = tmp_path / "packages" / "apart_worker"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        textwrap.dedent("""
        def get_worker_metadata():
            from mosaic_cluster.worker import WorkerCapabilities, WorkerMetadata
            return (
                WorkerMetadata(name="A", version="1", description="", author="", homepage="", license=""),
                WorkerCapabilities(worker_type="apart", supported_paradigms=("a",), env_families=("a",),
                                   action_spaces=("a",), observation_spaces=("a",), max_agents=1),
            )
        """)
    )
    (package / "policy.py").write_text(
        textwrap.dedent("""
        import os, sys
        class Apart:
            games = ("*",)
            def reset(self, seed=None): pass
            def act(self, observation, action_mask=None):
                import mosaic_cluster
                return [os.getpid(), os.environ.get("APART_MARK"), mosaic_cluster.__file__]
            def act_batch(self, observations, action_masks=None): return observations
        def load_policy(checkpoint, **options): return Apart()
        """)
    )
    (package / "environment.toml").write_text(
        f'[[environment]]\nname = "one"\nwhen = {{ kind = "one" }}\ninterpreter = "{sys.executable}"\n'
        '[environment.variables]\nAPART_MARK = "yes"\n'
    )
    register(package.parent, "apart_worker", {"apart": "apart_worker:get_worker_metadata"})
    info = package.parent / "apart_worker-1.0.0.dist-info" / "entry_points.txt"
    info.write_text(info.read_text() + "[mosaic.policies]\napart = apart_worker.policy:load_policy\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(str(package.parent))
    run = tmp_path / "runs" / "01J"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint = run / "checkpoints" / "5.json"
    checkpoint.write_text("{}")
    (run / "config.json").write_text('{"kind": "one"}')
    with load_policy("apart", checkpoint) as there:  # type: ignore[attr-defined]
        pid, mark, contract = there.act(0)
    assert (pid != os.getpid(), mark) == (True, "yes")
    assert Path(contract).is_relative_to(os.environ["MOSAIC_CACHE"])
    assert load_policy("apart", checkpoint, config={"kind": "two"}).act(0)[0] == os.getpid()
    # A loader that another distribution has comes along, too.
    (package / "policy.py").rename(package.parent / "apart_policies.py")
    register(package.parent, "apart_worker", {"apart": "apart_worker:get_worker_metadata"})
    register(package.parent, "apart_policies", {})
    info = package.parent / "apart_policies-1.0.0.dist-info" / "entry_points.txt"
    info.write_text("[mosaic.policies]\napart = apart_policies:load_policy\n")
    with load_policy("apart", checkpoint) as there:  # type: ignore[attr-defined]
        assert there.act(0)[1] == "yes"
