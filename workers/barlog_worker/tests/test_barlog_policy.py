"""A language model as a policy of a board game: what it is shown, what it answers, what is refused."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from barlog_corridors import KEY, settings
from barlog_worker.boards import BOARDS, connect_four, tictactoe
from barlog_worker.endpoint import EndpointError
from barlog_worker.policy import load_policy
from barlog_worker.records import FORMAT
from barlog_worker.scripted import RandomPlayer, ScriptedEndpoint

from mosaic_cluster.worker import ConfigError, Policy

# Seen in PettingZoo 1.27 by who is to move after the moves 0, 4, 1, 5 of tic-tac-toe ...
AFTER_0415 = np.array(
    [[[1, 0], [1, 0], [0, 0]], [[0, 0], [0, 1], [0, 1]], [[0, 0], [0, 0], [0, 0]]], np.int8
)  # fmt: skip
TICTACTOE = """\
 X | 3 | 6
---+---+---
 X | O | 7
---+---+---
 2 | O | 8"""
# ... and after 3, 3, 2, 0 of connect four.
AFTER_3320 = np.zeros((6, 7, 2), np.int8)
AFTER_3320[5, 3] = AFTER_3320[5, 2] = (1, 0)
AFTER_3320[4, 3] = AFTER_3320[5, 0] = (0, 1)
CONNECT_FOUR = """\
. . . . . . .
. . . . . . .
. . . . . . .
. . . . . . .
. . . O . . .
O . X X . . .
0 1 2 3 4 5 6"""


def saved(folder: Path, **given: Any) -> Path:
    """A run's folder with its evaluation."""
    content = {"format": FORMAT, "seed": 3, "settings": settings(**given), "episodes": []}
    path = folder / "checkpoints" / "evaluation.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return folder


class TestRendering:
    def test_tictactoe(self) -> None:
        assert tictactoe(AFTER_0415) == TICTACTOE

    def test_connect_four(self) -> None:
        assert connect_four(AFTER_3320) == CONNECT_FOUR

    def test_the_other_side_sees_the_same_with_letters_exchanged(self) -> None:
        swapped = TICTACTOE.translate(str.maketrans("XO", "OX"))
        assert tictactoe(AFTER_0415[..., ::-1]) == swapped

    @pytest.mark.parametrize("name", sorted(BOARDS))
    def test_against_pettingzoo_itself(self, name: str) -> None:
        pytest.importorskip("pygame", reason="PettingZoo's board games draw with it")
        module = pytest.importorskip(f"pettingzoo.classic.{name}")
        env = module.env()
        for game in range(20):
            env.reset(seed=game)
            rng = np.random.default_rng(game)
            for agent in env.agent_iter():
                seen, _, over, truncated, _ = env.last()
                if over or truncated:
                    break
                text = BOARDS[name].render(seen["observation"])
                stones = [(move, who) for move, who in _stones(env, name, agent)]
                assert (text.count("X"), text.count("O")) == _counts(stones)
                if name == "tictactoe_v3":
                    for move in range(9):
                        assert (str(move) in text) == bool(seen["action_mask"][move])
                env.step(int(rng.choice(np.flatnonzero(seen["action_mask"]))))
        env.close()


def _stones(env: Any, name: str, agent: str) -> list[tuple[int, int]]:
    """Cell and owner, 1 for who is to move, from the game's own board."""
    board = env.unwrapped.board
    cells = board.squares if name == "tictactoe_v3" else board
    mine = env.possible_agents.index(agent) + 1
    return [(cell, 1 if who == mine else 2) for cell, who in enumerate(cells) if who]


