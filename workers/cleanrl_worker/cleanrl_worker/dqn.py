"""DQN for discrete actions and vector observations: the whole algorithm, in this one file.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature 518): Q-learning on
transitions drawn at random from a replay buffer, towards values of a target network that is held still in
between, acting at random with a probability epsilon that falls linearly.
``double_q`` adds van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning"
(arXiv:1509.06461).

Errors are squared and not clipped as in the paper: to clip them, or the gradient, is to let the many small
errors outvote the few large ones of the transitions that end an episode, which CartPole consists of.

Where this differs from CleanRL's ``dqn.py``, it does so on purpose:

- An episode that is *truncated* (time limit) is not over: its last state's value is bootstrapped. The buffer
  holds the true successor of every state, also where an episode ends.
- The step size is lowered linearly (``anneal_lr``), without which the policy comes and goes to the very end.
- Double Q-learning.
- All randomness of the algorithm comes from one NumPy generator, on any device.

Shapes: N environments, D observation entries, A actions, M = ``batch_size``.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn
from torch.nn.functional import mse_loss

from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.envs import env_seeds, make_envs, observation_size, replay_tapes, save_tapes
from cleanrl_worker.replay import ReplayBuffer
from cleanrl_worker.session import Session


class QNetwork(nn.Sequential):
    """(M, D) observations to the (M, A) values of all actions, through two hidden layers of ReLU units."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(observation_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, actions),
        )


def action_numbers(envs: SyncVectorEnv) -> tuple[int, int]:
    """Number of actions A, and the first action's number (which is 0 for most environments)."""
    space = envs.single_action_space
    assert isinstance(space, gym.spaces.Discrete)
    return int(space.n), int(space.start)


def check(config: CleanRLConfig, device: torch.device) -> dict[str, Any]:
    """Build everything and take one step, to see that it can be done. Returns what was found."""
    envs = make_envs(config)
    try:
        entries, (actions, first_action) = observation_size(envs), action_numbers(envs)
        network = QNetwork(entries, actions, config.hidden_size).to(device)
        obs, _ = envs.reset(seed=env_seeds(0, config.num_envs))
        with torch.inference_mode():
            values = network(torch.as_tensor(obs, dtype=torch.float32, device=device))
        envs.step(values.argmax(-1).cpu().numpy() + first_action)
        return {
            "observation_size": entries,
            "actions": actions,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }
    finally:
        envs.close()


def train(config: CleanRLConfig, session: Session) -> None:
    """Train until ``total_steps``, or until the session asks to stop. It takes reports and checkpoints.

    Raises:
        ConfigError: the environment cannot be made or its spaces are not supported.
        TrainingError: the loss is no longer finite, or the checkpoint's buffer is of another environment.
    """
    envs = make_envs(config)
    try:
        _train(config, session, envs)
    finally:
        envs.close()


