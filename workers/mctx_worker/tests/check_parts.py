"""Runs in the worker's environment: the parts of learning, each against something simpler.

``python check_parts.py``: silent where all is well; what differs is an error.
"""

import jax
import jax.numpy as jnp
import numpy as np
from mctx_worker.config import MctxConfig
from mctx_worker.games import make_game
from mctx_worker.network import Network, make_network
from mctx_worker.search import make_search
from mctx_worker.selfplay import Buffer, targets

WIN = [[1, 1, 0], [0, 0, 0], [2, 2, 0]]  # 1: the player to move, who wins at 2; else the opponent wins at 8
BLOCK = [[2, 2, 0], [0, 1, 0], [1, 0, 0]]  # the opponent threatens 2, where the player wins as well
SAVE = [[2, 2, 0], [0, 1, 0], [0, 0, 0]]  # only 2 saves the player, who is one stone behind


def outcomes_by_hand(buffer: Buffer, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """Follow every position of the ring forwards to the end of its game."""
    rows, games = buffer.values.shape
    written = int(buffer.written)
    outcomes, known = np.zeros((rows, games)), np.zeros((rows, games), bool)
    for game in range(games):
        for move in range(max(0, written - rows), written):
            total, factor = 0.0, 1.0
            for later in range(move, written):
                row = later % rows
                if buffer.ends[row, game] == 2:
                    total += factor * float(buffer.values[row, game])
                else:
                    total += factor * float(buffer.rewards[row, game])
                if buffer.ends[row, game]:
                    known[move % rows, game] = True
                    break
                factor *= discount * float(buffer.signs[row, game])
            outcomes[move % rows, game] = total
    return outcomes, known


def check_outcomes() -> None:
    random = np.random.default_rng(0)
    shape = (7, 5)
    for written in (3, 7, 9, 20):
        nothing = jnp.zeros((*shape, 1))
        buffer = Buffer(
            observations=nothing,
            masks=nothing,
            policies=nothing,
            values=jnp.asarray(random.normal(size=shape), jnp.float32),
            rewards=jnp.asarray(random.normal(size=shape), jnp.float32),
            signs=jnp.asarray(random.choice([-1, 1], shape), jnp.int8),
            ends=jnp.asarray(random.choice([0, 0, 0, 1, 2], shape), jnp.int8),
            written=jnp.int32(written),
        )
        outcomes, known = targets(buffer, 0.9)
        wanted, wanted_known = outcomes_by_hand(buffer, 0.9)
        np.testing.assert_array_equal(known, wanted_known)
        np.testing.assert_allclose(np.where(known, outcomes, 0), np.where(known, wanted, 0), rtol=1e-5, atol=1e-6)
        assert known.any()
        assert not known.all()


def check_search() -> None:
    """Without having learned anything, the search wins where it can, and does not lose where it need not."""
    for algo in ("gumbel_alphazero", "alphazero"):
        config = MctxConfig(run_id="r", algo=algo, hidden_size=8)
        game = make_game("tic_tac_toe")
        network = make_network(config, game)
        search = jax.jit(make_search(config, game, network, simulations=64, noise=False))
        boards = np.array([WIN, BLOCK, SAVE]).reshape(3, 9)
        color = ((boards > 0).sum(axis=1) % 2).astype(np.int32)
        cells = np.where(boards == 1, color[:, None], np.where(boards == 2, 1 - color[:, None], -1)).astype(np.int32)
        states = game.init(jax.random.PRNGKey(0), 3)
        states = states.replace(
            current_player=jnp.asarray(color),
            legal_action_mask=jnp.asarray(boards == 0),
            _x=states._x._replace(color=jnp.asarray(color), board=jnp.asarray(cells)),
        )
        states = states.replace(observation=jax.vmap(game.env.observe)(states, states.current_player))
        found = search(network.init(jax.random.PRNGKey(1)), states, jax.random.PRNGKey(2))
        np.testing.assert_array_equal(found.action, [2, 2, 2], err_msg=algo)
        worth = np.asarray(found.search_tree.summary().qvalues)  # of each move, for the player who makes it
        np.testing.assert_allclose(worth[:2, 2], 1, err_msg=algo)  # it wins
        assert (np.delete(worth[2], [0, 1, 2, 4]) < worth[2, 2]).all(), worth[2]  # whatever else is free loses


def check_values() -> None:
    """Of one player, the loss of a network that says the right value is zero, whatever its size."""
    network = Network("mlp", 8, 1, (4,), 2, None)
    for value in (-5000.0, -3.0, 0.0, 0.5, 20.0, 4000.0):
        scaled = np.sign(value) * (np.sqrt(abs(value) + 1) - 1) + 1e-3 * value
        np.testing.assert_allclose(float(network.value(jnp.float32(scaled))), value, rtol=2e-3, atol=2e-3)
        assert float(network.value_loss(jnp.float32(scaled), jnp.float32(value))) < 1e-6
    bounded = Network("mlp", 8, 1, (4,), 2, 3.0)
    assert float(bounded.value(jnp.float32(100))) == 3.0
    assert float(bounded.value_loss(jnp.float32(np.arctanh(0.5)), jnp.float32(1.5))) < 1e-6


if __name__ == "__main__":
    check_outcomes()
    check_search()
    check_values()
