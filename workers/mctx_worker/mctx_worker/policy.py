"""A checkpoint as a policy: plays PettingZoo's game from PettingZoo's observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_cluster.worker import ConfigError, Problem, refuse_game

_LARGEST_SEED = 2**32 - 1


def load_policy(
    checkpoint: str,
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    simulations: int = 0,
    deterministic: bool = True,
    seed: int = 0,
) -> MctxPolicy:
    """The policy of a checkpoint: the entry point of the group ``mosaic.policies``.

    Args:
        checkpoint: a file that was announced by ``checkpoint_saved``.
        game: what it is to play, by PettingZoo's name; ``None``: the one it was trained for.
        agent: whom it plays; any, since it sees the board from the side of the player to move.
        device: ``cpu``, ``cuda`` or ``auto``.
        simulations: of a search before each move; 0: the network's policy alone.
        deterministic: play what is thought best; otherwise by chance, in proportion to the network's policy, or with
            the search's Gumbel noise.
        seed: of that chance, until ``reset`` is given one.

    Raises:
        ConfigError: it does not play that game, or an option is impossible.
        CheckpointError: the file cannot be used.
    """
    del agent
    problems = []
    if isinstance(simulations, bool) or not isinstance(simulations, int) or simulations < 0:
        problems.append(Problem("simulations", f"must be a whole number, at least 0, not {simulations!r}"))
    if not isinstance(deterministic, bool):
        problems.append(Problem("deterministic", f"must be true or false, not {deterministic!r}"))
    if problems:
        raise ConfigError(problems)
    return MctxPolicy(
        Path(checkpoint), game, device=device, simulations=simulations, deterministic=deterministic, seed=seed
    )


class MctxPolicy:
    """Plays one game; see :func:`load_policy` for the arguments.

    Attributes:
        games: PettingZoo's name of the game.
    """

    games: tuple[str, ...]

    def __init__(
        self, checkpoint: Path, game: str | None, *, device: str, simulations: int, deterministic: bool, seed: int
    ) -> None:
        from mctx_worker.adapters import ADAPTERS
        from mctx_worker.devices import choose_device

        choose_device(device)
        import jax

        from mctx_worker import checkpoints
        from mctx_worker.config import MctxConfig
        from mctx_worker.games import make_game
        from mctx_worker.network import Network

        header, arrays = checkpoints.load(checkpoint, ("params",))
        config = MctxConfig.from_dict(header["config"])
        adapter = ADAPTERS.get(config.env_id)
        self.games = (adapter.game,) if adapter else ()
        refuse_game(game, self.games, "mctx")
        if adapter is None:
            text = f"{checkpoint} was trained on {config.env_id}, for which PettingZoo has no game that it could play"
            raise ConfigError([Problem("checkpoint", text)])
        if simulations and adapter.states is None:
            text = f"a search at {adapter.game} would need to know {adapter.why_no_states}: set it to 0"
            raise ConfigError([Problem("simulations", text)])
        self._adapter, self._deterministic = adapter, deterministic
        self._game = make_game(config.env_id)
        saved = header["network"]
        self._network = Network(**{**saved, "shape": tuple(saved["shape"])})
        template = jax.eval_shape(self._network.init, jax.random.PRNGKey(0))
        self._params = checkpoints.restore(template, arrays, "params")
        self._choose = self._searching(config, simulations) if simulations else self._thinking()
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin new games. Nothing of earlier ones is remembered; a seed begins the policy's chance anew."""
        if seed is None:
            return
        import jax

        self._key = jax.random.PRNGKey(seed & _LARGEST_SEED)
        self._acted = 0

    def act(self, observation: Any, action_mask: Any | None = None) -> int:
        """The move in one position: see :meth:`act_batch`."""
        masks = None if action_mask is None else np.asarray(action_mask)[None]
        return int(self.act_batch(np.asarray(observation)[None], masks)[0])

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> np.ndarray:
        """Moves in many positions.

        Args:
            observations: of PettingZoo, of the agents to move, shape ``(games, ...)``.
            action_masks: shape ``(games, actions)``; without them the rules of the game decide.

        Returns:
            shape ``(games,)``, whole numbers.

        Raises:
            ValueError: these are no positions of the game, or one has no legal move.
        """
        import jax

        seen = np.asarray(observations)
        self._check_shape(seen)
        masks = self._masks(seen, action_masks)
        if not len(seen):
            return np.zeros(0, np.int64)
        # Compiled once for each power of two, not for each number of games.
        size = 1 << (len(seen) - 1).bit_length()
        padding = np.arange(size) % len(seen)
        key = jax.random.fold_in(self._key, self._acted)
        self._acted += 1
        chosen = self._choose(seen[padding], masks[padding], key)
        return np.asarray(chosen)[: len(seen)].astype(np.int64)

    def _check_shape(self, seen: np.ndarray) -> None:
        shape = self._game.observation_shape
        if seen.shape[1:] != shape:
            text = f"an observation has shape {list(seen.shape[1:])}, but this policy plays {self.games[0]} with"
            raise ValueError(f"{text} observations of shape {list(shape)} (it was trained on {self._game.name})")

    def _masks(self, seen: np.ndarray, given: Any | None) -> np.ndarray:
        legal = None if self._adapter.legal is None else self._adapter.legal(seen)
        if given is None and legal is None:
            raise ValueError(f"{self.games[0]} cannot be played without action masks: an observation does not tell "
                             "which moves are legal")  # fmt: skip
        masks = legal if given is None else np.asarray(given).astype(bool)
        assert masks is not None
        if masks.shape != (len(seen), self._game.actions):
            wanted = [len(seen), self._game.actions]
            raise ValueError(f"action masks have shape {list(masks.shape)}, but must have {wanted}")
        none = ~masks.any(axis=1)
        if none.any():
            raise ValueError(f"position {int(np.argmax(none))} has no legal move: give masks of the agents to move")
        return masks

    def _thinking(self) -> Any:
        import jax

        from mctx_worker.games import mask_logits

        @jax.jit
        def choose(params: Any, observations: Any, masks: Any, key: Any) -> Any:
            logits = mask_logits(self._network(params, observations)[0], masks)
            if self._deterministic:
                return logits.argmax(axis=-1)
            return jax.random.categorical(key, logits)

        return lambda seen, masks, key: choose(self._params, self._adapter.observations(seen), masks, key)

    def _searching(self, config: Any, simulations: int) -> Any:
        import jax

        from mctx_worker.search import make_search

        search = make_search(config, self._game, self._network, simulations=simulations, noise=not self._deterministic)

        @jax.jit
        def choose(params: Any, states: Any, key: Any) -> Any:
            return search(params, states, key).action

        return lambda seen, masks, key: choose(self._params, self.states(seen, masks), key)

    def states(self, seen: np.ndarray, masks: np.ndarray) -> Any:
        """The pgx states of PettingZoo's observations; the player with id 0 is the one who began.

        Raises:
            ValueError: these are no positions of the game.
        """
        import jax
        import jax.numpy as jnp

        assert self._adapter.states is not None
        fields = self._adapter.states(seen)
        states = self._game.init(jax.random.PRNGKey(0), len(seen))
        color = jnp.asarray(fields["color"])
        return states.replace(
            current_player=color,
            observation=jnp.asarray(self._adapter.observations(seen)),
            legal_action_mask=jnp.asarray(masks),
            _step_count=jnp.asarray((fields["board"] >= 0).sum(axis=1, dtype=np.int32)),
            _x=states._x._replace(color=color, board=jnp.asarray(fields["board"])),
        )


__all__ = ["MctxPolicy", "load_policy"]
