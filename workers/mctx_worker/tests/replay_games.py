"""Runs in the worker's environment: are these recorded PettingZoo games the games that pgx knows?

``python replay_games.py PGX_GAME RECORDING.npz``: every move is made in pgx, too, and compared. Prints how much was
compared; what differs is an error.
"""

import sys

import jax
import numpy as np
import pgx
from mctx_worker.adapters import ADAPTERS

name, recording = sys.argv[1:]
games = np.load(recording)
adapter = ADAPTERS[name]
env = pgx.make(name)
init, step = jax.jit(env.init), jax.jit(env.step)
moves = ended = 0
state = rebuilt_step = None
if adapter.states is not None:
    from mctx_worker.policy import MctxPolicy

    policy = MctxPolicy.__new__(MctxPolicy)  # only its way from observations to states: no checkpoint is needed
    from mctx_worker.games import make_game

    policy._adapter, policy._game = adapter, make_game(name)
    states = policy.states(games["observations"], games["masks"].astype(bool))
    rebuilt_step = jax.jit(jax.vmap(env.step))(states, games["actions"])
    np.testing.assert_array_equal(jax.vmap(env.observe)(states, states.current_player), states.observation)

adapted = adapter.observations(games["observations"])
legal = None if adapter.legal is None else adapter.legal(games["observations"])
for number, (action, mask) in enumerate(zip(games["actions"], games["masks"], strict=True)):
    if games["starts"][number]:
        state = init(jax.random.PRNGKey(number))
        state = state.replace(current_player=jax.numpy.int32(0))  # player 0 begins, as in PettingZoo
        if hasattr(state, "_player_order"):
            state = state.replace(_player_order=jax.numpy.int32([0, 1]))
    where = f"{name}, move {number}"
    np.testing.assert_array_equal(np.asarray(state.observation), adapted[number], err_msg=where)
    np.testing.assert_array_equal(np.asarray(state.legal_action_mask), mask.astype(bool), err_msg=where)
    if legal is not None:
        np.testing.assert_array_equal(legal[number], mask.astype(bool), err_msg=where)
    mover = int(state.current_player)
    assert mover == games["players"][number], where
    state = step(state, action)
    if rebuilt_step is not None:
        for field in ("observation", "legal_action_mask", "terminated", "current_player", "rewards"):
            one, other = getattr(state, field), getattr(rebuilt_step, field)[number]
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=f"{where}: {field}")
        for one, other in zip(jax.tree.leaves(state._x), jax.tree.leaves(rebuilt_step._x), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other)[number], err_msg=where)
    assert bool(state.terminated) == bool(games["ends"][number]), where
    np.testing.assert_array_equal(np.asarray(state.rewards), games["rewards"][number], err_msg=where)
    moves += 1
    ended += int(games["ends"][number])
sys.stdout.write(f"{moves} moves of {ended} games\n")
