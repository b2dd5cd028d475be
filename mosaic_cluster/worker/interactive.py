"""A policy on stdin and stdout: one JSON object a line, asked and answered in turn.

==========================================================  ==================================================
asked                                                       answered
==========================================================  ==================================================
``{"cmd":"init_agent","game_name":...,"player_id":...}``    ``{"type":"agent_ready",...}``
``{"cmd":"select_action","observation":...,                 ``{"type":"action_selected","action":...}``
"player_id":...,"action_mask":...}``
``{"cmd":"reset","seed":...}``                              ``{"type":"ready","seed":...}``
``{"cmd":"step"}``                                          ``{"type":"step",...}``, at the end of an episode
                                                            ``{"type":"episode_end",...}``
``{"cmd":"ping"}`` / ``{"cmd":"stop"}``                     ``{"type":"pong"}`` / ``{"type":"stopped"}``
anything else, and what fails                               ``{"type":"error","message":...}``
==========================================================  ==================================================

A worker that has a policy offers this with one call, :func:`run_interactive`; whoever speaks it is a policy for
mosaic_cluster, in whatever language it is written.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any, Callable, Dict, Iterator, Mapping, Optional

from mosaic_cluster.worker._plain import json_text, to_plain
from mosaic_cluster.worker.program import claim_stdout

Answer = Dict[str, Any]
DEFAULT_PLAYER = "player_0"


class InteractiveAgent:
    """Answers the protocol's commands with policies.

    Args:
        load: called with a game's name (``None``: whatever it was made for) and a player's; gives a policy.
        episodes: called with a seed (or ``None``); gives one dict for each step of one episode that the worker plays
            in an environment of its own. The last one holds ``"type": "episode_end"``. ``None``: ``step`` is refused.
    """

    def __init__(
        self,
        load: Callable[[Optional[str], str], Any],
        episodes: Optional[Callable[[Optional[int]], Iterator[Mapping[str, Any]]]] = None,
    ) -> None:
        self._load = load
        self._episodes = episodes
        self._game: Optional[str] = None
        self._policies: Dict[str, Any] = {}
        self._seed: Optional[int] = None
        self._steps: Optional[Iterator[Mapping[str, Any]]] = None

    def answer(self, line: str) -> Answer:
        """The answer to one line; never raises for what it says."""
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise ValueError("a command is a JSON object")
            command = _COMMANDS.get(str(asked.get("cmd")))
            if command is None:
                words = f"there is no command {asked.get('cmd')!r}; there are {', '.join(sorted(_COMMANDS))}"
                raise ValueError(words)
            return command(self, asked)
        except Exception as error:  # noqa: BLE001 - the policy stays alive, and who asked is told
            return {"type": "error", "message": str(error) or type(error).__name__, "error": type(error).__name__}

    def _init(self, asked: Mapping[str, Any]) -> Answer:
        game, player = asked.get("game_name"), _player(asked)
        policy = self._load(None if game is None else str(game), player)
        if game != self._game:
            self._policies.clear()
            self._game = game
        self._policies[player] = policy
        policy.reset(self._seed)
        return {"type": "agent_ready", "game_name": game, "player_id": player, "games": list(policy.games)}

    def _select(self, asked: Mapping[str, Any]) -> Answer:
        player = _player(asked)
        if player not in self._policies:
            if not self._policies or "player_id" in asked:
                known = ", ".join(sorted(self._policies)) or "none"
                raise ValueError(f"there is no agent for {player!r} (there is {known}): send init_agent first")
            player = next(iter(self._policies))
        if "observation" not in asked:
            raise ValueError("select_action needs an observation")
        action = self._policies[player].act(_array(asked["observation"]), _array(asked.get("action_mask")))
        return {"type": "action_selected", "action": to_plain(action), "player_id": player}

    def _reset(self, asked: Mapping[str, Any]) -> Answer:
        seed = asked.get("seed")
        self._seed = None if seed is None else int(seed)
        self._steps = None
        for policy in self._policies.values():
            policy.reset(self._seed)
        return {"type": "ready", "seed": self._seed}

    def _step(self, asked: Mapping[str, Any]) -> Answer:
        del asked
        if self._episodes is None:
            raise ValueError("this worker plays no environment of its own: send select_action")
        if self._steps is None:
            self._steps = iter(self._episodes(self._seed))
            self._seed = None if self._seed is None else self._seed + 1
        found = dict(next(self._steps, {"type": "episode_end"}))
        if found.setdefault("type", "step") == "episode_end":
            self._steps = None
        return found

    def _ping(self, asked: Mapping[str, Any]) -> Answer:
        del asked
        return {"type": "pong"}

    def _stop(self, asked: Mapping[str, Any]) -> Answer:
        del asked
        return {"type": "stopped"}


_COMMANDS: Dict[str, Callable[[InteractiveAgent, Mapping[str, Any]], Answer]] = {
    "init_agent": InteractiveAgent._init,
    "select_action": InteractiveAgent._select,
    "reset": InteractiveAgent._reset,
    "step": InteractiveAgent._step,
    "ping": InteractiveAgent._ping,
    "stop": InteractiveAgent._stop,
}


def run_interactive(agent: InteractiveAgent, stdin: Optional[IO[str]] = None, stdout: Optional[IO[str]] = None) -> int:
    """Answer until ``stop`` or the end of stdin. What a library prints goes to stderr.

    Returns:
        the exit code, 0.
    """
    out = claim_stdout() if stdout is None else stdout
    for line in sys.stdin if stdin is None else stdin:
        if not line.strip():
            continue
        answer = agent.answer(line)
        out.write(json_text(answer) + "\n")
        out.flush()
        if answer["type"] == "stopped":
            break
    return 0


def _player(asked: Mapping[str, Any]) -> str:
    return str(asked.get("player_id") or DEFAULT_PLAYER)


def _array(value: Any) -> Any:
    """Lists of numbers as an array, where NumPy is there: policies expect the game's own observations."""
    if isinstance(value, dict):
        return {name: _array(each) for name, each in value.items()}
    if not isinstance(value, list):
        return value
    try:
        import numpy as np

        array = np.asarray(value)
    except (ImportError, ValueError):  # no NumPy, or lists of different lengths
        return value
    return array if array.dtype.kind in "biuf" else value


__all__ = ["InteractiveAgent", "run_interactive"]
