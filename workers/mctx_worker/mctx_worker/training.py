"""The loop: self-play, learning, evaluation, checkpoints.

Every random number follows from the seed and the count of moves, so that a run that goes on from a checkpoint is the
run that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import deque
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mctx_worker import checkpoints
from mctx_worker.analytics import results, score
from mctx_worker.config import MctxConfig
from mctx_worker.evaluation import Evaluation, against_random_metrics
from mctx_worker.games import make_game
from mctx_worker.learning import make_gather, make_learn, make_optimizer
from mctx_worker.network import Network, make_network
from mctx_worker.search import make_search
from mctx_worker.selfplay import Ended, begin, make_play
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

LOGGER = logging.getLogger(__name__)

_PLAY, _LEARN, _EVALUATE, _BEGIN, _INIT = range(5)


class Training:
    """All that a run holds.

    Args:
        config: of the run, with a seed.
        session: of this attempt.
        device: where it computes, for the log.
    """

    def __init__(self, config: MctxConfig, session: WorkerSession, *, device: str) -> None:
        self.config, self.session, self.device = config, session, device
        self.seed = int(config.seed or 0)
        self.game = make_game(config.env_id)
        self.network = make_network(config, self.game)
        self.optimizer = make_optimizer(config)
        search = make_search(config, self.game, self.network, simulations=config.num_simulations)
        self._play = make_play(config, self.game, search)
        self._gather = make_gather(config)
        self._learn = make_learn(config, self.network, self.optimizer)
        self._evaluation = Evaluation(config, self.game, self.network)
        self._recent: deque[tuple[float, int]] = deque(maxlen=1000)
        self.iteration = 0
        self.ended = 0
        self.evaluated_at = -1
        self.metrics: dict[str, Any] = {}
        self.params = jax.jit(self.network.init)(self._key(_INIT, 0))
        self.opt_state = jax.jit(self.optimizer.init)(self.params)
        self.past = jax.tree.map(jnp.copy, self.params)
        self._begin = jax.jit(functools.partial(begin, config, self.game))
        self.games = self._begin(self._key(_BEGIN, 0))

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def check(self) -> dict[str, Any]:
        """What would be trained: shapes are followed through self-play and learning, nothing is computed."""
        played, _ = jax.eval_shape(self._play, self.params, self.games, self._key(_PLAY, 0))
        material = jax.eval_shape(self._gather, played.buffer)
        rate = jnp.float32(0)
        jax.eval_shape(self._learn, self.params, self.opt_state, played.buffer, material, rate, self._key(_LEARN, 0))
        return {
            "network": self.network.kind,
            "parameters": self.parameters,
            "players": self.game.players,
            "actions": self.game.actions,
            "observation_shape": list(self.game.observation_shape),
            "buffer_mb": round(sum(leaf.nbytes for leaf in self.games.buffer) / 2**20, 1),
            "device": self.device,
        }

    def run(self) -> dict[str, Any]:
        """Train up to ``total_steps``, or until asked to stop."""
        config, session = self.config, self.session
        checkpoints.remove_unfinished(session.checkpoint_dir)
        if session.resume_from:
            self._resume(session.resume_from)
        saved_at = -1
        if self._evaluation_due():
            self._evaluate()
        while session.step < config.total_steps and not session.stopping:
            self._move()
            if self.iteration % config.rollout_length == 0:
                self._round_of_learning()
            if self._evaluation_due():
                self._evaluate()
            session.heartbeat(self._told())
            if session.checkpoint_due(config.checkpoint_every):
                self._save()
                saved_at = session.step
        if saved_at != session.step:
            self._save()
        return results(self._told(), parameters=self.parameters, device=self.device)

    def _key(self, purpose: int, number: int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(self.seed), purpose), number)

    def _move(self) -> None:
        self.games, ended = self._play(self.params, self.games, self._key(_PLAY, self.iteration))
        self.iteration += 1
        self.session.step += self.config.num_envs
        self._count(ended)

    def _count(self, ended: Ended) -> None:
        """Remember what ended, and tell of the first few games."""
        over, cut, result, moves = (np.asarray(each) for each in ended)
        (places,) = np.nonzero(over)
        for place in places:
            if place < self.config.reported_games:
                self.session.episode(
                    float(result[place]),
                    int(moves[place]),
                    episode=self.ended,
                    terminated=not cut[place],
                    truncated=bool(cut[place]),
                    metadata={"game": int(place), "of": "the player who began"},
                )
            self.ended += 1
            self._recent.append((float(result[place]), int(moves[place])))
        self.session.episodes = self.ended

    def _round_of_learning(self) -> None:
        material = self._gather(self.games.buffer)
        known = int(material.known)
        if known < self.config.learning_starts:
            self._refuse_to_wait_for_ever(known)
            return
        rate = self.config.learning_rate
        if self.config.anneal_lr:
            rate *= max(0.0, 1 - self.session.step / self.config.total_steps)
        self.params, self.opt_state, losses = self._learn(
            self.params,
            self.opt_state,
            self.games.buffer,
            material,
            jnp.float32(rate),
            self._key(_LEARN, self.iteration),
        )
        self.metrics.update(losses)  # on the device still: heartbeats are rarer than rounds of learning
        self.metrics["learning_rate"] = rate

    def _refuse_to_wait_for_ever(self, known: int) -> None:
        rows = self.games.buffer.values.shape[0]
        if int(self.games.buffer.written) >= 4 * rows and known == 0:
            text = (
                f"holds {rows} moves of each of the {self.config.num_envs} games, and no game ended within so many: "
                "raise it, lower num_envs, or set max_game_moves"
            )
            raise ConfigError([Problem("buffer_size", text)])

    def _evaluation_due(self) -> bool:
        every, step, last = self.config.eval_interval, self.session.step, self.evaluated_at
        if last < 0:
            return True
        due = step >= self.config.total_steps or self.session.report_due
        return step != last and (due or bool(every and step // every > last // every))

    def _evaluate(self) -> None:
        key = self._key(_EVALUATE, self.iteration)
        stop = lambda: self.session.stopping  # noqa: E731
        returns = self._evaluation.against_random(self.params, jax.random.fold_in(key, 0), stop)
        if returns is None:
            return
        self.metrics.update(against_random_metrics(returns, self.game.players))
        if self.game.players == 2 and self.evaluated_at >= 0:
            points = self._evaluation.against_past(self.params, self.past, jax.random.fold_in(key, 1), stop)
            if points is None:
                return
            self.metrics["past_score"] = round(float((1 + np.sign(points)).mean() / 2), 6)
        self.past = jax.tree.map(jnp.copy, self.params)
        self.evaluated_at = self.metrics["evaluated_at"] = self.session.step
        self.session.heartbeat(self._told(), now=True)

    def _told(self) -> dict[str, Any]:
        """What a heartbeat says beside step and speed."""
        if self._recent:
            values, moves = np.array([each for each, _ in self._recent]), [each for _, each in self._recent]
            self.metrics["selfplay_moves"] = round(float(np.mean(moves)), 3)
            self.metrics["selfplay_return"] = round(float(values.mean()), 6)
            if self.game.players == 2:
                self.metrics["selfplay_draw_rate"] = round(float((values == 0).mean()), 6)
        for name in ("loss", "policy_loss", "value_loss", "entropy"):
            if name in self.metrics:
                self.metrics[name] = round(float(self.metrics[name]), 6)
        self.metrics["elapsed"] = round(self.session.seconds, 3)
        return dict(self.metrics)

    def _path(self) -> Path:
        return self.session.checkpoint_dir / f"checkpoint_{self.session.step}.npz"

    def _save(self) -> None:
        header = {
            "step": self.session.step,
            "iteration": self.iteration,
            "seed": self.seed,
            "ended": self.ended,
            "evaluated_at": self.evaluated_at,
            "metrics": {name: value for name, value in self._told().items() if name != "elapsed"},
            "config": self.config.to_dict(),
            "network": dataclasses.asdict(self.network),
        }
        arrays = {
            **checkpoints.flatten(self.params, "params"),
            **checkpoints.flatten(self.opt_state, "optimizer"),
            **checkpoints.flatten(self.past, "past"),
            "recent": np.array(self._recent, np.float32).reshape(-1, 2),
        }
        if self.config.checkpoint_buffer:
            arrays.update(checkpoints.flatten(self.games, "games"))
        path = checkpoints.save(self._path(), header, arrays)
        self.session.saved(path, score=score(self.metrics, self.session.step))
        self.session.keep(self.config.keep_checkpoints)

    def _resume(self, path: Path) -> None:
        header, arrays = checkpoints.load(path)
        _refuse_another(self.config, self.network, header)
        self.params = checkpoints.restore(self.params, arrays, "params")
        self.opt_state = checkpoints.restore(self.opt_state, arrays, "optimizer")
        self.past = checkpoints.restore(self.past, arrays, "past")
        self.iteration, self.ended = int(header["iteration"]), int(header["ended"])
        self.evaluated_at, self.metrics = int(header["evaluated_at"]), dict(header["metrics"])
        self.session.metrics.update(self.metrics)  # what was measured last is told where nothing is left to measure
        self.session.episodes = self.ended
        self._recent.extend((float(result), int(moves)) for result, moves in arrays.get("recent", ()))
        same = all(header["config"][name] == getattr(self.config, name) for name in ("num_envs", "buffer_size"))
        if same and any(name.startswith("games/") for name in arrays):
            self.games = checkpoints.restore(self.games, arrays, "games")
        else:
            LOGGER.warning(
                "%s has no running games and learned positions of %d games in a buffer of %d: new games are begun, "
                "and %d positions collected before learning goes on",
                path, self.config.num_envs, self.config.buffer_size, self.config.learning_starts,
            )  # fmt: skip
            self.games = self._begin(self._key(_BEGIN, self.iteration))
        self.session.resumed(int(header["step"]))


def _refuse_another(config: MctxConfig, network: Network, header: dict[str, Any]) -> None:
    """Refuse to go on with another game or network than the checkpoint's."""
    problems = []
    if header["config"]["env_id"] != config.env_id:
        made = header["config"]["env_id"]
        text = f"is {config.env_id!r}, but the checkpoint to resume from was made with {made!r}"
        problems.append(Problem("env_id", text))
    else:
        names = {"kind": "network", "hidden": "hidden_size", "blocks": "num_blocks"}
        for attribute, name in names.items():
            mine, made = getattr(network, attribute), header["network"][attribute]
            if mine != made:
                text = f"is {mine!r}, but the checkpoint to resume from was made with {made!r}"
                problems.append(Problem(name, text))
    if problems:
        raise ConfigError(problems)


__all__ = ["Training"]