def _train(config: CleanRLConfig, session: Session, envs: SyncVectorEnv) -> None:
    device = session.device
    rng = np.random.default_rng(session.seed)
    entries, (action_count, first_action) = observation_size(envs), action_numbers(envs)
    network = QNetwork(entries, action_count, config.hidden_size).to(device)
    target_network = copy.deepcopy(network).requires_grad_(False)
    parameters, target_parameters = list(network.parameters()), list(target_network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    buffer = ReplayBuffer(config.buffer_size, entries, (), np.int64)
    obs, _ = envs.reset(seed=env_seeds(session.seed, config.num_envs))
    obs = np.array(obs, dtype=np.float32)  # a copy: the vector environment overwrites its array

    if session.resumed is not None:
        saved = session.resumed
        network.load_state_dict(saved["network"])
        target_network.load_state_dict(saved["target_network"])
        optimizer.load_state_dict(saved["optimizer"])
        buffer.load_state_dict(saved["buffer"])
        where_it_was = None
        if session.same_seed:
            rng.bit_generator.state = saved["rng"]
            session.restore_random_states()
            if saved["obs"].shape == obs.shape:
                where_it_was = replay_tapes(envs, saved["tapes"], saved["obs"].numpy())
        if where_it_was is not None:
            obs = where_it_was
        else:
            session.say("the environments start new episodes: theirs could not be continued")
            obs, _ = envs.reset(seed=[int(word) for word in rng.integers(2**31, size=config.num_envs)])
            obs = np.array(obs, dtype=np.float32)

    def state() -> dict[str, Any]:
        return {
            "network": network.state_dict(),
            "target_network": target_network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "buffer": buffer.state_dict(),
            "rng": rng.bit_generator.state,
            "obs": torch.from_numpy(obs.copy()),
            "tapes": save_tapes(envs),
        }

    while session.step < config.total_steps and not session.stopping:
        # ---- act: at random with probability epsilon, else what looks best ---------------------------
        progress = session.step / config.total_steps
        epsilon = config.start_e + (config.end_e - config.start_e) * min(1, progress / config.exploration_fraction)
        actions = rng.integers(action_count, size=config.num_envs)
        greedy = rng.random(config.num_envs) >= epsilon
        if greedy.any():
            with torch.inference_mode():
                best = network(torch.from_numpy(obs).to(device)).argmax(-1).cpu().numpy()
            actions[greedy] = best[greedy]
        next_obs, rewards, terminated, truncated, infos = envs.step(actions + first_action)
        next_obs = np.array(next_obs, dtype=np.float32)
        steps_before = session.step
        session.step += config.num_envs

        # ---- remember --------------------------------------------------------------------------------
        successors = next_obs
        done = terminated | truncated
        if done.any():
            successors = next_obs.copy()  # where an episode ended, next_obs is the first of the next one
            episodes = infos["final_info"]["episode"]
            for i in np.flatnonzero(done):
                successors[i] = infos["final_obs"][i]
                session.episode(float(episodes["r"][i]), int(episodes["l"][i]), bool(terminated[i]), bool(truncated[i]))
        buffer.add(obs=obs, next_obs=successors, actions=actions, rewards=rewards, terminated=terminated)
        obs = next_obs

        # ---- learn -----------------------------------------------------------------------------------
        rounds = session.step // config.train_frequency - steps_before // config.train_frequency
        if session.step > config.learning_starts and rounds:
            learning_rate = config.learning_rate * (1 - progress) if config.anneal_lr else config.learning_rate
            optimizer.param_groups[0]["lr"] = learning_rate
            for _ in range(rounds * config.gradient_steps):
                drawn = rng.integers(len(buffer), size=config.batch_size)
                obs_m, next_obs_m, action, reward, ended = buffer.rows(drawn, device)
                with torch.no_grad():
                    next_values = target_network(next_obs_m)  # (M, A)
                    if config.double_q:
                        # Where one network both chooses and rates, it prefers what it rates too high.
                        best_next = network(next_obs_m).argmax(-1, keepdim=True)  # (M, 1)
                        next_value = next_values.gather(-1, best_next).squeeze(-1)  # (M,)
                    else:
                        next_value = next_values.amax(-1)
                    # y = r + gamma Q'(s', a*), or r alone where nothing comes after
                    target = reward + config.gamma * ~ended * next_value  # (M,)
                value = network(obs_m).gather(-1, action.unsqueeze(-1)).squeeze(-1)  # (M,)
                loss = mse_loss(value, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.updates += 1
                if session.updates % config.target_network_frequency == 0:
                    with torch.no_grad():
                        for old, new in zip(target_parameters, parameters, strict=True):
                            old.lerp_(new, config.tau)
            session.learned({"q_loss": loss.item(), "q_value": value.mean().item()})
            session.metrics.update(epsilon=epsilon, learning_rate=learning_rate)
        session.heartbeat()
        session.checkpoint_if_due(state)

    session.checkpoint(state)


__all__ = ["QNetwork", "action_numbers", "check", "train"]
