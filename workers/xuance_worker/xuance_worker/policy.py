"""A checkpoint as a policy: XuanCe's agent is built again from the spaces that lie in it, without an environment."""

from __future__ import annotations

import inspect
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import ConfigError, Problem, refuse_game
from xuance_worker.algorithms import MULTI
from xuance_worker.config import XuanCeConfig
from xuance_worker.runtime import prepare_library


def load_policy(
    checkpoint: str,
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    deterministic: bool = True,
    seed: int = 0,
) -> Any:
    """A policy from a checkpoint of this worker: a folder that ``checkpoint_saved`` announced.

    Args:
        checkpoint: the folder.
        game: what is to be played; only the environment that it was trained on.
        agent: with several agents, which of them it is to be: ``"agent_0"``. ``None``: all of them, observations and
            actions are then dicts by agent.
        device: ``cpu`` or ``cuda``.
        deterministic: take the best action; ``False`` draws one, from policies that are distributions (those of PPO,
            A2C and their like). SAC, ISAC and MASAC always draw, as XuanCe has them; all others always take the best.
        seed: of what is drawn.

    Raises:
        ConfigError: no such checkpoint, or a game or an agent that it does not play.
    """
    prepare_library()
    from xuance_worker import checkpoints

    folder = Path(checkpoint)
    about = checkpoints.read_about(folder)
    config = XuanCeConfig.from_dict(about["config"])
    refuse_game(game, (config.environment,), "xuance")
    several = config.algorithm.agents == MULTI
    agents = about["spaces"].get("agents", [])
    _check_agent(config, agent, agents)
    if config.algo == "RANDOM":
        return RandomPolicy(config, about, agent, seed)
    built = _build(config, about, "cuda:0" if device.startswith("cuda") else device)
    checkpoints.restore(folder, built, training=False)
    kind = SeveralPolicy if several else SinglePolicy
    return kind(config, built, about, agent=agent, deterministic=deterministic, seed=seed)


def _check_agent(config: XuanCeConfig, agent: str | None, agents: Sequence[str]) -> None:
    if agent is None or (agent in agents and not config.algorithm.together):
        return
    if not agents:
        message = f"{config.algo} has one agent: leave it out"
    elif agent not in agents:
        message = f"there is no {agent!r} in {config.environment}; there are {', '.join(agents)}"
    else:
        message = (
            f"{config.algo}'s agents decide together, from what all of them see, so {agent!r} alone cannot be played; "
            "leave it out, and give observations of all"
        )
    raise ConfigError([Problem("agent", message)])


class _Spaces:
    """What XuanCe's agents ask of their environments when they are built, out of a checkpoint."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        import numpy as np

        from xuance_worker.checkpoints import build_space

        found = about["spaces"]
        self.num_envs = 1
        self.max_episode_steps = found["longest"]
        if "agents" in found:
            self.agents = list(found["agents"])
            self.num_agents = len(self.agents)
            self.observation_space = {agent: build_space(found["observation"][agent]) for agent in self.agents}
            self.action_space = {agent: build_space(found["action"][agent]) for agent in self.agents}
            self.state_space = build_space(found["state"])
            self.buf_state = [np.zeros(self.state_space.shape, np.float32)]
            self.buf_obs: Any = [
                {agent: np.zeros(self.observation_space[agent].shape, np.float32) for agent in self.agents}
            ]
        else:
            self.observation_space = build_space(found["observation"])
            self.action_space = build_space(found["action"])
            self.buf_obs = np.zeros((1, *self.observation_space.shape), np.float32)

    def reset(self) -> tuple[Any, list[dict[str, Any]]]:
        """Nothing begins; the buffers stay as they are."""
        return self.buf_obs, [{}]


def _build(config: XuanCeConfig, about: Mapping[str, Any], device: str) -> Any:
    from xuance.torch.agents import REGISTRY_Agents

    from xuance_worker.settings import make_settings

    scratch = tempfile.mkdtemp(prefix="xuance-")
    try:
        settings = make_settings(config, about["kind"], seed=int(about["seed"]), device=device, log_dir=scratch)
        settings.parallels = 1
        settings.use_actions_mask = bool(about.get("masked", settings.use_actions_mask))
        built = REGISTRY_Agents[settings.agent](settings, _Spaces(about))
        built.writer.close()
        built.memory = None  # sized for training; nothing is stored here
        built.policy.eval()
        return built
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Drawing:
    """Random numbers of a policy's own: what it draws leaves the process's generators as they were.

    Args:
        seed: of its first episode.
    """

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._python = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed % 2**32).get_state()
        self._torch = self._torch_state(seed)

    @staticmethod
    def _torch_state(seed: int) -> Any:
        import torch

        return torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        import numpy as np
        import torch

        self._outside = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)

    def __exit__(self, *error: object) -> None:
        import numpy as np
        import torch

        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.setstate(self._outside[0])
        np.random.set_state(self._outside[1])
        torch.set_rng_state(self._outside[2])


class _Policy:
    """What policies of one and of several agents have in common.

    Attributes:
        games: the environment that it was trained on.
        config: what it was trained with.
        step: environment steps that it was trained for.
    """

    def __init__(
        self,
        config: XuanCeConfig,
        built: Any,
        about: Mapping[str, Any],
        *,
        agent: str | None,
        deterministic: bool,
        seed: int,
    ) -> None:
        self.games: tuple[str, ...] = (config.environment,)
        self.config = config
        self.agent = agent
        self.step = int(about["step"])
        self._built = built
        self._deterministic = deterministic
        self._drawing = _Drawing(seed)
        if getattr(built, "noise_scale", None) is not None:
            built.noise_scale = 0.0  # of exploration; NoisyDQN adds it to its weights whenever it acts
        self._takes = set(inspect.signature(built.get_actions).parameters)
        self._memory: Any = None
        self._means: Any = None
        self._rows = 0
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes: what is remembered of earlier ones is forgotten."""
        if seed is not None:
            self._drawing = _Drawing(seed)
        self._memory = self._means = None
        self._rows = 0

    def _options(self) -> dict[str, Any]:
        wanted = {"deterministic": self._deterministic, "test_mode": True}
        return {name: value for name, value in wanted.items() if name in self._takes}


