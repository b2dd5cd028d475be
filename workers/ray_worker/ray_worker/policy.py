"""A trained policy, loaded from a checkpoint: the RLModule alone, with no Ray running.

RLlib's checkpoints are pickled by RLlib: load only those of people whose programs you would run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaic_cluster.worker import ConfigError, Problem, refuse_game
from ray_worker.config import RayConfig, module_of

if TYPE_CHECKING:
    from ray_worker.algorithms import Game

SAVED = "mosaic.json"
"""In every checkpoint: what is needed to make a policy of it, and the step it was saved at."""
_MODULES = ("learner_group/learner/rl_module", "rl_module")


class RayPolicy:
    """Plays the game it was trained on.

    Attributes:
        games: the name of that game.
        module: the RLModule, see RLlib.
    """

    def __init__(
        self,
        module: Any,
        game: str,
        seen_space: Any,
        action_space: Any,
        *,
        device: str,
        deterministic: bool,
        scaled: bool,
    ) -> None:
        import torch

        from ray_worker.environments import Encoder

        self.games: tuple[str, ...] = (game,)
        self.module = module.to(device).eval()
        self._encode = Encoder(seen_space)
        self._actions = action_space
        self._device = device
        self._deterministic = deterministic
        self._scaled = scaled
        self._random = torch.Generator().get_state()
        self._state: Any = None
        self._first = True
        self.reset(0)

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes: memory is cleared."""
        import torch

        if seed is not None:
            self._random = torch.Generator().manual_seed(seed).get_state()
        self._state, self._first = None, True

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """One action: an int for Discrete, else an array."""
        masks = None if action_mask is None else np.asarray(action_mask)[None]
        action = self._act([observation], masks)[0]
        return int(action) if np.ndim(action) == 0 else action

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        """Actions of many environments, shape (environments, ...)."""
        return self._act(observations, action_masks)

    def _act(self, observations: Sequence[Any], masks: Any) -> np.ndarray:
        import torch

        rows = [self._encode(each, None if masks is None else masks[row]) for row, each in enumerate(observations)]
        seen = torch.as_tensor(np.stack(rows), device=self._device)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            actions = self._forward(seen)
            self._random = torch.get_rng_state()
        found = actions.cpu().numpy()
        return self._in_own_units(found)

    def _forward(self, seen: Any) -> Any:
        from ray.rllib.core.columns import Columns

        batch: dict[str, Any] = {Columns.OBS: seen}
        stateful = self.module.is_stateful()
        if stateful:
            batch = self._with_state(seen)
        output = self.module.forward_inference(batch)
        if stateful:
            self._state, self._first = output[Columns.STATE_OUT], False
        if Columns.ACTIONS in output:
            actions = output[Columns.ACTIONS]
        else:
            inputs = output[Columns.ACTION_DIST_INPUTS]
            drawn = self.module.get_inference_action_dist_cls().from_logits(inputs)
            actions = (drawn.to_deterministic() if self._deterministic else drawn).sample()
        return actions[:, 0] if stateful else actions  # of one moment

    def _with_state(self, seen: Any) -> dict[str, Any]:
        import torch
        import tree
        from ray.rllib.core.columns import Columns

        rows = len(seen)
        if self._state is None:
            initial = self.module.get_initial_state()
            self._state = tree.map_structure(
                lambda each: torch.as_tensor(np.asarray(each), device=self._device).expand(rows, *np.shape(each)),
                initial,
            )
        elif len(tree.flatten(self._state)[0]) != rows:
            raise ValueError(
                f"{rows} environments, but this policy remembers {len(tree.flatten(self._state)[0])}: reset it"
            )
        batch = {Columns.OBS: seen.unsqueeze(1), Columns.STATE_IN: self._state}  # with an axis of time
        if type(self.module).__name__.startswith("Dreamer"):
            batch["is_first"] = torch.full((rows,), float(self._first), device=self._device)
        return batch

    def _in_own_units(self, actions: np.ndarray) -> np.ndarray:
        from gymnasium import spaces
        from ray.rllib.utils.spaces.space_utils import unsquash_action

        space = self._actions
        if isinstance(space, spaces.Discrete):
            if actions.ndim > 1:  # one of n, as DreamerV3 has it
                actions = actions.argmax(-1)
            return actions.astype(np.int64)
        if isinstance(space, spaces.Box):
            own = [
                unsquash_action(each, space) if self._scaled else np.clip(each, space.low, space.high)
                for each in actions
            ]
            return np.stack(own).astype(space.dtype)
        return actions.astype(np.int64)