def _counts(stones: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(who == 1 for _, who in stones), sum(who == 2 for _, who in stones)


class TestActing:
    def test_the_model_is_shown_the_board_and_obeyed(self, tmp_path: Path) -> None:
        with ScriptedEndpoint("7") as endpoint:
            policy = load_policy(str(saved(tmp_path, base_url=endpoint.base_url)), game="tictactoe_v3")
            assert isinstance(policy, Policy)
            assert policy.games == ("tictactoe_v3",)
            assert policy.act(AFTER_0415, np.array([0, 0, 1, 1, 0, 0, 1, 1, 1], np.int8)) == 7
        system, user = endpoint.requests[0]["messages"]
        assert "tic-tac-toe" in system["content"]
        assert user["content"] == f"{TICTACTOE}\n\nLegal moves: 2, 3, 6, 7, 8.\nYour move:"
        assert (policy.moves, policy.fallbacks, policy.usage.requests) == (1, 0, 1)

    @pytest.mark.parametrize("said", ["0", "Seven!", "", "9", "7 or 8"])
    def test_what_is_not_legal_is_replaced_and_counted(self, tmp_path: Path, said: str) -> None:
        with ScriptedEndpoint(said) as endpoint:
            policy = load_policy(str(saved(tmp_path, base_url=endpoint.base_url)), game="tictactoe_v3")
            moves = []
            for _ in range(2):
                policy.reset(seed=5)
                moves.append([policy.act(AFTER_0415) for _ in range(4)])
        assert moves[0] == moves[1]
        assert set(moves[0]) <= {2, 3, 6, 7, 8}
        assert (policy.moves, policy.fallbacks) == (8, 8)

    @pytest.mark.parametrize("style", ["naive", "cot", "robust_naive", "robust_cot", "few_shot"])
    def test_every_way_of_asking(self, tmp_path: Path, style: str) -> None:
        with ScriptedEndpoint(RandomPlayer(1)) as endpoint:
            policy = load_policy(str(saved(tmp_path)), base_url=endpoint.base_url, agent_style=style)
            policy.reset(seed=1)
            for _ in range(5):
                assert policy.act(AFTER_3320) in range(7)
            assert policy.act(AFTER_0415) in {2, 3, 6, 7, 8}
        assert policy.fallbacks == 0

    def test_batches_are_asked_side_by_side_and_answered_in_order(self, tmp_path: Path) -> None:
        def fourth(messages: Any) -> str:
            return str(messages[-1]["content"]).split("Legal moves: ")[1].split(",")[0]

        boards = np.zeros((4, 6, 7, 2), np.int8)
        masks = np.ones((4, 7), np.int8)
        for row in range(4):
            masks[row, :row] = 0
        with ScriptedEndpoint(fourth) as endpoint:
            policy = load_policy(str(saved(tmp_path, base_url=endpoint.base_url)), game="connect_four_v3")
            assert list(policy.act_batch(boards, masks)) == [0, 1, 2, 3]
            assert list(policy.act_batch(boards)) == [0, 0, 0, 0]
        assert policy.moves == 8

    def test_full_columns_are_not_legal_without_a_mask(self, tmp_path: Path) -> None:
        board = np.zeros((6, 7, 2), np.int8)
        board[:, 2:, 0] = 1
        policy = load_policy(str(saved(tmp_path, agent="dummy", model="")), game="connect_four_v3")
        assert {policy.act(board) for _ in range(50)} == {0, 1}

    def test_lists_will_do(self, tmp_path: Path) -> None:
        policy = load_policy(str(saved(tmp_path, agent="dummy", model="")))
        assert policy.act(AFTER_0415.tolist(), [0, 0, 0, 0, 0, 0, 0, 0, 1]) == 8

    def test_an_endpoint_that_fails(self, tmp_path: Path) -> None:
        with ScriptedEndpoint("x", faults=[401]) as endpoint:
            policy = load_policy(str(saved(tmp_path, base_url=endpoint.base_url)))
            with pytest.raises(EndpointError, match="401"):
                policy.act(AFTER_0415)

    def test_the_key_comes_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", KEY)
        with ScriptedEndpoint("8") as endpoint:
            policy = load_policy(str(saved(tmp_path)), base_url=endpoint.base_url, api_key_env="MY_KEY")
            policy.act(AFTER_0415)
        assert endpoint.authorizations == [f"Bearer {KEY}"]
        assert KEY not in repr(vars(policy))


class TestLoading:
    def test_entry_point(self) -> None:
        (found,) = entry_points(group="mosaic.policies", name="barlog")
        assert found.load() is load_policy

    @pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/evaluation.json"])
    def test_from_folders_and_the_file(self, tmp_path: Path, part: str) -> None:
        policy = load_policy(str(saved(tmp_path) / part))
        assert policy.games == ("tictactoe_v3", "connect_four_v3")

    def test_another_game_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not play 'chess_v6'; this one plays tictactoe_v3, conn"):
            load_policy(str(saved(tmp_path)), game="chess_v6")

    def test_unknown_and_impossible_options(self, tmp_path: Path) -> None:
        folder = str(saved(tmp_path))
        with pytest.raises(ConfigError, match="modle: is no option of this policy; there are"):
            load_policy(folder, modle="x")
        with pytest.raises(ConfigError, match="temperature: must be at least 0 and at most 2"):
            load_policy(folder, temperature=3.0)

    def test_no_such_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be read"):
            load_policy(str(tmp_path / "nothing.json"))

    def test_another_observation_is_refused(self, tmp_path: Path) -> None:
        policy = load_policy(str(saved(tmp_path)), game="tictactoe_v3")
        with pytest.raises(ValueError, match=r"of shape \(3, 3, 2\) \(tictactoe_v3\), not \(6, 7, 2\)"):
            policy.act(AFTER_3320)
        with pytest.raises(ValueError, match="9 entries, not 7"):
            policy.act(AFTER_0415, [1] * 7)
        with pytest.raises(ValueError, match="the game is over"):
            policy.act(AFTER_0415, [0] * 9)