class SinglePolicy(_Policy):
    """One agent in a Gymnasium environment."""

    def act(self, observation: Any, action_mask: Any | None = None) -> Any:
        """The action for one observation, of the environment's observation space."""
        _refuse_mask(action_mask)
        return self.act_batch([observation])[0]

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> Any:
        """Actions of as many environments; row *i* of each call is environment *i*."""
        import numpy as np
        import torch

        _refuse_mask(action_masks)
        rows = np.stack([np.asarray(each, np.float32).reshape(-1) for each in observations])
        built = self._built
        if rows.shape[1:] != built.observation_space.shape:
            raise ValueError(
                f"an observation of {self.games[0]} has {built.observation_space.shape[0]} entries, not {rows.shape[1]}"
            )
        with self._drawing, torch.no_grad():
            actions = np.asarray(self._actions(built._process_observation(rows)))
        if hasattr(built.action_space, "n"):
            return actions.reshape(len(rows)).astype(np.int64)
        space = built.action_space
        return np.clip(actions.reshape(len(rows), *space.shape), space.low, space.high).astype(space.dtype)

    def _actions(self, rows: Any) -> Any:
        built = self._built
        if hasattr(built, "train_player"):
            return built.get_actions(rows, test_mode=True, player=self._player(len(rows)))
        if "rnn_hidden" in self._takes:
            if self._memory is None or self._rows != len(rows):
                self._memory, self._rows = built.policy.init_hidden(len(rows)), len(rows)
            found = built.get_actions(rows, 0.0, self._memory)
            self._memory = found["rnn_hidden_next"]
            return found["actions"]
        found = built.get_actions(rows, **self._options())
        actions = found["actions"] if isinstance(found, dict) else found  # NoisyDQN gives them bare
        return actions.cpu().numpy() if hasattr(actions, "cpu") else actions

    def _player(self, rows: int) -> Any:
        from copy import deepcopy

        if self._memory is None or self._rows != rows:
            self._memory, self._rows = deepcopy(self._built.train_player), rows
            self._memory.init_states(num_envs=rows)
        return self._memory


