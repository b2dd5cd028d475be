"""A language model as a policy of a board game: the entry point of the group ``mosaic.policies``.

The model and how it is asked come from a run's ``evaluation.json``, and may be changed by options. The key comes from
the environment of the process that plays.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from barlog_worker import parsing
from barlog_worker.boards import BOARDS, Board, conversation
from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import ChatClient, Usage
from barlog_worker.records import EVALUATION, read_evaluation
from mosaic_cluster.worker import ConfigError, Problem, refuse_game

LOGGER = logging.getLogger(__name__)

PLAYS = tuple(BOARDS)
OPTIONS = (
    "agent_style", "base_url", "model", "api_key_env", "temperature", "max_tokens", "max_tokens_name", "timeout",
    "max_retries", "retry_delay", "retry_delay_max", "concurrency",
)  # fmt: skip
"""What may be given beside the checkpoint: settings of the worker, and ``agent_style`` for its ``agent``."""


class LanguageModelPolicy:
    """Asks a model for each move. A reply that names no legal move is replaced by a legal one, drawn at random.

    Attributes:
        games: the games it plays; one, where it was loaded for one.
        fallbacks: moves that were drawn, since the reply named none.
        moves: all moves.
        usage: tokens, requests, retries.
    """

    def __init__(self, config: BarlogConfig, game: str | None = None) -> None:
        self.games: tuple[str, ...] = PLAYS if game is None else (game,)
        self.fallbacks = self.moves = 0
        self.usage = Usage()
        self._config = config
        self._rng = random.Random(config.seed)
        self._client: ChatClient | None = None
        if config.agent != "dummy":
            self._client = ChatClient(
                config.base_url,
                config.model,
                api_key_env=config.api_key_env,
                temperature=config.temperature,
                max_tokens=config.max_tokens,
                max_tokens_name=config.max_tokens_name,
                timeout=config.timeout,
                max_retries=config.max_retries,
                retry_delay=config.retry_delay,
                retry_delay_max=config.retry_delay_max,
            )

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes: nothing is remembered of earlier ones; ``seed`` is that of the fallback."""
        if seed is not None:
            self._rng = random.Random(seed)

    def act(self, observation: Any, action_mask: Any | None = None) -> int:
        """A legal move.

        Args:
            observation: shape (3, 3, 2) in tic-tac-toe, (6, 7, 2) in connect four.
            action_mask: 1 where a move is legal; ``None``: every empty cell, or column that is not full.

        Raises:
            ValueError: another shape, or no move is legal.
            EndpointError: the endpoint does not answer.
        """
        board, legal = self._position(observation, action_mask)
        return self._settle(self._ask(board, observation, legal), legal)

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> list[int]:
        """Moves of many boards, asked for at the same time, ``concurrency`` of them."""
        masks = [None] * len(observations) if action_masks is None else action_masks
        found = [self._position(seen, mask) for seen, mask in zip(observations, masks, strict=False)]
        tasks = [(board, seen, legal) for (board, legal), seen in zip(found, observations, strict=False)]
        if not tasks:
            return []
        with ThreadPoolExecutor(min(self._config.concurrency, len(tasks))) as pool:
            replies = list(pool.map(lambda task: self._ask(*task), tasks))
        # In order, after all of them are there: so what is drawn does not hang on which reply comes first.
        return [self._settle(reply, legal) for reply, (_, _, legal) in zip(replies, tasks, strict=False)]

    def _position(self, observation: Any, mask: Any | None) -> tuple[Board, list[int]]:
        shape = _shape(observation)
        board = next((BOARDS[name] for name in self.games if BOARDS[name].shape == shape), None)
        if board is None:
            shapes = " or ".join(f"{BOARDS[name].shape} ({name})" for name in self.games)
            raise ValueError(f"an observation must be of shape {shapes}, not {shape}")
        if mask is not None and len(mask) != board.moves:
            raise ValueError(f"a mask must have {board.moves} entries, not {len(mask)}")
        allowed = [bool(each) for each in mask] if mask is not None else _empty(board, observation)
        legal = [move for move, fine in enumerate(allowed) if fine]
        if not legal:
            raise ValueError("no move is legal: the game is over")
        return board, legal

    def _ask(self, board: Board, observation: Any, legal: Sequence[int]) -> tuple[str, Usage] | None:
        if self._client is None:
            return None
        reply = self._client.ask(conversation(board, observation, legal, self._config.agent))
        return reply.text, reply.usage

    def _settle(self, reply: tuple[str, Usage] | None, legal: Sequence[int]) -> int:
        self.moves += 1
        if reply is None:
            return self._rng.choice(legal)
        text, usage = reply
        self.usage.add(usage)
        words = _words(text, self._config.agent)
        named = parsing.match(words, [str(move) for move in legal])
        if named is not None:
            return int(named)
        self.fallbacks += 1
        LOGGER.warning("a reply names none of the legal moves %s: %r", list(legal), text[:200])
        return self._rng.choice(legal)


def load_policy(
    checkpoint: str, *, game: str | None = None, agent: str | None = None, device: str = "cpu", **options: Any
) -> LanguageModelPolicy:
    """Load the model that a run evaluated, as a policy.

    Args:
        checkpoint: a run's ``evaluation.json``, or the run's folder, or the folder of its checkpoints.
        game: ``tictactoe_v3`` or ``connect_four_v3``; ``None``: both.
        agent: the player's name in the game; it plays for anyone.
        device: of no meaning here: the model runs behind its endpoint.
        options: settings that replace the run's: those in :data:`OPTIONS`.

    Raises:
        ConfigError: another game, an unknown option, or settings that cannot be used together.
        ValueError: there is no such checkpoint.
    """
    refuse_game(game, PLAYS, "barlog")
    settings: dict[str, Any] = dict(read_evaluation(_file(Path(checkpoint)))["settings"])
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise ConfigError(
            [Problem(name, f"is no option of this policy; there are {', '.join(OPTIONS)}") for name in unknown]
        )
    given = {("agent" if name == "agent_style" else name): value for name, value in options.items()}
    settings = {**settings, **given, "vision": False, "demonstrations": None}
    if settings.get("agent") == "few_shot":
        settings["agent"] = "naive"  # what it was shown were other games
    return LanguageModelPolicy(BarlogConfig.from_dict(_known(settings)), game)


def _file(path: Path) -> Path:
    for candidate in (path / EVALUATION, path / "checkpoints" / EVALUATION):
        if candidate.is_file():
            return candidate
    return path


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an older or newer version that this one does not have do not matter to a board game."""
    names = BarlogConfig.__dataclass_fields__
    text = json.loads(json.dumps(dict(settings)))
    return {name: value for name, value in text.items() if name in names}


def _words(text: str, agent: str) -> str | None:
    if agent in ("robust_naive", "robust_cot"):
        return parsing.tagged(text)
    if agent == "cot":
        return parsing.labelled(text) or parsing.bare(text)
    return parsing.bare(text)


def _shape(observation: Any) -> tuple[int, ...]:
    given = getattr(observation, "shape", None)
    if given is not None:
        return tuple(int(each) for each in given)
    shape: list[int] = []
    while isinstance(observation, (list, tuple)) and observation:
        shape.append(len(observation))
        observation = observation[0]
    return tuple(shape)


def _empty(board: Board, observation: Any) -> list[bool]:
    """Where a stone can be put, where no mask says so."""
    if board.moves == 9:
        return [not any(observation[move // 3][move % 3]) for move in range(9)]
    return [not any(observation[0][column]) for column in range(7)]


__all__ = ["OPTIONS", "PLAYS", "LanguageModelPolicy", "load_policy"]