def load_policy(
    checkpoint: str,
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    deterministic: bool = True,
) -> RayPolicy:
    """The entry point of the group ``mosaic.policies``.

    Args:
        checkpoint: folder of a checkpoint, or of an exported policy.
        game: that it is to play; it plays the one it was trained on.
        agent: of several agents with policies of their own, whose; default: the first.
        device: ``cpu`` or ``cuda``.
        deterministic: take the likeliest action; else draw one. DQN's policies are always so.

    Raises:
        ConfigError: it is no such checkpoint, or it does not play that game, or as that agent.
    """
    folder = Path(checkpoint)
    try:
        said = json.loads((folder / SAVED).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Problem("checkpoint", f"{folder} is no checkpoint of the ray worker: {error}")]) from error
    config = said["config"]
    env_id = config["env_id"].rpartition(".")[2] if "_v" in config["env_id"] else config["env_id"]
    refuse_game(game, tuple(dict.fromkeys((env_id, config["env_id"]))), "the ray worker")
    whom = _agent(said, agent)
    from ray.rllib.core.rl_module.rl_module import RLModule
    from ray.rllib.utils.serialization import space_from_dict

    name = said["agents"][whom]
    place = next((folder / each / name for each in _MODULES if (folder / each / name).is_dir()), None)
    if place is None:
        raise ConfigError([Problem("checkpoint", f"{folder} has no module {name}; it is not complete")])
    module = RLModule.from_checkpoint(str(place.resolve()))
    seen, actions = (space_from_dict(said[kind][whom]) for kind in ("seen_spaces", "action_spaces"))
    return RayPolicy(
        module, env_id, seen, actions,
        device=device, deterministic=deterministic, scaled=bool(said["normalize_actions"]),
    )  # fmt: skip


def _agent(said: dict[str, Any], agent: str | None) -> str:
    known = list(said["agents"])
    if agent is not None and agent not in known and known != [""]:
        raise ConfigError([Problem("agent", f"there is no {agent!r} in this game; give one of {', '.join(known)}")])
    return known[0] if agent is None or known == [""] else agent


def describe(config: RayConfig, game: Game, seed: int, step: int) -> dict[str, Any]:
    """What :data:`SAVED` holds."""
    from ray.rllib.utils.serialization import space_to_dict

    agents = game.agents or ("",)
    return {
        "format": 1,
        "step": step,
        "seed": seed,
        "config": config.to_dict(),
        "agents": {agent: module_of(config, agent) for agent in agents},
        "seen_spaces": {agent: space_to_dict(game.seen_spaces[agent]) for agent in agents},
        "action_spaces": {agent: space_to_dict(game.action_spaces[agent]) for agent in agents},
        "normalize_actions": config.algo != "dreamerv3",
    }


def export_policy(checkpoint: Path, target: Path) -> Path:
    """Copy the policies of a checkpoint, without optimizers, critics' targets and the rest of RLlib's state.

    Returns:
        ``target``, which :func:`load_policy` takes.
    """
    staged = target.with_name(f".{target.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    said = json.loads((checkpoint / SAVED).read_text(encoding="utf-8"))
    for name in dict.fromkeys(said["agents"].values()):
        shutil.copytree(checkpoint / _MODULES[0] / name, staged / _MODULES[1] / name)
    shutil.copy2(checkpoint / SAVED, staged / SAVED)
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
    return target


__all__ = ["SAVED", "RayPolicy", "describe", "export_policy", "load_policy"]
