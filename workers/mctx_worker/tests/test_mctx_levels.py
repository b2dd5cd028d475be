"""What is learned: the levels that docs/workers/mctx.md names, and that every game can be played and learned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mctx_worker.config import PLAYERS

sys.path.append(str(Path(__file__).parent))
from mctx_support import SMALL, environment, events, named, play_many, quick, train, variables

from mosaic_cluster.catalog.environments import Ready
from mosaic_cluster.worker import ConfigError
from mosaic_cluster.worker.policy_client import serve_policy

pytestmark = [pytest.mark.workers, pytest.mark.timeout(1800), pytest.mark.xdist_group("levels of mctx")]


@pytest.fixture(scope="module")
def ready() -> Ready:
    return environment()


def trained(ready: Ready, folder: Path, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The last checkpoint of a run, and its summary."""
    done = train(ready, folder, config, "--emit-summary", timeout=1500)
    assert done.returncode == 0, done.stderr
    return Path(named(done, "checkpoint_saved")[-1]["path"]), events(done)[-1]


@pytest.fixture(scope="module")
def tictactoe(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return trained(ready, tmp_path_factory.mktemp("tictactoe"), {"seed": 1, "device": "cpu", "eval_games": 4096})


def served(ready: Ready, checkpoint: Path, **options: Any) -> Any:
    """The policy of a checkpoint, in a process of its own environment."""
    return serve_policy(
        "mctx_worker.policy:load_policy", str(checkpoint), python=ready.python, environ=variables(ready), **options
    )


def test_tictactoe_is_learned(tictactoe: tuple[Path, dict[str, Any]]) -> None:
    _, summary = tictactoe
    assert summary["win_rate"] >= 0.9, summary
    assert summary["loss_rate"] <= 0.03, summary


@pytest.mark.parametrize(
    ("options", "wins", "losses"),
    [({}, 0.9, 0.03), ({"simulations": 16}, 0.9, 0.01), ({"deterministic": False}, 0.85, 0.06)],
)
def test_the_policy_beats_a_random_player_over_pettingzoo(
    ready: Ready, tictactoe: tuple[Path, dict[str, Any]], options: dict[str, Any], wins: float, losses: float
) -> None:
    with served(ready, tictactoe[0], game="tictactoe_v3", options=options) as policy:
        assert policy.games == ("tictactoe_v3",)
        policy.reset(seed=1)
        results = np.concatenate([play_many("tictactoe_v3", policy, 1000, seat, seat) for seat in (0, 1)])
    assert (results > 0).mean() >= wins
    assert (results < 0).mean() <= losses


def test_a_seeded_policy_plays_alike_and_alone_as_in_a_batch(
    ready: Ready, tictactoe: tuple[Path, dict[str, Any]]
) -> None:
    seen = np.zeros((3, 3, 3, 2), np.int8)
    seen[1, 0, 0, 1] = seen[2, 0, 0, 0] = seen[2, 1, 1, 1] = 1
    with served(ready, tictactoe[0], options={"deterministic": False}) as policy:
        policy.reset(seed=5)
        first = [list(policy.act_batch(seen)) for _ in range(20)]
        policy.reset(seed=5)
        assert [list(policy.act_batch(seen)) for _ in range(20)] == first
        assert len({tuple(moves) for moves in first}) > 1
    with served(ready, tictactoe[0]) as policy:
        together = list(policy.act_batch(seen))
        assert [policy.act(each) for each in seen] == together
        mask = np.zeros(9, np.int8)
        mask[7] = 1
        assert policy.act(seen[0], mask) == 7
        with pytest.raises(Exception, match="no position of this game"):
            policy.act(seen[2] + seen[2][..., ::-1])  # two stones on one field
        with pytest.raises(Exception, match="has no legal move"):
            policy.act(seen[0], np.zeros(9))


def test_games_that_it_does_not_play_are_refused(ready: Ready, tictactoe: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"does not play 'connect_four_v3'; this one plays tictactoe_v3"):
        served(ready, tictactoe[0], game="connect_four_v3")


def test_connect_four_is_learned_and_played_over_pettingzoo(ready: Ready, tmp_path: Path) -> None:
    config = {
        "env_id": "connect_four", "seed": 1, "device": "cpu", "total_steps": 100_000, "num_envs": 128, "hidden_size": 32
    }  # fmt: skip
    checkpoint, summary = trained(ready, tmp_path, config)
    assert summary["win_rate"] >= 0.9, summary
    with served(ready, checkpoint, game="connect_four_v3", options={"simulations": 8}) as policy:
        results = np.concatenate([play_many("connect_four_v3", policy, 50, seat, seat) for seat in (0, 1)])
    assert (results > 0).mean() >= 0.9


@pytest.mark.parametrize("game", PLAYERS)
def test_every_game_is_played_and_learned_from(ready: Ready, tmp_path: Path, game: str) -> None:
    """A few moves of each: games are cut early, so that there is something to learn from."""
    config = {
        **SMALL, "env_id": game, "seed": 1, "num_envs": 4, "num_simulations": 2, "total_steps": 96, "eval_games": 2,
        "eval_max_moves": 5, "max_game_moves": 6, "learning_starts": 8,
    }  # fmt: skip
    done = train(ready, tmp_path, config, "--emit-summary", timeout=900, **quick(tmp_path / "compiled"))
    assert done.returncode == 0, done.stderr
    summary = events(done)[-1]
    assert summary["loss"] == summary["loss"] != 0  # learned, and no NaN
    assert summary["step"] == 96
