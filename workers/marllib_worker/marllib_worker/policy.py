"""A checkpoint as a policy: of one agent, from its own observation, as the game's PettingZoo environment has both.

Runs in the environment of the backend that trained it. All agents of MPE act on what they see themselves, whatever
their critics saw in training; so a policy plays for one agent at a time. ``agent`` names it where the agents do not
share one policy.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mosaic_cluster.worker import ConfigError, Problem, refuse_game

from marllib_worker.algorithms import ALGORITHMS
from marllib_worker.analytics import describe_checkpoint
from marllib_worker.config import MarllibConfig

_HOMES = {"marllib": "marllib_worker.marllib_policy", "benchmarl": "marllib_worker.benchmarl_policy"}


def load_policy(
    checkpoint: str,
    *,
    game: Optional[str] = None,
    agent: Optional[str] = None,
    device: str = "cpu",
    continuous_actions: bool = False,
    **options: Any,
) -> Any:
    """Load the policy of one agent.

    Args:
        checkpoint: a folder that ``checkpoint_saved`` announced.
        game: by PettingZoo's name; ``None``: the one it was trained on.
        agent: by PettingZoo's name (``agent_0``); may be left out where all agents share one policy. With BenchMARL
            they never do in a game with several groups.
        device: where its networks live.
        continuous_actions: the game is played with PettingZoo's ``continuous_actions=True``.
        options: there are none.

    Returns:
        a :class:`mosaic_cluster.worker.Policy`: it acts without exploration.

    Raises:
        ConfigError: it does not play that, with every problem.
        MosaicError: the checkpoint cannot be read.
    """
    folder = Path(checkpoint).absolute()
    about = describe_checkpoint(folder)
    config = MarllibConfig.from_dict(about["config"])
    refuse_game(game, (config.env_id,), "marllib")
    problems = _problems(config, agent, continuous_actions, options)
    if problems:
        raise ConfigError(problems)
    return import_module(_HOMES[config.backend]).load(folder, about, config, agent, device)


def _problems(config: MarllibConfig, agent: Optional[str], continuous: bool, options: Dict[str, Any]) -> List[Problem]:
    found = [Problem(name, "there is no such option; there is continuous_actions") for name in options]
    trained = ALGORITHMS[config.algo].actions == "continuous"
    if trained != continuous:
        kind = "continuous" if trained else "discrete"
        text = f"is {continuous}, but {config.algo} was trained with {kind} actions"
        found.append(Problem("continuous_actions", text))
    if config.core_arch != "mlp":
        text = f"is {config.core_arch}: only policies without memory can be loaded, those of core_arch mlp"
        found.append(Problem("core_arch", text))
    if agent is None and (config.share_policy != "all" or config.algo in ("happo", "hatrpo")):
        found.append(Problem("agent", "must name one, as agent_0: the agents of this run do not share one policy"))
    return found


def place_of(group_map: Mapping[str, List[str]], agent: Optional[str]) -> Tuple[str, int]:
    """Group of an agent of BenchMARL, and its row there; groups never share a policy.

    Raises:
        ConfigError: there is no such agent, or none was named and there are several groups.
    """
    if agent is None and len(group_map) == 1:
        return next(iter(group_map)), 0
    for group, agents in group_map.items():
        if agent in agents:
            return group, agents.index(agent)
    known = ", ".join(name for agents in group_map.values() for name in agents)
    if agent is None:
        text = "must name one: BenchMARL's groups of agents do not share a policy; there are " + known
    else:
        text = f"there is no {agent!r} in this game; there are {known}"
    raise ConfigError([Problem("agent", text)])


__all__ = ["load_policy", "place_of"]
