"""XuanCe's agents, built here, and watched through a callback that the library calls at every step."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from xuance.common import MultiAgentBaseCallback
from xuance.torch.agents import REGISTRY_Agents

from mosaic_cluster.worker import ConfigError, Problem, WorkerSession
from xuance_worker.algorithms import MULTI
from xuance_worker.checkpoints import REPLAY, describe_space
from xuance_worker.config import XuanCeConfig
from xuance_worker.environments import NO_LIMIT, kind_of_actions, make_environments
from xuance_worker.evaluation import Enough, Quota, Stopped
from xuance_worker.repairs import mend_coordination_graph, mend_weighted_mixing
from xuance_worker.settings import make_settings

LOGGER = logging.getLogger(__name__)

MOST_METRICS = 24
"""Of what an algorithm tells of an update: with many agents that learn apart, it is hundreds."""


class Watcher(MultiAgentBaseCallback):
    """What XuanCe calls while it trains.

    Args:
        session: moved, and told of episodes and metrics.
        save: writes a checkpoint.
        every: steps between checkpoints.
        goal: step at which the training is over.
    """

    def __init__(self, session: WorkerSession, save: Callable[[], None], every: int, goal: int) -> None:
        super().__init__()
        self._session = session
        self._save = save
        self._every = every
        self._goal = goal
        self._recurrent = False
        self._agent: Any = None
        self._number = 1

    def attach(self, agent: Any) -> None:
        """Look at how this agent counts: with recurrent networks for several agents, in whole episodes."""
        self._recurrent = bool(agent.use_rnn) and hasattr(agent, "agent_keys")
        self._number = agent.n_envs
        if self._recurrent and "on_train_episode_info" not in inspect.getsource(type(agent).run_episodes):
            # Agents that talk to each other do not tell when an episode has ended: the environments do it for them.
            self._agent = agent
            agent.train_envs.on_step = self._on_step

    def count(self, num_envs: int) -> None:
        """So many steps are taken at a time."""
        self._number = num_envs

    def on_train_epochs_end(self, current_step: int, **found: Any) -> None:
        """Networks have been updated."""
        self._session.metrics.update(metrics(found.get("update_info") or found.get("train_info") or {}))

    def on_train_episode_info(self, **found: Any) -> None:
        """An episode of environment ``env_id`` has ended."""
        info = found["infos"][found["env_id"]]
        score = info["episode_score"]
        # Recurrent agents count an episode's steps before they tell, the others after.
        self._session.step = int(found["current_step"]) + (0 if self._recurrent else self._number)
        if isinstance(score, dict):
            returns = {agent: float(each) for agent, each in score.items()}
            self._session.episode(sum(returns.values()), int(info["episode_step"]), metadata={"returns": returns})
        else:
            self._session.episode(float(score), int(info["episode_step"]))
        if self._recurrent:
            self._tick(int(found["current_step"]))

    def on_train_step_end(self, current_step: int, **found: Any) -> None:
        """All environments have made a step, and networks have been updated if they were to be."""
        self._tick(int(current_step))

    def _on_step(self, infos: list[dict[str, Any]], ended: list[int]) -> None:
        if self._session.stopping:
            raise Stopped
        step = int(self._agent.current_step)  # the steps of these episodes are added when all of them have been told
        for number in ended:
            step += int(infos[number]["episode_step"])
            self.on_train_episode_info(infos=infos, env_id=number, current_step=step)

    def on_test_step(self, **found: Any) -> None:
        """Recurrent agents play whole episodes, also for training: a stop need not wait for their end."""
        if found.get("test_mode") is False and self._session.stopping:
            raise Stopped

    def _tick(self, step: int) -> None:
        session = self._session
        session.step = step
        session.heartbeat()
        if session.stopping:
            raise Stopped
        if step < self._goal and session.checkpoint_due(self._every):
            self._save()


class Training:
    """One of XuanCe's agents with its environments.

    Args:
        config: what to train.
        seed: of networks, exploration and environments.
        device: ``cpu`` or ``cuda:0``.
        step: steps taken before; environments then begin with other episodes than at first.
        log_dir: folder for XuanCe's event files, or ``None`` for none.

    Raises:
        ConfigError: the environment or a setting cannot be used.
    """

    def __init__(
        self, config: XuanCeConfig, *, seed: int, device: str, step: int = 0, log_dir: Path | None = None
    ) -> None:
        self.config = config
        self._silent = log_dir is None
        number = config.num_envs or 1
        probe = make_environments(config, 1, seed)
        try:
            self.kind = kind_of_actions(probe, config)
            self.settings = make_settings(config, self.kind, seed=seed, device=device, log_dir=str(log_dir or ""))
            _check_environment(probe, self.settings, config)
        finally:
            probe.close()
        number = self.settings.parallels
        self.envs = make_environments(config, number, (seed + step) % 2**31)
        self.agent: Any = None

    def build(self, callback: Watcher | None = None) -> Any:
        """The agent.

        Raises:
            ConfigError: XuanCe cannot build it with these settings.
        """
        if self.config.algo == "RANDOM":
            return None
        if self.config.algo == "DCG_S":
            mend_coordination_graph(self.envs.state_space.shape[-1])
        elif self.config.algo == "CWQMIX":
            mend_weighted_mixing()
        try:
            self.agent = self._built(callback)
        except Exception as error:
            LOGGER.debug("the agent cannot be built", exc_info=True)
            raise ConfigError([
                Problem("algo", f"XuanCe cannot build {self.config.algo} for {self.config.environment} with these "
                                f"settings: {type(error).__name__}: {error}")
            ]) from error  # fmt: skip
        held = type(self.agent.memory).__name__
        if self.config.save_replay and held not in REPLAY:
            raise ConfigError([
                Problem("save_replay", f"{self.config.algo} has no replay buffer that can be saved: leave it out")
            ])  # fmt: skip
        if callback is not None:
            # DreamerV3 leaves it out on the way to its base class, and would train without telling anybody.
            self.agent.callback = self.agent.learner.callback = callback
            callback.attach(self.agent)
        return self.agent

    def _built(self, callback: Watcher | None) -> Any:
        if not self._silent:
            return REGISTRY_Agents[self.settings.agent](self.settings, self.envs, callback=callback)
        # It opens an event file wherever it is built.
        with tempfile.TemporaryDirectory(prefix="xuance-", ignore_cleanup_errors=True) as scratch:
            self.settings.log_dir = self.settings.model_dir = scratch
            agent = REGISTRY_Agents[self.settings.agent](self.settings, self.envs, callback=callback)
            agent.writer.close()
        agent.writer = _Silence()
        return agent

    def spaces(self) -> dict[str, Any]:
        """What is needed to build the agent again without an environment, as plain values."""
        envs = self.envs
        if self.config.algorithm.agents != MULTI:
            return {
                "observation": describe_space(envs.observation_space),
                "action": describe_space(envs.action_space),
                "longest": int(envs.max_episode_steps),
            }
        return {
            "agents": list(envs.agents),
            "observation": {agent: describe_space(space) for agent, space in envs.observation_space.items()},
            "action": {agent: describe_space(space) for agent, space in envs.action_space.items()},
            "state": describe_space(envs.state_space),
            "longest": int(envs.max_episode_steps),
        }

    def evaluate(self, episodes: int, seed: int, stopping: Callable[[], bool]) -> list[float]:
        """Returns of episodes without exploration; of several agents, their sum.

        XuanCe's tests update the running mean of observations: nothing is to be trained or saved after them.

        Raises:
            Stopped: the run must end.
        """
        envs = make_environments(self.config, min(episodes, 10), (seed + 1_000_003) % 2**31)
        envs.on_step = quota = Quota(episodes, envs.num_envs, stopping)
        try:
            envs.reset()
            with contextlib.suppress(Enough):
                while self.config.algo == "RANDOM":
                    _random_step(envs)
                # XuanCe would count the first ones to end: it is told to go on, until the quota is there.
                self.agent.test(test_episodes=sys.maxsize, test_envs=envs, close_envs=False)
        finally:
            envs.close()
        return quota.scores

    def close(self) -> None:
        """Let environments and event files go."""
        if self.agent is not None:
            self.agent.writer.close()
        self.envs.close()


def play_randomly(envs: Any, steps: int, watcher: Watcher, step: int = 0) -> None:
    """The algorithm RANDOM: every agent draws from its action space; ``steps`` of each environment."""
    envs.reset()
    watcher.count(envs.num_envs)
    for _ in range(steps):
        infos, ended = _random_step(envs)
        for number in ended:
            watcher.on_train_episode_info(infos=infos, env_id=number, current_step=step)
        step += envs.num_envs
        watcher.on_train_step_end(step)


def metrics(info: dict[str, Any]) -> dict[str, float]:
    """Numbers of an update, by names that can be searched for: ``actor loss`` becomes ``actor_loss``."""
    found: dict[str, float] = {}
    for name, value in info.items():
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            if "Episode" in name:
                continue  # told as an episode
            found[_name(name)] = float(value)
            if len(found) == MOST_METRICS:
                break
    return found


def _name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_").lower()


def _random_step(envs: Any) -> tuple[list[dict[str, Any]], list[int]]:
    actions = [
        {agent: space.sample() for agent, space in each.action_space.items()}
        for each in envs.envs
    ]  # fmt: skip
    _, _, terminated, truncated, infos = envs.step(actions)
    return infos, [number for number in range(envs.num_envs) if all(terminated[number].values()) or truncated[number]]


def _check_environment(envs: Any, settings: Namespace, config: XuanCeConfig) -> None:
    problems = []
    if config.algorithm.agents == MULTI:
        if getattr(settings, "use_parameter_sharing", False):
            kinds = {(str(envs.observation_space[agent]), str(envs.action_space[agent])) for agent in envs.agents}
            shapes = {(envs.observation_space[a].shape, str(envs.action_space[a])) for a in envs.agents}
            if len(shapes) > 1:
                shown = "; ".join(f"{one} → {other}" for one, other in sorted(kinds))
                problems.append(
                    Problem("share_parameters", f"agents see and do different things ({shown}): set it to false")
                )
        if envs.envs[0].env.masked:
            settings.use_actions_mask = True
        if settings.use_rnn and envs.max_episode_steps >= NO_LIMIT:
            problems.append(
                Problem(
                    "max_episode_steps",
                    f"{config.algo} keeps whole episodes, and {config.environment} does not say how long they get: "
                    "set it",
                )
            )
    if problems:
        raise ConfigError(problems)


class _Silence:
    """In place of XuanCe's writer of event files, where nobody asked for them."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


__all__ = ["Stopped", "Training", "Watcher", "metrics", "play_randomly"]