class SeveralPolicy(_Policy):
    """One agent of several, or all of them.

    With ``agent`` given, the others' observations are taken as zeros: what it does depends on its own alone.
    """

    def act(self, observation: Any, action_mask: Any | None = None) -> Any:
        """The action for one observation; dicts by agent where it is to play all of them."""
        masks = None if action_mask is None else [action_mask]
        return self.act_batch([observation], masks)[0]

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> Any:
        """Actions of as many environments: an array, or a list of dicts where it is to play all agents."""
        import numpy as np
        import torch

        built = self._built
        rows = [self._row(each) for each in observations]
        masks = self._masks(action_masks, len(rows))
        there = [
            {agent: self.agent is not None or agent in each for agent in built.agent_keys} for each in observations
        ]
        with self._drawing, torch.no_grad():
            found = self._actions(rows, masks, there)
        if self.agent is None:
            return [{agent: self._own(agent, row[agent]) for agent in built.agent_keys} for row in found]
        return np.stack([np.asarray(self._own(self.agent, row[self.agent])) for row in found])

    def _row(self, observation: Any) -> dict[str, Any]:
        import numpy as np

        built = self._built
        given = observation if self.agent is None else {self.agent: observation}
        if not isinstance(given, Mapping):
            raise ValueError(
                "give observations of all agents, as a dict, or say which agent this is: load_policy(agent=...)"
            )
        row = {}
        for agent in built.agent_keys:
            shape = built.observation_space[agent].shape
            value = given.get(agent)
            row[agent] = np.zeros(shape, np.float32) if value is None else np.asarray(value, np.float32).reshape(-1)
            if row[agent].shape != shape:
                raise ValueError(
                    f"an observation of {agent} in {self.games[0]} has {shape[0]} entries, not {row[agent].shape[0]}"
                )
        return row

    def _masks(self, masks: Any, rows: int) -> Any:
        import numpy as np

        built = self._built
        if not built.use_actions_mask:
            _refuse_mask(masks)
            return None
        found = []
        for number in range(rows):
            given = {} if masks is None else masks[number] if self.agent is None else {self.agent: masks[number]}
            found.append({
                agent: np.asarray(given.get(agent, np.ones(built.action_space[agent].n)), np.bool_)
                for agent in built.agent_keys
            })  # fmt: skip
        return found

    def _actions(self, rows: list[dict[str, Any]], masks: Any, there: list[dict[str, bool]]) -> list[dict[str, Any]]:
        built = self._built
        options = self._options() | self._of_others(there)
        if masks is not None:
            options["avail_actions_dict"] = masks
        if built.use_rnn and (self._memory is None or self._rows != len(rows)):
            self._memory, self._rows = built.init_rnn_hidden(len(rows)), len(rows)
        if built.use_rnn:
            if isinstance(self._memory, tuple):
                options["rnn_hidden_actor"], options["rnn_hidden_critic"] = self._memory
            else:
                options["rnn_hidden"] = self._memory
        found = built.get_actions(obs_dict=rows, **options)
        self._means = found.get("actions_mean")
        if built.use_rnn:
            if isinstance(self._memory, tuple):
                self._memory = found["rnn_hidden_actor"], self._memory[1]
            else:
                self._memory = found["hidden_state"]
        return list(found["actions"])

    def _of_others(self, there: list[dict[str, bool]]) -> dict[str, Any]:
        """Which agents are there, for those that talk; and what their neighbours did last, for mean fields."""
        import numpy as np

        found: dict[str, Any] = {}
        if "info" in self._takes:
            found["info"] = [{"agent_mask": each} for each in there]
        if "act_mean_dict" in self._takes:
            found["agent_mask"] = there
            if self._means is None or len(self._means) != len(there):
                count = self._built.n_actions_max
                self._means = [{agent: np.zeros(count) for agent in each} for each in there]
            found["act_mean_dict"] = self._means
        return found

    def _own(self, agent: str, action: Any) -> Any:
        import numpy as np

        space = self._built.action_space[agent]
        if hasattr(space, "n"):
            return int(action)
        return np.clip(np.asarray(action).reshape(space.shape), space.low, space.high).astype(space.dtype)


class RandomPolicy:
    """The algorithm RANDOM, for one agent of several or for all: every legal action is as likely as any other."""

    def __init__(self, config: XuanCeConfig, about: Mapping[str, Any], agent: str | None, seed: int) -> None:
        from xuance_worker.checkpoints import build_space

        self.games: tuple[str, ...] = (config.environment,)
        self.config = config
        self.agent = agent
        self.step = int(about["step"])
        self._spaces = {name: build_space(text) for name, text in about["spaces"]["action"].items()}
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes."""
        if seed is not None:
            for number, space in enumerate(self._spaces.values()):
                space.seed(seed + number)

    def act(self, observation: Any, action_mask: Any | None = None) -> Any:
        """An action, or a dict of them by agent."""
        masks = action_mask if self.agent is None else {self.agent: action_mask}
        found = {agent: self._drawn(agent, (masks or {}).get(agent)) for agent in self._spaces}
        return found if self.agent is None else found[self.agent]

    def act_batch(self, observations: Any, action_masks: Any | None = None) -> Any:
        """Actions of as many environments."""
        import numpy as np

        masks = action_masks if action_masks is not None else [None] * len(observations)
        found = [self.act(each, mask) for each, mask in zip(observations, masks, strict=True)]
        return found if self.agent is None else np.asarray(found)

    def _drawn(self, agent: str, mask: Any) -> Any:
        import numpy as np

        space = self._spaces[agent]
        if hasattr(space, "n"):
            return int(space.sample(None if mask is None else np.asarray(mask, np.int8)))
        return space.sample()


def _refuse_mask(mask: Any) -> None:
    if mask is not None:
        raise ValueError("this policy was trained without action masks, and cannot keep to one")


__all__ = ["RandomPolicy", "SeveralPolicy", "SinglePolicy", "load_policy"]
